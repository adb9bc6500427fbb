#include "gateway/dns_service.h"

#include "gateway/dns_message.h"

namespace sbx::gateway {

namespace {

constexpr std::uint32_t kExists = 0xc0000201;  // 192.0.2.1, of the documentation range (RFC 5737)
constexpr std::uint32_t kTtl = 10;

policy::Decision decide(const GatewayConfig& config, const std::string& name, bool allowed) {
  policy::Target target;
  target.host = name;
  auto decision = config.policy.decide(target);
  // The log tells of names: some port of it may be what allows it.
  if (allowed && !decision.allowed) {
    decision = {};
    decision.allowed = true;
    decision.reason = "a rule allows some port of it";
  }
  return decision;
}

Awaitable<std::string> answer_address(Gateway& gateway, const DnsQuestion& question, bool allowed) {
  const auto config = gateway.config();
  std::vector<DnsRecord> exists{address_record(kExists, kTtl)};
  // Behind a proxy it is the proxy that knows names.
  const bool elsewhere = config->upstream_proxy && !config->upstream_proxy->bypassed_for(question.name);
  if (!allowed || elsewhere) co_return write_dns_answer(question, DnsCode::kNoError, exists);
  const auto addresses = co_await gateway.resolver().addresses(question.name);
  if (addresses) co_return write_dns_answer(question, DnsCode::kNoError, exists);
  const auto code = addresses.error().code == ErrorCode::kNotFound ? DnsCode::kNameError : DnsCode::kServerFailure;
  co_return write_dns_answer(question, code, {});
}

bool passed_on(DnsType type) {
  switch (type) {
    case DnsType::kMx:
    case DnsType::kNs:
    case DnsType::kTxt:
    case DnsType::kSrv:
    case DnsType::kCaa:
      return true;
    default:
      return false;
  }
}

}  // namespace

Awaitable<std::string> answer_dns(Gateway& gateway, std::string message) {
  const auto question = parse_dns_query(message);
  if (!question) co_return write_dns_error(message, DnsCode::kFormatError);
  const auto config = gateway.config();
  const bool allowed = config->names_host(question->name);
  if (question->type == DnsType::kA) {
    policy::Target target;
    target.host = question->name;
    target.port = 53;
    target.protocol = policy::Protocol::kUdp;
    gateway.log().add(seen::kDns, target, decide(*config, question->name, allowed));
    co_return co_await answer_address(gateway, *question, allowed);
  }
  // Addresses of IPv6 are not handed out; HTTPS and SVCB would bring keys for encrypted ClientHellos.
  if (question->type == DnsType::kAaaa || question->type == DnsType::kHttps || question->type == DnsType::kSvcb) {
    co_return write_dns_answer(*question, DnsCode::kNoError, {});
  }
  if (!allowed || !passed_on(question->type)) co_return write_dns_answer(*question, DnsCode::kRefused, {});
  const auto records = co_await gateway.resolver().records(question->name, question->type);
  if (records) co_return write_dns_answer(*question, DnsCode::kNoError, *records);
  const auto code = records.error().code == ErrorCode::kNotFound ? DnsCode::kNameError : DnsCode::kServerFailure;
  co_return write_dns_answer(*question, code, {});
}

Awaitable<void> serve_dns(Gateway& gateway, std::shared_ptr<wire::Http2Stream> stream) {
  auto query = co_await wire::read_body(*stream, kMaxDnsQuery);
  if (!query) co_return co_await wire::send_error(*stream, query.error());
  const auto answer = co_await answer_dns(gateway, std::move(*query));
  wire::HeaderList headers;
  headers.emplace_back("content-type", "application/dns-message");
  if (!stream->respond(200, std::move(headers), false)) co_return;
  if (!co_await stream->write(answer)) co_return;
  (void)co_await stream->finish();
}

}  // namespace sbx::gateway
