// Every decision as a line of JSON (LogEntry, docs/development/protocols.md): the last 1,000, and then as they happen.
// What a guest chose (names, methods, paths) is cut and escaped; queries, headers and bodies are never in it.
// One executor.
#pragma once

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

  explicit DecisionLog(const boost::asio::any_io_executor& executor) : added_(executor) {}

  void add(std::string_view kind, const policy::Target& target, const policy::Decision& decision);
  // Lines from number `next` on, which moves behind them; waits for at least one. Lines that have been dropped
  // meanwhile are skipped.
  Awaitable<std::string> read(std::uint64_t& next);
  void wake() { added_.notify(); }

 private:
  std::deque<std::string> lines_;
  std::uint64_t first_ = 0;
  wire::Signal added_;
};

}  // namespace sbx::gateway
