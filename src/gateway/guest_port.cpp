#include "gateway/guest_port.h"

#include "gateway/connection.h"
#include "gateway/dns_service.h"
#include "wire/resync.h"

namespace sbx::gateway {

namespace {

wire::Http2Limits limits() {
  wire::Http2Limits limits;
  limits.max_concurrent_streams = 4096;
  // Uploads need no more on a port whose round trip is a fraction of a millisecond.
  limits.stream_window = 64U << 10U;
  limits.max_header_bytes = 8U << 10U;
  // A guest whose programs abort that many connections a second is not working.
  limits.max_resets_per_second = 1000;
  limits.max_buffered_output = 128U << 10U;
  return limits;
}

Awaitable<void> serve(Gateway& gateway, SshAgent& ssh_agent, std::shared_ptr<wire::Http2Stream> stream) {
  co_await gateway.configured();
  const auto& request = stream->request();
  if (request.method == "CONNECT") co_return co_await serve_tunnel(gateway, std::move(stream));
  if (request.method == "POST" && request.path == "/dns-query") {
    co_return co_await serve_dns(gateway, std::move(stream));
  }
  if (request.method == "POST" && request.path == "/ssh-agent") co_return co_await ssh_agent.serve(std::move(stream));
  const Error error{ErrorCode::kNotFound, "there is no " + request.method + " " + request.path, {}};
  co_await wire::send_error(*stream, error);
}

}  // namespace

Awaitable<Result<void>> serve_guest(Gateway& gateway, SshAgent& ssh_agent, boost::asio::posix::stream_descriptor port,
                                    std::chrono::milliseconds resync_within) {
  SBX_CO_CHECK(co_await wire::resync_as_host(port, resync_within), "resynchronising the network port");
  auto session = wire::Http2Session::server(
      std::move(port),
      [&gateway, &ssh_agent](std::shared_ptr<wire::Http2Stream> stream) -> Awaitable<void> {
        return serve(gateway, ssh_agent, std::move(stream));
      },
      limits());
  co_return co_await session->run();
}

}  // namespace sbx::gateway
