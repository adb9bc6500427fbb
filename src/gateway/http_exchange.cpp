#include "gateway/http_exchange.h"

#include <nlohmann/json.hpp>

#include "gateway/login_tokens.h"

namespace sbx::gateway {

using nlohmann::ordered_json;

namespace {

constexpr std::size_t kMaxTokenResponse = 1U << 20U;

policy::Decision refuse(std::string reason) {
  policy::Decision decision;
  decision.reason = std::move(reason);
  return decision;
}

struct Authority {
  std::string host;
  std::optional<std::uint16_t> port;
};

Result<Authority> parse_http_authority(std::string_view text) {
  Authority authority;
  auto host = text;
  const auto colon = text.rfind(':');
  if (colon != std::string_view::npos && text.find(']', colon) == std::string_view::npos) {
    authority.port = policy::parse_port(text.substr(colon + 1));
    if (!authority.port) return fail(ErrorCode::kInvalid, "the port of " + policy::in_quotes(text) + " is none");
    host = text.substr(0, colon);
  }
  authority.host = SBX_TRY(policy::canonical_host(host), "reading the host of the request");
  return authority;
}

}  // namespace

policy::Decision HttpExchange::judge(const HttpRequestHead& request) {
  judged_ = origin_.target;
  judged_.method = request.method;
  judged_.path = request.path;
  config_ = gateway_.config();
  const auto decide = [&]() -> policy::Decision {
    if (origin_.denial) return *origin_.denial;
    const auto authority = parse_http_authority(request.authority);
    if (!authority) return refuse(authority.error().message);
    const std::uint16_t implied = origin_.tls ? 443 : 80;
    const bool same_port = authority->port.value_or(implied) == origin_.target.port ||
                           (!authority->port && origin_.target.host == "localhost");
    if (authority->host != origin_.target.host || !same_port) {
      if (!policy::parse_address(origin_.target.host) || !same_port) {
        return refuse("the request is for " + policy::in_quotes(request.authority) + ", the connection for " +
                      policy::in_quotes(origin_.target.host) + ":" + std::to_string(origin_.target.port));
      }
      // Connected to by address: the name is a claim of its own, and a rule against it holds.
      auto named = judged_;
      named.host = authority->host;
      auto decision = config_->policy.decide(named);
      if (!decision.allowed && !decision.rule.empty()) return decision;
    }
    return config_->policy.decide(judged_);
  };
  auto decision = decide();
  gateway_.log().add(seen::kForward, judged_, decision);
  return decision;
}

bool HttpExchange::prepare(HttpRequestHead& request) {
  if (!origin_.tls || !config_->credentials.concern(origin_.target.host, origin_.target.port)) return false;
  secrets_ = config_->credentials.apply(origin_.target.host, origin_.target.port, request.path, request.headers);
  if (!secrets_->any()) {
    secrets_.reset();
    return false;
  }
  // What comes back has to be readable, and whole.
  set_header(request.headers, "accept-encoding", "identity");
  remove_header(request.headers, "range");
  remove_header(request.headers, "if-range");
  remove_header(request.headers, "sec-websocket-extensions");
  return !secrets_->request_body.empty();
}

Result<bool> HttpExchange::response_head(int status, HeaderList& headers) {
  if (!secrets_) return false;
  response_fields(headers);
  const auto* coding = find_header(headers, "content-encoding");
  if (coding != nullptr && *coding != "identity") {
    decoder_ = ContentDecoder::make(*coding);
    if (!decoder_) {
      return fail(ErrorCode::kUnavailable, "the server sent an encoded body (" + policy::in_quotes(*coding) +
                                               ") though none was accepted, so it cannot be searched for credentials");
    }
    remove_header(headers, "content-encoding");
  }
  keeps_tokens_ = secrets_->login != nullptr && status / 100 == 2;
  return keeps_tokens_ || decoder_ != nullptr;
}

void HttpExchange::response_fields(HeaderList& headers) {
  if (!changes_response()) return;
  for (auto& [name, value] : headers) value = secrets_->response.apply(value);
}

Result<std::string> HttpExchange::response_piece(std::string_view given) {
  std::string decoded;
  if (decoder_) decoded = SBX_TRY(decoder_->feed(given), "decoding the response");
  const std::string_view piece = decoder_ ? decoded : given;
  if (!keeps_tokens_) return transform(secrets_ ? &secrets_->response : nullptr, piece);
  if (token_response_.size() + piece.size() > kMaxTokenResponse) {
    return fail(ErrorCode::kUnavailable, "the token endpoint's answer is too long");
  }
  token_response_ += piece;
  return std::string();
}

Result<std::string> HttpExchange::response_end() {
  if (decoder_) SBX_CHECK(decoder_->finish(), "decoding the response");
  if (!keeps_tokens_) return secrets_ ? secrets_->response.finish() : std::string();
  auto kept = keep_tokens(*secrets_->login, token_response_);
  wipe(token_response_);
  if (!kept) return std::unexpected(std::move(kept).error());
  if (kept->changed) gateway_.login_changed(*secrets_->login);
  return secrets_->response.apply(kept->shown);
}

std::string denial_body(const policy::Target& target, const policy::Decision& decision) {
  const bool v6 = target.host.find(':') != std::string::npos;
  const auto resource = (v6 ? "[" + target.host + "]" : target.host) + ":" + std::to_string(target.port);
  ordered_json body;
  body["error"]["code"] = "denied";
  body["error"]["message"] = "blocked by the sandbox's network policy: " + decision.reason;
  body["host"] = target.host;
  body["port"] = target.port;
  if (target.method) body["method"] = *target.method;
  if (target.path) body["path"] = target.path->substr(0, target.path->find('?'));
  body["rule"] = decision.rule;
  body["origin"] = decision.origin;
  // An allow rule helps where none denies.
  if (decision.rule.empty()) {
    body["allow"] = "sbx policy allow network " + resource;
  } else {
    body["allow"] = "sbx policy inspect " + decision.rule;
  }
  return body.dump(-1, ' ', true, ordered_json::error_handler_t::replace) + "\n";
}

std::string failure_body(const Error& error) {
  ordered_json body;
  body["error"]["code"] = to_string(error.code);
  body["error"]["message"] = "sbx gateway: " + error.describe();
  return body.dump(-1, ' ', true, ordered_json::error_handler_t::replace) + "\n";
}

int failure_status(const Error& error) {
  if (error.code == ErrorCode::kInvalid) return 400;
  return error.code == ErrorCode::kTimeout ? 504 : 502;
}

}  // namespace sbx::gateway
