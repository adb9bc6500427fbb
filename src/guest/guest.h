// Guest: what the parts of PID 1 share. One object for the life of the VM. Thread safety: none; the event loop only.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "guest/activity.h"
#include "guest/agent_relay.h"
#include "guest/cgroups.h"
#include "guest/docker.h"
#include "guest/network.h"
#include "guest/reaper.h"
#include "guest/workspaces.h"

namespace sbx::guest {

class ExecSession;

struct Guest {
  explicit Guest(boost::asio::any_io_executor the_executor)
      : executor(the_executor),
        reaper(the_executor),
        activity(the_executor),
        docker(the_executor, reaper, cgroups),
        workspaces(the_executor, reaper),
        network(the_executor, reaper),
        agent_relay(the_executor, network.gateway()) {}

  boost::asio::any_io_executor executor;
  Cgroups cgroups;
  Reaper reaper;
  Activity activity;
  Docker docker;
  Workspaces workspaces;
  Network network;
  AgentRelay agent_relay;
  std::vector<std::string> environment;  // Identity.environment
  std::map<std::string, std::shared_ptr<ExecSession>> execs;
  long boot_ms = 0;
};

}  // namespace sbx::guest
