#include "guest/activity.h"

#include <sys/inotify.h>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <fstream>
#include <string>

#include "base/unique_fd.h"

namespace sbx::guest {
namespace {

// The kernel may drop the last change of a group that is removed within its rate limit for notifications (10 ms).
constexpr auto kLookAgain = std::chrono::seconds(30);

bool is_populated(const std::filesystem::path& group) {
  std::ifstream events(group / "cgroup.events");
  std::string word;
  std::string number;
  while (events >> word >> number) {
    if (word == "populated") return number == "1";
  }
  return false;  // the group has gone
}

}  // namespace

std::optional<std::filesystem::path> Activity::busy_group() const {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(root_, ignored)) {
    const auto name = entry.path().filename();
    if (name == "init" || name == "services" || !entry.is_directory(ignored)) continue;
    if (is_populated(entry.path())) return entry.path();
  }
  return std::nullopt;
}

Awaitable<void> Activity::wait_until_quiet() {
  while (const auto group = busy_group()) co_await wait_for_change(*group);
}

// cgroups(7): a change of cgroup.events is a modification for inotify.
Awaitable<void> Activity::wait_for_change(const std::filesystem::path& group) {
  UniqueFd notify(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  const auto file = group / "cgroup.events";
  const bool watched = notify.valid() && ::inotify_add_watch(notify.get(), file.c_str(), IN_MODIFY) >= 0;
  if (!watched) {
    co_await sleep_for(executor_, std::chrono::milliseconds(500));
    co_return;
  }
  if (!is_populated(group)) co_return;  // since before the watch
  boost::asio::posix::stream_descriptor changes(executor_, notify.release());
  boost::asio::steady_timer look_again(executor_, kLookAgain);
  look_again.async_wait([&changes](boost::system::error_code error) {
    if (!error) changes.cancel();
  });
  (void)co_await changes.async_wait(boost::asio::posix::stream_descriptor::wait_read, kNoThrow);
}

}  // namespace sbx::guest
