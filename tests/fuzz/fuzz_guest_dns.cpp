// What programs in a guest may send to its resolver, and what comes back over the network port.
#include <cstddef>
#include <cstdint>

#include "guest/dns_message.h"

using namespace sbx::guest;

namespace {
void check(bool holds) {
  if (!holds) __builtin_trap();
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view message(reinterpret_cast<const char*>(data), size);
  (void)judge_dns_answer(message);
  const auto malformed = dns_malformed(message);
  check(malformed.empty() || malformed.size() >= 12);
  const auto query = parse_dns_query(message);
  if (!query) return 0;
  // What was understood can be asked on, and is then understood the same.
  check(valid_dns_name(query->name) || query->name.empty());
  const auto again = parse_dns_query(dns_question(query->name, query->type));
  check(again && again->name == query->name && again->type == query->type);
  check(query->largest_answer >= 512 && query->largest_answer <= 4096);
  const auto answer = dns_answer(*query, DnsCode::kNoError, {{kDnsA, 10, std::string(4, '\1')}});
  const auto verdict = judge_dns_answer(answer);
  check(verdict && verdict->code == DnsCode::kNoError && verdict->has_address);
  check(judge_dns_answer(dns_truncated(*query)).has_value());
  (void)address_of_reverse_name(query->name);
  return 0;
}
