// DNS messages (RFC 1035), as much of them as the guest's resolver needs: one question, and answers made from scratch.
// Pure; any thread. What is malformed is refused, never guessed at.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace sbx::guest {

inline constexpr std::uint16_t kDnsA = 1;
inline constexpr std::uint16_t kDnsPtr = 12;
inline constexpr std::uint16_t kDnsAaaa = 28;
inline constexpr std::uint16_t kDnsSvcb = 64;
inline constexpr std::uint16_t kDnsHttps = 65;
inline constexpr std::uint16_t kDnsAny = 255;

enum class DnsCode : std::uint8_t {
  kNoError = 0,
  kMalformed = 1,
  kServerFailure = 2,
  kNoSuchName = 3,
  kNotImplemented = 4,
  kRefused = 5
};

struct DnsQuery {
  std::uint16_t id = 0;
  bool recursion_desired = true;
  std::string name;  // lower case, without the last dot; only what valid_dns_name() allows
  std::uint16_t type = 0;
  std::string question;              // as it came: an answer repeats it (also in its upper and lower case)
  std::size_t largest_answer = 512;  // over UDP: what the client says it takes (EDNS, RFC 6891), at most 4096
};

struct DnsRecord {
  std::uint16_t type = 0;
  std::uint32_t ttl = 0;
  std::string data;
};

// kInvalid: not a query with one question of class IN whose name is made of letters, digits, '-', '_' and dots.
Result<DnsQuery> parse_dns_query(std::string_view message);
// The message to ask somebody else with: id 0, recursion desired.
std::string dns_question(std::string_view name, std::uint16_t type);
// Records are about the question's name.
std::string dns_answer(const DnsQuery& query, DnsCode code, const std::vector<DnsRecord>& records = {});
// "It does not fit, ask over TCP."
std::string dns_truncated(const DnsQuery& query);
// To a message that could not be parsed: FORMERR with its id; empty if it does not even have one, or is no query.
std::string dns_malformed(std::string_view message);

// The name in wire form; empty if it is not valid.
std::string dns_wire_name(std::string_view name);
// Letters, digits, '-', '_' and dots; labels of 1 to 63, at most 253 in all.
bool valid_dns_name(std::string_view name);

struct DnsVerdict {
  DnsCode code = DnsCode::kServerFailure;
  bool has_address = false;  // an A record among the answers
};
// What somebody else's answer says. kInvalid if it is malformed.
Result<DnsVerdict> judge_dns_answer(std::string_view message);

// 192.0.2.1 for "1.2.0.192.in-addr.arpa", in host byte order; kNotFound for any other name.
Result<std::uint32_t> address_of_reverse_name(std::string_view name);

}  // namespace sbx::guest
