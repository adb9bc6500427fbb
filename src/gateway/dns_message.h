// DNS messages (RFC 1035), as much of them as a guest may ask: one question in one message of plain labels, and
// answers to it. Pure; queries are the guest's bytes, replies are an upstream resolver's.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace sbx::gateway {

enum class DnsType : std::uint16_t {
  kA = 1,
  kNs = 2,
  kCname = 5,
  kSoa = 6,
  kPtr = 12,
  kMx = 15,
  kTxt = 16,
  kAaaa = 28,
  kSrv = 33,
  kOpt = 41,
  kSvcb = 64,
  kHttps = 65,
  kCaa = 257,
};

enum class DnsCode : std::uint8_t {
  kNoError = 0,
  kFormatError = 1,
  kServerFailure = 2,
  kNameError = 3,
  kNotImplemented = 4,
  kRefused = 5,
};

struct DnsQuestion {
  std::uint16_t id = 0;
  bool recursion_desired = false;
  std::string name;  // lower case, no trailing dot; letters, digits, '-' and '_' in labels of 1 to 63
  DnsType type = DnsType::kA;
  std::string as_asked;   // the question section, to be echoed (its case is a client's nonce)
  bool extended = false;  // the query has an OPT record (RFC 6891)
};

struct DnsRecord {
  DnsType type = DnsType::kA;
  std::uint32_t ttl = 0;
  std::string data;  // RDATA, without compression
};

inline constexpr std::size_t kMaxDnsQuery = 512;
inline constexpr std::size_t kMaxDnsReply = 4096;

// kInvalid: not one standard query of class IN with one question, nothing but an OPT beside it, and a sound name.
Result<DnsQuestion> parse_dns_query(std::string_view message);
// The answer to it; records are about the name that was asked. Those that do not fit are left out, and TC is set.
std::string write_dns_answer(const DnsQuestion& question, DnsCode code, const std::vector<DnsRecord>& records);
// For what could not be parsed: a header alone, with the id that stands there if there is one.
std::string write_dns_error(std::string_view message, DnsCode code);
// The records of `type` in the answer section of a reply, whatever names they are about (CNAMEs have been followed),
// with names in them written out. Malformed ones, and types that are not passed on, are left out.
std::vector<DnsRecord> parse_dns_records(std::string_view reply, DnsType type);

DnsRecord address_record(std::uint32_t ipv4_host_order, std::uint32_t ttl);

}  // namespace sbx::gateway
