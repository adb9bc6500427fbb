#include "sandbox/keeper_client.h"

#include <boost/asio/detached.hpp>

#include "sandbox/gateway_link.h"
#include "sandbox/json_fields.h"

namespace sbx::sandbox {
namespace asio = boost::asio;
namespace {

struct PendingCall {
  explicit PendingCall(asio::any_io_executor executor) : done(executor) {}
  Event done;
  Result<std::string> result = fail(ErrorCode::kTimeout, "the sandbox's keeper did not answer in time");
};

Awaitable<void> run_session(std::shared_ptr<wire::Http2Session> session, std::shared_ptr<bool> alive) {
  auto ended = co_await session->run();
  (void)ended;  // why it ended shows in the calls that failed
  *alive = false;
}

Awaitable<void> run_call(std::shared_ptr<wire::Http2Session> session, std::shared_ptr<PendingCall> pending,
                         std::string method, std::string path, std::string body) {
  auto result = co_await wire::call(*session, std::move(method), std::move(path), std::move(body));
  pending->result = std::move(result);
  pending->done.set();
}

Awaitable<void> expire(std::shared_ptr<asio::steady_timer> timer, std::shared_ptr<PendingCall> pending) {
  boost::system::error_code error;
  co_await timer->async_wait(asio::redirect_error(asio::use_awaitable, error));
  if (!error) pending->done.set();
}

}  // namespace

Result<std::shared_ptr<KeeperClient>> KeeperClient::connect(asio::any_io_executor executor,
                                                            const std::filesystem::path& socket) {
  auto fd = SBX_TRY(connect_to_socket(socket), "reaching the sandbox's keeper");
  auto session = wire::Http2Session::client(asio::posix::stream_descriptor(executor, fd.release()));
  auto alive = std::make_shared<bool>(true);
  asio::co_spawn(executor, run_session(session, alive), asio::detached);
  return std::shared_ptr<KeeperClient>(new KeeperClient(std::move(session), std::move(alive)));
}

KeeperClient::~KeeperClient() { session_->close(); }

Awaitable<Result<nlohmann::json>> KeeperClient::call(std::string method, std::string path, nlohmann::json body,
                                                     std::chrono::milliseconds deadline) {
  const auto executor = co_await asio::this_coro::executor;
  auto pending = std::make_shared<PendingCall>(executor);
  auto timer = std::make_shared<asio::steady_timer>(executor, deadline);
  std::string text = body.is_null() ? "" : dump(body);
  asio::co_spawn(executor, run_call(session_, pending, std::move(method), path, std::move(text)), asio::detached);
  asio::co_spawn(executor, expire(timer, pending), asio::detached);
  co_await pending->done.wait();
  timer->cancel();
  if (!pending->result)
    co_return std::unexpected(Error(pending->result.error()).while_doing("asking the keeper for " + path));
  auto parsed = nlohmann::json::parse(*pending->result, nullptr, false);
  if (parsed.is_discarded())
    co_return fail(ErrorCode::kInternal, "the keeper answered " + path + " with something that is not JSON");
  co_return parsed;
}

Result<std::shared_ptr<wire::Http2Stream>> KeeperClient::open(std::string method, std::string path, bool end) {
  wire::Http2Head head;
  head.method = std::move(method);
  head.path = std::move(path);
  return session_->open(std::move(head), end);
}

}  // namespace sbx::sandbox
