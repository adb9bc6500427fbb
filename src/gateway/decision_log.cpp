#include "gateway/decision_log.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <ctime>
#include <nlohmann/json.hpp>

#include "gateway/deadline.h"

namespace sbx::gateway {
namespace {

constexpr std::size_t kMaxPath = 1024;

std::string timestamp() {
  const auto now = std::chrono::system_clock::now();
  const auto seconds = std::chrono::system_clock::to_time_t(now);
  const auto millis = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  std::array<char, 48> text{};
  const auto n = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &parts);
  std::array<char, 8> fraction{};
  std::snprintf(fraction.data(), fraction.size(), ".%03dZ", static_cast<int>(millis));
  return std::string(text.data(), n) + fraction.data();
}

// What tells the lines of this gateway from those of one before it.
const std::string& start() {
  static const std::string kStart = std::to_string(
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count());
  return kStart;
}

}  // namespace

std::uint64_t DecisionLog::add(std::string_view kind, const policy::Target& target, const policy::Decision& decision) {
  const std::uint64_t number = first_ + lines_.size();
  nlohmann::ordered_json entry;
  entry["id"] = start() + "-" + std::to_string(number + 1);
  entry["at"] = timestamp();
  entry["kind"] = kind;
  entry["host"] = target.host.substr(0, 253);
  entry["port"] = target.port;
  entry["protocol"] = target.protocol == policy::Protocol::kUdp ? "udp" : "tcp";
  if (target.method) entry["method"] = target.method->substr(0, 32);
  if (target.path) entry["path"] = target.path->substr(0, std::min(target.path->find('?'), kMaxPath));
  entry["allowed"] = decision.allowed;
  entry["rule"] = decision.rule;
  entry["origin"] = decision.origin;
  entry["reason"] = decision.reason;
  // Escaped to ASCII: a terminal that shows the log sees no control characters but those that JSON spells out.
  lines_.push_back(entry.dump(-1, ' ', true, nlohmann::ordered_json::error_handler_t::replace) + "\n");
  if (lines_.size() > kKept) {
    lines_.pop_front();
    if (first_ >= told_) {
      lost_ = first_ + 1;
      told_changed_.notify();
    }
    ++first_;
  }
  added_.notify();
  return number;
}

Awaitable<std::string> DecisionLog::read(std::uint64_t& next, const bool& ended) {
  while (next >= first_ + lines_.size() && !ended) co_await added_.wait();
  next = std::max(next, first_);
  std::string text;
  while (next < first_ + lines_.size()) text += lines_[next++ - first_];
  co_return text;
}

Result<void> DecisionLog::told(std::string_view id) {
  const auto dash = id.find('-');
  std::uint64_t count = 0;
  const char* const end = id.data() + id.size();
  const bool ours = dash != std::string_view::npos && id.substr(0, dash) == start();
  const auto read = ours ? std::from_chars(id.data() + dash + 1, end, count) : std::from_chars_result{};
  if (!ours || read.ec != std::errc() || read.ptr != end || count > first_ + lines_.size()) {
    return fail(ErrorCode::kInvalid, "no line of this log has that id");
  }
  told_ = std::max(told_, count);
  told_changed_.notify();
  return {};
}

Awaitable<bool> DecisionLog::recorded(std::uint64_t number, std::chrono::milliseconds patience) {
  bool late = false;
  const Deadline deadline(executor_, patience, [&] {
    late = true;
    told_changed_.notify();
  });
  while (!late && number >= told_ && number >= lost_) co_await told_changed_.wait();
  co_return number < told_&& number >= lost_;
}

}  // namespace sbx::gateway
