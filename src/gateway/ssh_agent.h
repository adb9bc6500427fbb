// The host's SSH agent, as far as a sandbox has the use of it: it may list the keys and have something signed. All else
// (adding, removing, locking, extensions) is answered with SSH_AGENT_FAILURE here and never reaches the agent. Each
// signature is a line of the log of decisions, and is handed over when the daemon has that line: without it there is no
// signature. The key that it was made with stays in the agent.
//
// A gateway cannot connect to anything local: connections to the agent come, one by one, through a socket from its
// supervisor (docs/development/protocols.md, "SSH agent"). One executor.
#pragma once

#include <boost/asio/posix/stream_descriptor.hpp>
#include <chrono>
#include <map>
#include <memory>
#include <string>

#include "base/unique_fd.h"
#include "gateway/decision_log.h"
#include "wire/http2_session.h"
#include "wire/signal.h"

namespace sbx::gateway {

class SshAgent {
 public:
  // `connector` is that socket; invalid: the sandbox was made without an agent. A signature whose line is not recorded
  // within `recorded_within` is refused.
  SshAgent(const boost::asio::any_io_executor& executor, UniqueFd connector, DecisionLog& log,
           std::chrono::milliseconds recorded_within);

  // POST /ssh-agent of the network port: the bytes of one client of the agent in the sandbox.
  Awaitable<void> serve(std::shared_ptr<wire::Http2Stream> stream);

 private:
  using Descriptor = boost::asio::posix::stream_descriptor;

  Awaitable<Result<std::shared_ptr<Descriptor>>> connect();
  Awaitable<Result<UniqueFd>> ask();
  Awaitable<void> relay(std::shared_ptr<wire::Http2Stream> stream, std::shared_ptr<Descriptor> agent);
  Awaitable<Result<std::string>> answer(std::shared_ptr<Descriptor> agent, std::string message);
  std::uint64_t log(const std::string& key, bool allowed, std::string reason);

  boost::asio::any_io_executor executor_;
  Descriptor connector_;
  DecisionLog& log_;
  std::chrono::milliseconds recorded_within_;
  bool asking_ = false;
  wire::Signal asked_;
  std::size_t clients_ = 0;
  std::map<std::string, std::string> comments_;  // of the agent's keys, by fingerprint; as it told last
};

}  // namespace sbx::gateway
