// In a folder that looks like the guest's cgroup tree; inotify tells of changes there as it does of the kernel's.
#include "guest/activity.h"

#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <fstream>

#include "base/file.h"

namespace sbx::guest {
namespace {

namespace fs = std::filesystem;

class ActivityTest : public testing::Test {
 protected:
  void put(const std::string& group, bool populated) {
    fs::create_directories(folder_.path() / group);
    // In place, as the kernel does: a watch is on the file, not on its name.
    std::ofstream(folder_.path() / group / "cgroup.events") << "populated " << (populated ? 1 : 0) << "\nfrozen 0\n";
  }

  TemporaryFolder folder_ = TemporaryFolder::make("sbx-activity").value();
  boost::asio::io_context loop_;
  Activity activity_{loop_.get_executor(), folder_.path()};
};

TEST_F(ActivityTest, GuestAndServicesAreNotTheUsers) {
  put("init", true);
  put("services", true);
  put("user", false);
  EXPECT_TRUE(activity_.quiet());
}

TEST_F(ActivityTest, ACommandOrAContainerIsActivity) {
  put("user", true);
  EXPECT_FALSE(activity_.quiet());
  put("user", false);
  EXPECT_TRUE(activity_.quiet());
  put("docker", true);
  EXPECT_FALSE(activity_.quiet());
}

TEST_F(ActivityTest, WaitsUntilTheLastOneHasGone) {
  put("user", true);
  put("docker", true);
  bool returned = false;
  boost::asio::co_spawn(
      loop_,
      [&]() -> Awaitable<void> {
        co_await activity_.wait_until_quiet();
        returned = true;
      },
      boost::asio::detached);
  boost::asio::co_spawn(
      loop_,
      [&]() -> Awaitable<void> {
        put("user", false);
        co_await sleep_for(loop_.get_executor(), std::chrono::milliseconds(20));
        EXPECT_FALSE(returned) << "the container still runs";
        put("docker", false);
      },
      boost::asio::detached);
  loop_.run_for(std::chrono::seconds(60));
  EXPECT_TRUE(returned);
}

}  // namespace
}  // namespace sbx::guest
