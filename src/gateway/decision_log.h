// Every decision as a line of JSON (LogEntry, docs/development/protocols.md): the last 1,000, and then as they happen.
// What a guest chose (names, methods, paths) is cut and escaped; queries, headers and bodies are never in it.
// One executor.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "gateway/streams.h"
#include "policy/rule_set.h"
#include "wire/signal.h"

namespace sbx::gateway {

// What was seen of a connection when it was decided.
namespace seen {
inline constexpr std::string_view kForward = "forward";               // HTTP that is read
inline constexpr std::string_view kForwardBypass = "forward-bypass";  // asked for through the proxy, passed through
inline constexpr std::string_view kTransparent = "transparent";       // TLS, passed through
inline constexpr std::string_view kNetwork = "network";               // other TCP
inline constexpr std::string_view kDns = "dns";
}  // namespace seen

class DecisionLog {
 public:
  static constexpr std::size_t kKept = 1000;

  explicit DecisionLog(const boost::asio::any_io_executor& executor)
      : executor_(executor), added_(executor), told_changed_(executor) {}

  // The line's number.
  std::uint64_t add(std::string_view kind, const policy::Target& target, const policy::Decision& decision);
  // Lines from number `next` on, which moves behind them; waits for at least one. Lines that have been dropped
  // meanwhile are skipped. Empty: `ended` became true, and wake() was called, before there was any.
  Awaitable<std::string> read(std::uint64_t& next, const bool& ended);
  void wake() { added_.notify(); }
  // The daemon has recorded every line up to the one with this id. kInvalid: there is none.
  Result<void> told(std::string_view id);
  // Waits until the daemon has recorded that line. False: it was dropped before that, or `patience` has passed.
  Awaitable<bool> recorded(std::uint64_t number, std::chrono::milliseconds patience);

 private:
  boost::asio::any_io_executor executor_;
  std::deque<std::string> lines_;
  std::uint64_t first_ = 0;
  std::uint64_t told_ = 0;  // lines below are the daemon's
  std::uint64_t lost_ = 0;  // lines below may have been dropped before the daemon had them
  wire::Signal added_;
  wire::Signal told_changed_;
};

}  // namespace sbx::gateway
