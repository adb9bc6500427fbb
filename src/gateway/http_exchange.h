// HttpExchange: one request of a guest and its response, whatever version carries them: judged, given its credentials,
// and what comes back made safe to show. The relays move the bytes. One executor.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "gateway/content_decoder.h"
#include "gateway/gateway.h"
#include "gateway/http1_head.h"

namespace sbx::gateway {

// The connection that requests come over, or the one that they will need.
struct HttpOrigin {
  policy::Target target;  // without method and path
  bool tls = false;       // towards the server, verified: only then are credentials added
  // What every request is answered with; set where the connection itself is denied.
  std::optional<policy::Decision> denial;
  // Why there is no server for what would be allowed.
  std::optional<Error> failure;
};

struct HttpRequestHead {
  std::string method;
  std::string scheme;     // as claimed; empty where the version does not tell
  std::string authority;  // Host or :authority
  std::string path;       // with its query; "*" for OPTIONS
  HeaderList headers;     // without Host
};

class HttpExchange {
 public:
  HttpExchange(Gateway& gateway, const HttpOrigin& origin) : gateway_(gateway), origin_(origin) {}

  // Decides and logs. What is claimed must be what was connected to.
  policy::Decision judge(const HttpRequestHead& request);
  // The request as policy judged it: for the list of what is open.
  const policy::Target& judged() const { return judged_; }

  // Adds credentials to an allowed request. True: the body's length changes, so it needs a framing of its own.
  bool prepare(HttpRequestHead& request);
  std::string request_piece(std::string_view piece) { return transform(request_body(), piece); }
  std::string request_end() { return secrets_ ? secrets_->request_body.finish() : std::string(); }

  // kUnavailable: the response cannot be made safe. Value: whether the body's length changes.
  Result<bool> response_head(int status, HeaderList& headers);
  // Fields that follow a body, or come before the response (1xx).
  void response_fields(HeaderList& headers);
  Result<std::string> response_piece(std::string_view piece);
  Result<std::string> response_end();
  // Bytes after a switch of protocols, from the server.
  bool changes_response() const { return secrets_ && !secrets_->response.empty(); }

 private:
  Replacer* request_body() { return secrets_ ? &secrets_->request_body : nullptr; }
  static std::string transform(Replacer* replacer, std::string_view piece) {
    return replacer != nullptr ? replacer->feed(piece) : std::string(piece);
  }

  Gateway& gateway_;
  const HttpOrigin& origin_;
  policy::Target judged_;
  // Keeps the credentials that `secrets_` looks at.
  std::shared_ptr<GatewayConfig> config_;
  std::unique_ptr<RequestSecrets> secrets_;
  std::unique_ptr<ContentDecoder> decoder_;
  bool keeps_tokens_ = false;
  std::string token_response_;
};

// {"error":...} with what was denied, by which rule, and how to allow it.
std::string denial_body(const policy::Target& target, const policy::Decision& decision);
// The same shape for what failed.
std::string failure_body(const Error& error);
// 502 and 504 for what a server or the way there did.
int failure_status(const Error& error);

}  // namespace sbx::gateway
