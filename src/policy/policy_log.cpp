#include "policy/policy_log.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "store/clock.h"

namespace sbx::policy {

using nlohmann::json;
using store::Row;
using store::Value;

namespace {

constexpr std::int64_t kKeptPerVerdict = 2'000;
constexpr std::int64_t kKeptInAll = 100'000;
constexpr std::size_t kBatch = 256;
constexpr std::ptrdiff_t kMostWaiting = 4096;  // while they cannot be written
constexpr std::int64_t kLongestWaitMs = 1'000;
constexpr std::int64_t kClockSkewMs = 86'400'000;

std::string printable(std::string_view text, std::size_t most) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (out.size() + 4 > most) {
      out += "...";
      break;
    }
    if (byte < 0x20 || byte >= 0x7f || c == '\\') {
      out += "\\x";
      out += kHex[byte >> 4U];
      out += kHex[byte & 0xfU];
    } else {
      out += c;
    }
  }
  return out;
}

std::string text_member(const json& entry, const char* key, std::size_t most) {
  const auto found = entry.find(key);
  return found != entry.end() && found->is_string() ? printable(found->get_ref<const std::string&>(), most) : "";
}

std::string one_of(std::string text, std::initializer_list<std::string_view> known, const char* otherwise) {
  return std::ranges::find(known, text) != known.end() ? text : otherwise;
}

// "START-NUMBER"
std::optional<std::pair<std::int64_t, std::int64_t>> entry_number(const json& entry) {
  const auto found = entry.find("id");
  if (found == entry.end() || !found->is_string()) return std::nullopt;
  const auto& text = found->get_ref<const std::string&>();
  const char* const end = text.data() + text.size();
  std::int64_t start = 0, number = 0;
  const auto first = std::from_chars(text.data(), end, start);
  if (first.ec != std::errc() || first.ptr == end || *first.ptr != '-') return std::nullopt;
  const auto second = std::from_chars(first.ptr + 1, end, number);
  if (second.ec != std::errc() || second.ptr != end || start < 0 || number < 0) return std::nullopt;
  return std::pair(start, number);
}

std::int64_t time_of(const json& entry) {
  const std::int64_t now = store::now_ms();
  const auto at = store::parse_rfc3339(text_member(entry, "at", 40));
  return at && *at > now - kClockSkewMs && *at < now + kClockSkewMs ? *at : now;
}

json entry_from(const Row& row) {
  json entry = {{"sandbox_id", row.text(0)},      {"sandbox", row.text(1)},  {"at", store::rfc3339(row.integer(2))},
                {"allowed", row.integer(3) != 0}, {"kind", row.text(4)},     {"host", row.text(5)},
                {"port", row.integer(6)},         {"protocol", row.text(7)}, {"rule", row.text(10)},
                {"origin", row.text(11)},         {"reason", row.text(12)}};
  if (!row.text(8).empty()) entry["method"] = row.text(8);
  if (!row.text(9).empty()) entry["path"] = row.text(9);
  return entry;
}

}  // namespace

json sanitised_entry(const json& entry) {
  if (!entry.is_object()) return nullptr;
  const auto allowed = entry.find("allowed");
  const std::string host = text_member(entry, "host", 256);
  if (allowed == entry.end() || !allowed->is_boolean() || host.empty()) return nullptr;
  json clean;
  const auto port = entry.find("port");
  const std::int64_t number = port != entry.end() && port->is_number_integer() ? port->get<std::int64_t>() : 0;
  clean["at"] = store::rfc3339(time_of(entry));
  clean["kind"] = one_of(text_member(entry, "kind", 32),
                         {"forward", "forward-bypass", "transparent", "network", "dns", "ssh-agent"}, "network");
  clean["host"] = host;
  clean["port"] = number >= 0 && number <= 65535 ? number : 0;
  clean["protocol"] = one_of(text_member(entry, "protocol", 8), {"tcp", "udp"}, "tcp");
  clean["allowed"] = allowed->get<bool>();
  clean["rule"] = text_member(entry, "rule", 260);
  clean["origin"] = one_of(text_member(entry, "origin", 16), {"local", "default", "kit"}, "");
  clean["reason"] = text_member(entry, "reason", 512);
  if (std::string method = text_member(entry, "method", 24); !method.empty()) clean["method"] = method;
  std::string path = text_member(entry, "path", 1024);
  path.resize(std::min(path.size(), path.find_first_of("?#")));
  if (!path.empty()) clean["path"] = path;
  if (const auto id = entry_number(entry)) clean["id"] = std::to_string(id->first) + "-" + std::to_string(id->second);
  return clean;
}

PolicyLog::~PolicyLog() { (void)flush(); }

bool PolicyLog::is_known(const std::string& sandbox_id, const json& entry) {
  const auto id = entry_number(entry);
  if (!id) return false;
  auto mark = marks_.find(sandbox_id);
  if (mark == marks_.end()) {
    Mark newest;
    (void)database_.run(
        "SELECT source_start, source_number FROM policy_log WHERE sandbox_id = ? ORDER BY seq DESC LIMIT 1",
        {sandbox_id}, [&](const Row& row) {
          newest = {row.integer(0), row.integer(1)};
        });
    mark = marks_.emplace(sandbox_id, newest).first;
  }
  // Another start is another gateway's: which of two was earlier a clock that was set back would not tell.
  if (id->first == mark->second.start && id->second <= mark->second.number) return true;
  mark->second = {id->first, id->second};
  return false;
}

Result<void> PolicyLog::record(const std::string& sandbox_id, const std::string& sandbox_name, const json& given) {
  json entry = sanitised_entry(given);
  if (entry.is_null()) return {};
  const bool at_once = entry.value("kind", std::string()) == "ssh-agent";
  if (is_known(sandbox_id, entry)) return at_once ? flush() : Result<void>();
  entry["sandbox_id"] = sandbox_id;
  entry["sandbox"] = sandbox_name;
  if (waiting_.empty()) waiting_since_ = store::now_ms();
  waiting_.push_back(entry);
  entry.erase("id");
  followers_.notify(entry);
  if (at_once) return flush();
  if (waiting_.size() >= kBatch || store::now_ms() - waiting_since_ > kLongestWaitMs) (void)flush();
  return {};
}

Result<void> PolicyLog::flush() {
  if (waiting_.empty()) return {};
  std::vector<json> entries = std::exchange(waiting_, {});
  const auto write = [&]() -> Result<void> {
    std::vector<std::string> sandboxes;
    for (const auto& entry : entries) {
      const auto id = entry_number(entry).value_or(std::pair<std::int64_t, std::int64_t>());
      const auto text = [&](const char* key) { return entry.value(key, std::string()); };
      SBX_CHECK(database_.run(
                    "INSERT INTO policy_log(sandbox_id, sandbox_name, at, allowed, kind, host, port, protocol, method, "
                    "path, rule, origin, reason, source_start, source_number) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                    {text("sandbox_id"), text("sandbox"), store::parse_rfc3339(text("at")).value_or(store::now_ms()),
                     std::int64_t{entry.value("allowed", false)}, text("kind"), text("host"),
                     entry.value("port", std::int64_t{0}), text("protocol"), text("method"), text("path"), text("rule"),
                     text("origin"), text("reason"), id.first, id.second}),
                "writing the policy log");
      if (std::ranges::find(sandboxes, text("sandbox_id")) == sandboxes.end()) sandboxes.push_back(text("sandbox_id"));
    }
    for (const auto& sandbox : sandboxes) {
      for (const std::int64_t allowed : {0, 1}) {
        SBX_CHECK(
            // Not the SSH agent's signatures: a guest could have them forgotten by asking for enough else.
            database_.run(
                "DELETE FROM policy_log WHERE sandbox_id = ?1 AND allowed = ?2 AND NOT (allowed AND kind = "
                "'ssh-agent') AND seq <= (SELECT seq FROM policy_log WHERE sandbox_id = ?1 AND allowed = ?2 AND NOT "
                "(allowed AND kind = 'ssh-agent') ORDER BY seq DESC LIMIT 1 OFFSET ?3)",
                {sandbox, allowed, kKeptPerVerdict}),
            "trimming the policy log");
      }
    }
    return database_.run(
        "DELETE FROM policy_log WHERE seq <= (SELECT seq FROM policy_log ORDER BY seq DESC LIMIT 1 OFFSET ?)",
        {kKeptInAll});
  };
  auto done = database_.run("BEGIN IMMEDIATE");
  if (done) done = write();
  if (done) done = database_.run("COMMIT");
  if (done) return done;
  (void)database_.run("ROLLBACK");
  if (std::ssize(entries) > kMostWaiting) entries.erase(entries.begin(), entries.end() - kMostWaiting);
  waiting_ = std::move(entries);
  return done;
}

Result<json> PolicyLog::summary(const LogFilter& filter) {
  SBX_CHECK(flush(), "reading the policy log");
  json answer = {{"allowed_hosts", json::array()}, {"blocked_hosts", json::array()}};
  if (!filter.type.empty() && filter.type != "all" && filter.type != "network") return answer;
  for (const std::int64_t allowed : {0, 1}) {
    json& list = answer[allowed != 0 ? "allowed_hosts" : "blocked_hosts"];
    // With max(), SQLite takes the bare columns from the row that has it.
    SBX_CHECK(database_.run(
                  "SELECT sandbox_name, host, port, kind, protocol, rule, origin, reason, max(at), min(at), count(*) "
                  "FROM policy_log WHERE allowed = ?1 AND (?2 = '' OR sandbox_id = ?2) "
                  "GROUP BY sandbox_id, host, port, kind, protocol, rule ORDER BY max(at) DESC, max(seq) DESC LIMIT ?3",
                  {allowed, filter.sandbox_id, filter.limit == 0 ? -1 : static_cast<std::int64_t>(filter.limit)},
                  [&](const Row& row) {
                    list.push_back({{"vm_name", row.text(0)},
                                    {"host", row.text(1)},
                                    {"port", row.integer(2)},
                                    {"proxy_type", row.text(3)},
                                    {"protocol", row.text(4)},
                                    {"rule", row.text(5)},
                                    {"origin", row.text(6)},
                                    {"reason", row.text(7)},
                                    {"last_seen", store::rfc3339(row.integer(8))},
                                    {"since", store::rfc3339(row.integer(9))},
                                    {"count_since", row.integer(10)}});
                  }),
              "reading the policy log");
  }
  return answer;
}

Result<std::vector<json>> PolicyLog::latest(const LogFilter& filter) {
  SBX_CHECK(flush(), "reading the policy log");
  std::vector<json> entries;
  if (!filter.type.empty() && filter.type != "all" && filter.type != "network") return entries;
  SBX_CHECK(
      database_.run("SELECT sandbox_id, sandbox_name, at, allowed, kind, host, port, protocol, method, path, rule, "
                    "origin, reason FROM policy_log WHERE ?1 = '' OR sandbox_id = ?1 ORDER BY seq DESC LIMIT ?2",
                    {filter.sandbox_id, filter.limit == 0 ? -1 : static_cast<std::int64_t>(filter.limit)},
                    [&](const Row& row) { entries.push_back(entry_from(row)); }),
      "reading the policy log");
  std::ranges::reverse(entries);
  return entries;
}

Result<std::optional<std::string>> PolicyLog::id_of_removed(const std::string& sandbox_name) {
  SBX_CHECK(flush(), "reading the policy log");
  std::optional<std::string> id;
  SBX_CHECK(database_.run("SELECT sandbox_id FROM policy_log WHERE sandbox_name = ? ORDER BY seq DESC LIMIT 1",
                          {sandbox_name}, [&](const Row& row) { id = row.text(0); }),
            "reading the policy log");
  return id;
}

}  // namespace sbx::policy
