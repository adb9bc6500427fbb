// Activity: whether anything of the user's runs: a command, what it has left behind, a container. The kernel knows:
// every process of the user's is in some cgroup other than /init and /services (see cgroups.h). Nobody has to ask
// dockerd. Thread safety: none; the event loop only.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <filesystem>
#include <optional>

#include "guest/async_event.h"

namespace sbx::guest {

class Activity {
 public:
  explicit Activity(boost::asio::any_io_executor executor, std::filesystem::path root = "/sys/fs/cgroup")
      : executor_(std::move(executor)), root_(std::move(root)) {}

  bool quiet() const { return !busy_group(); }
  // Returns when nothing of the user's runs.
  Awaitable<void> wait_until_quiet();

 private:
  std::optional<std::filesystem::path> busy_group() const;
  Awaitable<void> wait_for_change(const std::filesystem::path& group);

  boost::asio::any_io_executor executor_;
  std::filesystem::path root_;
};

}  // namespace sbx::guest
