#include "guest/dns_message.h"

#include <algorithm>
#include <charconv>

namespace sbx::guest {
namespace {

constexpr std::size_t kHeaderSize = 12;
constexpr std::uint16_t kClassIn = 1;
constexpr std::uint16_t kOpt = 41;
constexpr unsigned kResponse = 0x8000;
constexpr unsigned kOpcode = 0x7800;
constexpr unsigned kTruncated = 0x0200;
constexpr unsigned kRecursionDesired = 0x0100;
constexpr unsigned kRecursionAvailable = 0x0080;
constexpr std::size_t kLargestUdp = 4096;

std::uint16_t number_at(std::string_view message, std::size_t at) {
  return static_cast<std::uint16_t>(static_cast<unsigned char>(message[at]) << 8U |
                                    static_cast<unsigned char>(message[at + 1]));
}

void put_number(std::string& message, std::uint32_t value, int bytes) {
  for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8) {
    message += static_cast<char>(value >> static_cast<unsigned>(shift));
  }
}

std::string header(std::uint16_t id, unsigned flags, std::uint16_t questions, std::size_t answers) {
  std::string message;
  put_number(message, id, 2);
  put_number(message, flags, 2);
  put_number(message, questions, 2);
  put_number(message, static_cast<std::uint32_t>(answers), 2);
  put_number(message, 0, 4);  // authority, additional
  return message;
}

unsigned answer_flags(const DnsQuery& query, DnsCode code) {
  return kResponse | kRecursionAvailable | (query.recursion_desired ? kRecursionDesired : 0) |
         static_cast<unsigned>(code);
}

// The name at `at`, which moves behind it. Compression (RFC 1035, 4.1.4) only where `name` is not wanted.
Result<void> skip_name(std::string_view message, std::size_t& at, std::string* name) {
  for (;;) {
    if (at >= message.size()) return fail(ErrorCode::kInvalid, "a DNS name ends in the middle");
    const auto length = static_cast<unsigned char>(message[at]);
    if ((length & 0xc0U) == 0xc0U && name == nullptr) {
      at += 2;
      return at <= message.size() ? Result<void>{} : fail(ErrorCode::kInvalid, "a DNS name ends in the middle");
    }
    if (length > 63) return fail(ErrorCode::kInvalid, "a DNS label is longer than 63 bytes");
    ++at;
    if (length == 0) return {};
    if (at + length > message.size()) return fail(ErrorCode::kInvalid, "a DNS name ends in the middle");
    if (name != nullptr) {
      if (!name->empty()) *name += '.';
      const auto label = message.substr(at, length);
      if (label.find('.') != std::string_view::npos) return fail(ErrorCode::kInvalid, "a dot inside a DNS label");
      *name += label;
    }
    at += length;
  }
}

struct RecordHead {
  std::uint16_t type = 0;
  std::uint16_t class_or_size = 0;
};

Result<RecordHead> skip_record(std::string_view message, std::size_t& at) {
  SBX_CHECK(skip_name(message, at, nullptr), "reading a DNS record");
  if (message.size() - at < 10) return fail(ErrorCode::kInvalid, "a DNS record ends in the middle");
  const RecordHead head{number_at(message, at), number_at(message, at + 2)};
  const std::size_t size = number_at(message, at + 8);
  at += 10;
  if (message.size() - at < size) return fail(ErrorCode::kInvalid, "a DNS record ends in the middle");
  at += size;
  return head;
}

}  // namespace

bool valid_dns_name(std::string_view name) {
  if (name.empty() || name.size() > 253) return false;
  std::size_t label = 0;
  for (const char c : name) {
    if (c == '.') {
      if (label == 0) return false;
      label = 0;
      continue;
    }
    const bool allowed =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
    if (!allowed || ++label > 63) return false;
  }
  return label > 0;
}

std::string dns_wire_name(std::string_view name) {
  if (!valid_dns_name(name)) return {};
  std::string wire;
  while (!name.empty()) {
    const auto label = name.substr(0, name.find('.'));
    wire += static_cast<char>(label.size());
    wire += label;
    name.remove_prefix(std::min(name.size(), label.size() + 1));
  }
  return wire + '\0';
}

Result<DnsQuery> parse_dns_query(std::string_view message) {
  if (message.size() < kHeaderSize) return fail(ErrorCode::kInvalid, "a DNS message is shorter than its header");
  const unsigned flags = number_at(message, 2);
  if ((flags & kResponse) != 0 || (flags & kOpcode) != 0) return fail(ErrorCode::kInvalid, "not a DNS query");
  if (number_at(message, 4) != 1) return fail(ErrorCode::kInvalid, "a DNS query has one question");
  DnsQuery query;
  query.id = number_at(message, 0);
  query.recursion_desired = (flags & kRecursionDesired) != 0;
  std::size_t at = kHeaderSize;
  SBX_CHECK(skip_name(message, at, &query.name), "reading a DNS question");
  if (message.size() - at < 4) return fail(ErrorCode::kInvalid, "a DNS question ends in the middle");
  query.type = number_at(message, at);
  if (number_at(message, at + 2) != kClassIn) return fail(ErrorCode::kInvalid, "a DNS question of another class");
  at += 4;
  query.question = message.substr(kHeaderSize, at - kHeaderSize);
  if (!valid_dns_name(query.name)) return fail(ErrorCode::kInvalid, "a DNS name that no host can have");
  std::ranges::transform(query.name, query.name.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  const int others = number_at(message, 6) + number_at(message, 8) + number_at(message, 10);
  for (int i = 0; i < others && at < message.size(); ++i) {
    const auto record = SBX_TRY(skip_record(message, at), "reading a DNS query");
    if (record.type == kOpt) {
      query.largest_answer = std::clamp<std::size_t>(record.class_or_size, query.largest_answer, kLargestUdp);
    }
  }
  return query;
}

std::string dns_question(std::string_view name, std::uint16_t type) {
  std::string message = header(0, kRecursionDesired, 1, 0) + dns_wire_name(name);
  put_number(message, type, 2);
  put_number(message, kClassIn, 2);
  return message;
}

std::string dns_answer(const DnsQuery& query, DnsCode code, const std::vector<DnsRecord>& records) {
  std::string message = header(query.id, answer_flags(query, code), 1, records.size()) + query.question;
  for (const auto& record : records) {
    put_number(message, 0xc000U | kHeaderSize, 2);  // the question's name
    put_number(message, record.type, 2);
    put_number(message, kClassIn, 2);
    put_number(message, record.ttl, 4);
    put_number(message, static_cast<std::uint32_t>(record.data.size()), 2);
    message += record.data;
  }
  return message;
}

std::string dns_truncated(const DnsQuery& query) {
  return header(query.id, answer_flags(query, DnsCode::kNoError) | kTruncated, 1, 0) + query.question;
}

std::string dns_malformed(std::string_view message) {
  if (message.size() < 4 || (number_at(message, 2) & kResponse) != 0) return {};
  return header(number_at(message, 0), kResponse | static_cast<unsigned>(DnsCode::kMalformed), 0, 0);
}

Result<DnsVerdict> judge_dns_answer(std::string_view message) {
  if (message.size() < kHeaderSize) return fail(ErrorCode::kInvalid, "a DNS message is shorter than its header");
  const unsigned flags = number_at(message, 2);
  if ((flags & kResponse) == 0) return fail(ErrorCode::kInvalid, "not a DNS answer");
  DnsVerdict verdict;
  verdict.code = static_cast<DnsCode>(flags & 0xfU);
  std::size_t at = kHeaderSize;
  for (int i = number_at(message, 4); i > 0; --i) {
    SBX_CHECK(skip_name(message, at, nullptr), "reading a DNS answer");
    if (message.size() - at < 4) return fail(ErrorCode::kInvalid, "a DNS question ends in the middle");
    at += 4;
  }
  for (int i = number_at(message, 6); i > 0; --i) {
    const auto record = SBX_TRY(skip_record(message, at), "reading a DNS answer");
    if (record.type == kDnsA && record.class_or_size == kClassIn) verdict.has_address = true;
  }
  return verdict;
}

Result<std::uint32_t> address_of_reverse_name(std::string_view name) {
  constexpr std::string_view kZone = ".in-addr.arpa";
  const auto not_one = [&] { return fail(ErrorCode::kNotFound, std::string(name) + " is no reverse name"); };
  if (!name.ends_with(kZone)) return not_one();
  name.remove_suffix(kZone.size());
  std::uint32_t address = 0;
  for (unsigned shift = 0; shift < 32; shift += 8) {
    unsigned octet = 256;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), octet);
    if (error != std::errc{} || octet > 255) return not_one();
    name.remove_prefix(static_cast<std::size_t>(end - name.data()));
    address |= octet << shift;
    if (shift == 24) break;
    if (!name.starts_with('.')) return not_one();
    name.remove_prefix(1);
  }
  if (!name.empty()) return not_one();
  return address;
}

}  // namespace sbx::guest
