#include "guest/agent_relay.h"

#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/write.hpp>

namespace sbx::guest {
namespace {

using namespace std::chrono_literals;
using Client = std::shared_ptr<AgentRelay::Local::socket>;
using Stream = std::shared_ptr<wire::Http2Stream>;

constexpr auto kGatewayPatience = 20'000ms;  // a gateway that is being replaced

wire::Http2Head agent_request() {
  wire::Http2Head head;
  head.method = "POST";
  head.path = "/ssh-agent";
  return head;
}

Awaitable<void> upload(Client client, Stream stream) {
  std::array<char, 4096> buffer;
  for (;;) {
    const auto [error, size] = co_await client->async_read_some(boost::asio::buffer(buffer), kNoThrow);
    if (error) break;
    const auto sent = co_await stream->write({buffer.data(), size});
    if (!sent) break;
  }
  (void)co_await stream->finish();
}

// Wakes upload() when the stream is over, also by a gateway that is gone.
Awaitable<void> close_with(Stream stream, Client client) {
  co_await stream->closed();
  boost::system::error_code ignored;
  client->close(ignored);
}

}  // namespace

Result<void> AgentRelay::offer(bool wanted, const char* path) {
  boost::system::error_code error;
  if (!wanted) {
    if (acceptor_.is_open()) acceptor_.close(error);
    ::unlink(path);
    return {};
  }
  struct stat there {};
  if (acceptor_.is_open() && ::stat(path, &there) == 0 && S_ISSOCK(there.st_mode)) return {};
  acceptor_.close(error);
  ::unlink(path);
  acceptor_.open(Local(), error);
  if (!error) acceptor_.bind(Local::endpoint(path), error);
  if (!error) acceptor_.listen(boost::asio::socket_base::max_listen_connections, error);
  if (error) return fail(ErrorCode::kInternal, std::string("listening on ") + path + ": " + error.message());
  if (::chmod(path, 0666) != 0) return fail_errno(std::string("giving away ") + path, errno);
  boost::asio::co_spawn(executor_, accept(), boost::asio::detached);
  return {};
}

Awaitable<void> AgentRelay::accept() {
  for (;;) {
    auto [error, socket] = co_await acceptor_.async_accept(kNoThrow);
    if (error == boost::asio::error::operation_aborted || error == boost::asio::error::bad_descriptor) co_return;
    if (error) {
      co_await sleep_for(executor_, 100ms);  // out of descriptors, most likely
      continue;
    }
    boost::asio::co_spawn(executor_, relay(std::make_shared<Local::socket>(std::move(socket))), boost::asio::detached);
  }
}

// A client that cannot be served finds its connection closed, as with an agent that has ended.
Awaitable<void> AgentRelay::relay(Client client) {
  auto session = co_await gateway_.session(kGatewayPatience);
  if (!session) co_return;
  auto opened = (*session)->open(agent_request(), false);
  if (!opened) co_return;
  const Stream stream = *opened;
  const auto response = co_await stream->response();
  if (!response || response->status != 200) {
    if (response) (void)co_await stream->finish();  // not a reset, of which there may be only so many
    co_return;
  }
  boost::asio::co_spawn(executor_, close_with(stream, client), boost::asio::detached);
  boost::asio::co_spawn(executor_, upload(client, stream), boost::asio::detached);
  for (;;) {
    const auto chunk = co_await stream->read_chunk();
    if (!chunk || chunk->empty()) break;
    const auto [error, size] = co_await boost::asio::async_write(*client, boost::asio::buffer(*chunk), kNoThrow);
    if (error) break;
  }
  boost::system::error_code ignored;
  client->close(ignored);
}

}  // namespace sbx::guest
