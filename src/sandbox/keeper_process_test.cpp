#include "sandbox/keeper_process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_future.hpp>
#include <nlohmann/json.hpp>

#include "base/file.h"

namespace sbx::sandbox {
namespace {

class KeeperProcessTest : public ::testing::Test {
 protected:
  // A "keeper" that does what this script says.
  Result<KeeperProcess> spawn(const std::string& script) {
    const auto program = folder_.path() / "keeper";
    (void)write_file_atomically(program, "#!/bin/bash\n" + script, 0700);
    return spawn_keeper(program, {{"runtime_folder", runtime().native()}}, -1, folder_.path() / "log");
  }
  std::filesystem::path runtime() const { return folder_.path() / "run"; }
  void SetUp() override { std::filesystem::create_directory(runtime()); }
  static Result<void> end(const std::filesystem::path& runtime) {
    boost::asio::io_context loop;
    auto result = boost::asio::co_spawn(loop, end_unrecorded_keeper(runtime), boost::asio::use_future);
    loop.run();
    return result.get();
  }
  TemporaryFolder folder_ = TemporaryFolder::make("sbx-keeper").value();
};

TEST_F(KeeperProcessTest, OneThatNobodyRecordedIsFoundAndEndedHoweverEarlyItIs) {
  const std::string pid_file = (runtime() / "keeper.lock").native();
  for (const std::string delay : {"", "sleep 0.5; "}) {
    std::filesystem::remove(pid_file);
    auto keeper = spawn(delay + "echo -n $$ > " + pid_file + "; while :; do read -t 100 <> <(:); done");
    ASSERT_TRUE(keeper) << keeper.error().describe();
    const auto ended = end(runtime());
    EXPECT_TRUE(ended) << ended.error().describe();
    int status = 0;
    ASSERT_EQ(::waitpid(keeper->pid, &status, 0), keeper->pid);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  }
}

TEST_F(KeeperProcessTest, WhereNoneRunsNobodyIsEnded) {
  EXPECT_TRUE(end(runtime())) << "there never was one";
  auto keeper = spawn("exit 0");
  ASSERT_TRUE(keeper);
  ASSERT_EQ(::waitpid(keeper->pid, nullptr, 0), keeper->pid);
  // Its pid may be anybody's by now: here it is ours.
  ASSERT_TRUE(write_file_atomically(runtime() / "keeper.lock", std::to_string(::getpid())));
  EXPECT_TRUE(end(runtime()));
}

}  // namespace
}  // namespace sbx::sandbox
