// The secrets of this instance, for coroutines: secret::Book on a thread of its own, since a keyring may ask its user
// and a value may have to be fetched. All calls on the daemon's one event loop.
#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <string>
#include <vector>

#include "sandbox/async.h"
#include "secret/book.h"

namespace sbx::sandbox {

class Secrets {
 public:
  // `home` is the instance's. The store is chosen by SBX_SECRET_STORE ("file", "secret-service") or by what there is.
  Secrets(boost::asio::io_context& loop, const std::filesystem::path& home);
  ~Secrets();

  // For a sandbox's gateway, as it starts and after each change. The array goes into GatewayConfig as it is.
  Awaitable<Result<secret::Credentials>> credentials(std::string sandbox_id);
  // For its guest: "K=V", sentinels and placeholders only.
  Awaitable<Result<std::vector<std::string>>> environment(std::string sandbox_id);

  // What a sandbox's gateway tells of a login that was made there; errors as of Book::keep_login().
  Awaitable<Result<void>> keep_login(std::string sandbox_id, std::shared_ptr<const secret::LoginUpdate> login);
  Awaitable<Result<secret::Summary>> set(secret::Record record, secret::Book::SetOptions options,
                                         std::string scope_name);
  Awaitable<Result<std::vector<secret::Summary>>> list(secret::Book::Filter filter);
  Awaitable<Result<std::vector<secret::Summary>>> remove(secret::Book::Filter filter);
  // Removes what is a removed sandbox's own. Nothing happens, and no keyring is asked, where no secret was ever stored.
  Awaitable<Result<void>> forget_sandbox(std::string sandbox_id);
  Awaitable<Result<secret::Book::Store>> store();
  // Is any secret stored? Asks no keyring.
  Awaitable<bool> in_use();
  // Removes every secret, also those of a store that cannot be read any more; how many there were.
  Awaitable<Result<std::size_t>> destroy();

  // Who tells running sandboxes of a change: is given the scope that changed ("global", "host-only" or a sandbox's id)
  // and answers with the names of those that have it now. Set once, at the start.
  using Apply = std::function<Awaitable<std::vector<std::string>>(std::string scope)>;
  void on_change(Apply apply) { apply_ = std::move(apply); }
  Awaitable<std::vector<std::string>> apply(std::string scope);

  // Fetches values again as they grow old, while `in_use` says so, and applies what changed; runs for ever.
  Awaitable<void> keep_fresh(std::function<bool()> in_use);

 private:
  boost::asio::io_context& loop_;
  secret::Book book_;
  boost::asio::thread_pool thread_;  // last: it uses the book
  Apply apply_;
};

}  // namespace sbx::sandbox
