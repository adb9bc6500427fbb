#include "sandbox/secrets.h"

#include <cstdlib>

namespace sbx::sandbox {

namespace asio = boost::asio;
using secret::Book;

namespace {

// Each `work` below has a name: GCC 12 destroys a closure that is made inside a co_await expression twice.

constexpr auto kFreshnessCheck = std::chrono::seconds(20);

std::string preferred_store() {
  const char* value = std::getenv("SBX_SECRET_STORE");
  return value != nullptr ? value : "";
}

}  // namespace

Secrets::Secrets(asio::io_context& loop, const std::filesystem::path& home)
    : loop_(loop), book_(secret::vault_folders(home), preferred_store()), thread_(1) {}

Secrets::~Secrets() {
  thread_.stop();
  thread_.join();
}

// The work has a name everywhere: GCC 12 destroys a lambda that is a temporary of a co_await expression twice.
Awaitable<Result<secret::Credentials>> Secrets::credentials(std::string sandbox_id) {
  auto work = [this, sandbox_id] { return book_.credentials(sandbox_id); };
  co_return co_await run_blocking(thread_, std::move(work));
}

Awaitable<Result<std::vector<std::string>>> Secrets::environment(std::string sandbox_id) {
  auto work = [this, sandbox_id] { return book_.environment(sandbox_id); };
  co_return co_await run_blocking(thread_, std::move(work));
}

Awaitable<Result<void>> Secrets::keep_login(std::string sandbox_id, std::shared_ptr<const secret::LoginUpdate> login) {
  auto work = [this, sandbox_id, login] { return book_.keep_login(sandbox_id, *login); };
  co_return co_await run_blocking(thread_, std::move(work));
}

Awaitable<Result<secret::Summary>> Secrets::set(secret::Record record, Book::SetOptions options,
                                                std::string scope_name) {
  auto work = [this, options, scope_name, record = std::move(record)]() mutable {
    return book_.set(std::move(record), options, scope_name);
  };
  co_return co_await run_blocking(thread_, std::move(work));
}

Awaitable<Result<std::vector<secret::Summary>>> Secrets::list(Book::Filter filter) {
  auto work = [this, filter] { return book_.list(filter); };
  co_return co_await run_blocking(thread_, std::move(work));
}

Awaitable<Result<std::vector<secret::Summary>>> Secrets::remove(Book::Filter filter) {
  auto work = [this, filter] { return book_.remove(filter); };
  co_return co_await run_blocking(thread_, std::move(work));
}

Awaitable<Result<void>> Secrets::forget_sandbox(std::string sandbox_id) {
  auto work = [this, sandbox_id] { return book_.forget_sandbox(sandbox_id); };
  co_return co_await run_blocking(thread_, std::move(work));
}

Awaitable<Result<Book::Store>> Secrets::store() {
  auto work = [this] { return book_.store(); };
  co_return co_await run_blocking(thread_, std::move(work));
}

Awaitable<bool> Secrets::in_use() {
  auto work = [this] { return book_.in_use(); };
  co_return co_await run_blocking(thread_, std::move(work));
}

Awaitable<Result<std::size_t>> Secrets::destroy() {
  auto work = [this] { return book_.destroy(); };
  co_return co_await run_blocking(thread_, std::move(work));
}

Awaitable<std::vector<std::string>> Secrets::apply(std::string scope) {
  if (!apply_) co_return std::vector<std::string>();
  co_return co_await apply_(std::move(scope));
}

Awaitable<void> Secrets::keep_fresh(std::function<bool()> in_use) {
  asio::steady_timer timer(loop_);
  for (;;) {
    timer.expires_after(kFreshnessCheck);
    co_await timer.async_wait(asio::use_awaitable);
    if (!in_use()) continue;
    auto work = [this] { return book_.refresh(); };
    const auto changed = co_await run_blocking(thread_, std::move(work));
    if (!changed) continue;
    for (const auto& scope : *changed) (void)co_await apply(scope);
  }
}

}  // namespace sbx::sandbox
