#include "gateway/dns_message.h"

#include <algorithm>
#include <optional>

namespace sbx::gateway {
namespace {

constexpr std::size_t kHeader = 12;
constexpr std::size_t kMaxName = 253;
constexpr std::uint16_t kClassIn = 1;
constexpr std::size_t kMaxRecords = 64;

std::unexpected<Error> bad(std::string_view what) { return fail(ErrorCode::kInvalid, "DNS: " + std::string(what)); }

std::uint16_t number16(std::string_view bytes, std::size_t at) {
  return static_cast<std::uint16_t>(static_cast<std::uint8_t>(bytes[at]) << 8U |
                                    static_cast<std::uint8_t>(bytes[at + 1]));
}
std::uint32_t number32(std::string_view bytes, std::size_t at) {
  return std::uint32_t{number16(bytes, at)} << 16U | number16(bytes, at + 2);
}
void append16(std::string& out, std::uint16_t value) {
  out.push_back(static_cast<char>(value >> 8U));
  out.push_back(static_cast<char>(value));
}
void append32(std::string& out, std::uint32_t value) {
  append16(out, static_cast<std::uint16_t>(value >> 16U));
  append16(out, static_cast<std::uint16_t>(value));
}

bool is_name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

// The labels of a question at `at`, which moves behind them. No compression: a question has nothing to point back at.
Result<std::string> take_question_name(std::string_view message, std::size_t& at) {
  std::string name;
  for (;;) {
    if (at >= message.size()) return bad("a name without an end");
    const std::size_t size = static_cast<std::uint8_t>(message[at++]);
    if (size == 0) break;
    if (size > 63) return bad("a compressed or malformed label in the question");
    if (at + size > message.size()) return bad("a label beyond the message");
    const auto label = message.substr(at, size);
    at += size;
    if (!std::ranges::all_of(label, is_name_char)) return bad("a name with bytes that no host name has");
    if (!name.empty()) name.push_back('.');
    name += label;
    if (name.size() > kMaxName) return bad("a name longer than 253 bytes");
  }
  if (name.empty()) return bad("the root has no address");
  std::ranges::transform(name, name.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c; });
  return name;
}

// Skips a name of a reply; copies it uncompressed to `out` unless null. Pointers must lead backwards.
bool read_reply_name(std::string_view message, std::size_t& at, std::string* out) {
  std::size_t cursor = at;
  std::size_t limit = message.size();
  bool jumped = false;
  std::size_t total = 0;
  for (;;) {
    if (cursor >= limit) return false;
    const std::size_t size = static_cast<std::uint8_t>(message[cursor]);
    if (size >= 0xc0) {
      if (cursor + 1 >= message.size()) return false;
      const std::size_t target = (size & 0x3fU) << 8U | static_cast<std::uint8_t>(message[cursor + 1]);
      if (!jumped) at = cursor + 2;
      if (target >= cursor) return false;
      limit = cursor;  // strictly backwards, so that it ends
      cursor = target;
      jumped = true;
      continue;
    }
    if (size > 63 || cursor + 1 + size > message.size()) return false;
    total += size + 1;
    if (total > 255) return false;
    if (out != nullptr) out->append(message.substr(cursor, size + 1));
    cursor += size + 1;
    if (size == 0) break;
  }
  if (!jumped) at = cursor;
  return true;
}

// RDATA of the types that are passed on, with its name (if it has one) written out.
std::optional<std::string> rewrite_data(std::string_view message, DnsType type, std::size_t at, std::size_t size) {
  const std::size_t end = at + size;
  std::string out;
  const auto with_name = [&](std::size_t prefix) -> std::optional<std::string> {
    if (size < prefix + 1) return std::nullopt;
    out.append(message.substr(at, prefix));
    std::size_t cursor = at + prefix;
    if (!read_reply_name(message, cursor, &out) || cursor != end) return std::nullopt;
    return out;
  };
  switch (type) {
    case DnsType::kTxt:
      for (std::size_t cursor = at; cursor < end;) {
        cursor += 1 + static_cast<std::uint8_t>(message[cursor]);
        if (cursor > end) return std::nullopt;
      }
      return std::string(message.substr(at, size));
    case DnsType::kCaa:
      return std::string(message.substr(at, size));
    case DnsType::kNs:
    case DnsType::kPtr:
      return with_name(0);
    case DnsType::kMx:
      return with_name(2);
    case DnsType::kSrv:
      return with_name(6);
    default:
      return std::nullopt;
  }
}

}  // namespace

Result<DnsQuestion> parse_dns_query(std::string_view message) {
  if (message.size() < kHeader || message.size() > kMaxDnsQuery) return bad("a message of an odd size");
  const auto flags = number16(message, 2);
  if ((flags & 0xf800U) != 0) return bad("not a standard query");
  if (number16(message, 4) != 1 || number16(message, 6) != 0 || number16(message, 8) != 0) {
    return bad("other than one question");
  }
  const auto additional = number16(message, 10);
  DnsQuestion question;
  question.id = number16(message, 0);
  question.recursion_desired = (flags & 0x0100U) != 0;
  std::size_t at = kHeader;
  question.name = SBX_TRY(take_question_name(message, at), "reading the question");
  if (at + 4 > message.size()) return bad("a question without an end");
  question.type = static_cast<DnsType>(number16(message, at));
  if (number16(message, at + 2) != kClassIn) return bad("a class other than IN");
  at += 4;
  question.as_asked = message.substr(kHeader, at - kHeader);
  if (additional > 1) return bad("more than an OPT beside the question");
  if (additional == 1) {
    // The root, type, size, flags, and options (cookies, padding, client subnets), which stay here.
    if (at + 11 > message.size() || message[at] != 0 || number16(message, at + 1) != std::uint16_t(DnsType::kOpt)) {
      return bad("something else than an OPT beside the question");
    }
    const std::size_t options = number16(message, at + 9);
    at += 11 + options;
    question.extended = true;
  }
  if (at != message.size()) return bad("bytes after the message");
  return question;
}

std::string write_dns_answer(const DnsQuestion& question, DnsCode code, const std::vector<DnsRecord>& records) {
  const std::size_t limit = question.extended ? kMaxDnsReply : kMaxDnsQuery;
  std::string answers;
  std::uint16_t count = 0;
  bool truncated = false;
  for (const auto& record : records) {
    std::string bytes;
    append16(bytes, 0xc000U | kHeader);  // the name that was asked
    append16(bytes, static_cast<std::uint16_t>(record.type));
    append16(bytes, kClassIn);
    append32(bytes, record.ttl);
    append16(bytes, static_cast<std::uint16_t>(record.data.size()));
    bytes += record.data;
    if (kHeader + question.as_asked.size() + answers.size() + bytes.size() + 11 > limit) {
      truncated = true;
      break;
    }
    answers += bytes;
    ++count;
  }
  std::string out;
  append16(out, question.id);
  append16(out, 0x8080U | (question.recursion_desired ? 0x0100U : 0U) | (truncated ? 0x0200U : 0U) |
                    static_cast<std::uint16_t>(code));
  append16(out, 1);
  append16(out, count);
  append16(out, 0);
  append16(out, question.extended ? 1 : 0);
  out += question.as_asked;
  out += answers;
  if (question.extended) {
    out.push_back('\0');
    append16(out, static_cast<std::uint16_t>(DnsType::kOpt));
    append16(out, kMaxDnsReply);
    append32(out, 0);
    append16(out, 0);
  }
  return out;
}

std::string write_dns_error(std::string_view message, DnsCode code) {
  std::string out;
  append16(out, message.size() >= 2 ? number16(message, 0) : 0);
  append16(out, 0x8080U | static_cast<std::uint16_t>(code));
  out.append(8, '\0');
  return out;
}

std::vector<DnsRecord> parse_dns_records(std::string_view reply, DnsType type) {
  std::vector<DnsRecord> records;
  if (reply.size() < kHeader) return records;
  const auto questions = number16(reply, 4);
  const auto answers = number16(reply, 6);
  std::size_t at = kHeader;
  for (unsigned i = 0; i < questions; ++i) {
    if (!read_reply_name(reply, at, nullptr) || at + 4 > reply.size()) return records;
    at += 4;
  }
  for (unsigned i = 0; i < answers && records.size() < kMaxRecords; ++i) {
    if (!read_reply_name(reply, at, nullptr) || at + 10 > reply.size()) return records;
    const auto found = static_cast<DnsType>(number16(reply, at));
    const auto ttl = number32(reply, at + 4);
    const std::size_t size = number16(reply, at + 8);
    at += 10;
    if (at + size > reply.size()) return records;
    if (found == type && number16(reply, at - 8) == kClassIn) {
      if (auto data = rewrite_data(reply, type, at, size)) records.push_back({type, ttl, std::move(*data)});
    }
    at += size;
  }
  return records;
}

DnsRecord address_record(std::uint32_t ipv4_host_order, std::uint32_t ttl) {
  DnsRecord record;
  record.ttl = ttl;
  append32(record.data, ipv4_host_order);
  return record;
}

}  // namespace sbx::gateway
