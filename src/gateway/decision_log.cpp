#include "gateway/decision_log.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <ctime>
#include <nlohmann/json.hpp>

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

}  // namespace

void DecisionLog::add(std::string_view kind, const policy::Target& target, const policy::Decision& decision) {
  static const auto kStart =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
  nlohmann::ordered_json entry;
  entry["id"] = std::to_string(kStart) + "-" + std::to_string(first_ + lines_.size() + 1);
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
    ++first_;
  }
  added_.notify();
}

Awaitable<std::string> DecisionLog::read(std::uint64_t& next) {
  while (next >= first_ + lines_.size()) co_await added_.wait();
  next = std::max(next, first_);
  std::string text;
  while (next < first_ + lines_.size()) text += lines_[next++ - first_];
  co_return text;
}

}  // namespace sbx::gateway
