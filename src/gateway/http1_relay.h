// Http1Relay: the HTTP/1.1 requests of one guest connection, each judged, sent on to its server and answered. Bodies
// stream both ways at once. One executor; used through its shared_ptr.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "gateway/http1_input.h"
#include "gateway/http_exchange.h"

namespace sbx::gateway {

class Http1Relay : public std::enable_shared_from_this<Http1Relay> {
 public:
  Http1Relay(Gateway& gateway, std::shared_ptr<ByteStream> guest)
      : gateway_(gateway), guest_(std::move(guest)), input_(std::make_shared<Http1Input>(guest_, gateway.executor())) {}

  // Opens (or gives again) the connection that a request needs. `fresh`: the last one turned out to be closed.
  using Server = std::shared_ptr<Http1Input>;
  using Connect = std::function<Awaitable<Result<Server>>(bool fresh)>;

  // Serves all requests; they are for `origin` and share `server` (null where the origin is denied).
  Awaitable<void> serve(HttpOrigin origin, std::shared_ptr<ByteStream> server);

  // The next request; nullopt at the end. A malformed one has been answered.
  Awaitable<std::optional<Http1Request>> next();
  // Answers one request, whose target is in origin-form. False: the connection must be closed.
  Awaitable<bool> exchange(const HttpOrigin& origin, Http1Request request, Connect connect, bool may_retry);
  // Answers without a server.
  Awaitable<bool> answer(const Http1Request& request, int status, std::string body);
  // What the guest sent after its last request.
  std::string take_rest() { return input_->take_rest(); }
  // Ends the connection in good order.
  Awaitable<void> close();

 private:
  struct Upload;
  Awaitable<bool> drain(const Http1Request& request);
  Awaitable<Result<Server>> send_request(HttpExchange& exchange, const Http1Request& request, HttpRequestHead head,
                                         const Connect& connect, bool fresh, std::shared_ptr<Upload>& upload);
  Awaitable<void> upload_body(std::shared_ptr<Upload> upload);
  Awaitable<Result<Http1Response>> response_head(HttpExchange& exchange, const Http1Request& request, Server server);
  // Sends the request to `server`, which it sets, and waits for the final response.
  Awaitable<Result<Http1Response>> attempt(HttpExchange& exchange, const Http1Request& request, HttpRequestHead head,
                                           const Connect& connect, bool fresh, Server& server,
                                           std::shared_ptr<Upload>& upload);
  Awaitable<Result<void>> response_body(HttpExchange& exchange, Server server, bool chunked);
  Awaitable<void> switch_protocols(HttpExchange& exchange, Server server);

  Gateway& gateway_;
  std::shared_ptr<ByteStream> guest_;
  std::shared_ptr<Http1Input> input_;
};

}  // namespace sbx::gateway
