#include "vm/jail.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "base/file.h"

namespace sbx::vm {
namespace {

namespace fs = std::filesystem;

class JailTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::access("/usr/bin/bwrap", X_OK) != 0) GTEST_SKIP() << "needs bwrap";
    fs::create_directory(folder_.path() / "shared");
    ASSERT_TRUE(write_file_atomically(folder_.path() / "shared/file", "hello\n", 0644));
    ::chmod((folder_.path() / "shared").c_str(), 0755);
  }
  // Runs a shell script in a jail; every combination of uid that this user can have.
  Result<std::string> shell(std::string script, std::vector<Bind> binds, bool own_uid) {
    JailSpec spec;
    spec.argv = {"/usr/bin/bash", "-c", std::move(script)};
    spec.binds = std::move(binds);
    if (own_uid) spec.uid = jail_uid_for(folder_.path());
    return jailed(spec).output();
  }
  TemporaryFolder folder_ = TemporaryFolder::make("sbx-jail").value();
};

TEST_F(JailTest, AUidOfItsOwnReachesWhatIsBoundWhateverOurUmaskIs) {
  const mode_t mask = ::umask(077);
  const auto seen = shell("cat /etc/deep/er/file", {{folder_.path() / "shared/file", "/etc/deep/er/file"}}, true);
  ::umask(mask);
  ASSERT_TRUE(seen) << seen.error().describe();
  EXPECT_EQ(*seen, "hello\n");
}

TEST_F(JailTest, SeesOnlyWhatIsBound) {
  for (const bool own_uid : {false, true}) {
    const auto seen = shell("cd /; echo *; cat /w/file", {{folder_.path() / "shared", "/w"}}, own_uid);
    ASSERT_TRUE(seen) << seen.error().describe();
    EXPECT_EQ(seen->find("home"), std::string::npos) << *seen;
    EXPECT_EQ(seen->find("proc"), std::string::npos) << *seen;
    EXPECT_NE(seen->find("hello"), std::string::npos) << *seen;
  }
}

TEST_F(JailTest, AReadOnlyBindCannotBeWritten) {
  const auto written = shell("echo x > /w/file", {{folder_.path() / "shared", "/w"}}, false);
  EXPECT_FALSE(written);
  const auto allowed = shell("echo x > /w/file", {{folder_.path() / "shared", "/w", BindMode::kReadWrite}}, false);
  EXPECT_TRUE(allowed) << allowed.error().describe();
  EXPECT_EQ(read_file(folder_.path() / "shared/file").value(), "x\n");
}

TEST_F(JailTest, HasNoNetworkAndNoEnvironment) {
  ::setenv("SBX_TEST_SECRET", "1", 1);
  for (const bool own_uid : {false, true}) {
    const auto environment = shell("echo \"[$SBX_TEST_SECRET]\"", {}, own_uid);
    ASSERT_TRUE(environment) << environment.error().describe();
    EXPECT_EQ(*environment, "[]\n");
    EXPECT_FALSE(shell("exec 3<>/dev/tcp/127.0.0.1/1", {}, own_uid));
  }
}

TEST_F(JailTest, HasAUidOfItsOwnAndNoCapabilitiesAsRoot) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  const auto uid = shell("echo $UID; chown 0 /tmp 2>/dev/null && echo bad", {}, true);
  EXPECT_FALSE(uid) << "the chown must fail";
  const auto plain = shell("echo $UID", {}, true);
  ASSERT_TRUE(plain);
  EXPECT_EQ(*plain, std::to_string(*jail_uid_for(folder_.path())) + "\n");
}

TEST_F(JailTest, UidsAreStableAndInRange) {
  if (::geteuid() != 0) {
    EXPECT_FALSE(jail_uid_for("/run/sbx/a"));
    GTEST_SKIP() << "needs root";
  }
  EXPECT_EQ(jail_uid_for("/run/sbx/a"), jail_uid_for("/run/sbx/./a"));
  EXPECT_NE(jail_uid_for("/run/sbx/a"), jail_uid_for("/run/sbx/b"));
  EXPECT_GE(*jail_uid_for("/run/sbx/a"), 232768U) << "above those of the slots";
  EXPECT_EQ(jail_uid(0, JailRole::kMachine), 200000U);
  EXPECT_NE(jail_uid(7, JailRole::kMachine), jail_uid(7, JailRole::kGateway));
  EXPECT_LT(*jail_uid(7, JailRole::kGateway), *jail_uid(8, JailRole::kMachine));
  EXPECT_LT(*jail_uid(kJailSlots - 1, JailRole::kGateway), 232768U);
  EXPECT_FALSE(jail_uid(kJailSlots, JailRole::kMachine));
  EXPECT_LT(*jail_uid_for("/run/sbx/a"), 265536U);
}

// Processes that still run (a zombie does not) and have `mark` among their arguments.
std::string running_with(const std::string& mark) {
  std::string found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const auto arguments = read_file(entry.path() / "cmdline", 1U << 16U);
    if (arguments && arguments->find(mark) != std::string::npos) found += entry.path().filename().string() + " ";
  }
  return found;
}

// Whenever the process that starts a jail is killed: before bubblewrap is there, while it sets up, when all runs.
TEST_F(JailTest, NothingOfItOutlivesTheProcessThatStartedIt) {
  for (const bool own_uid : {false, true}) {
    const std::string mark = "jail-test-" + std::to_string(::getpid());
    for (int i = 0; i < 60; ++i) {
      int ready[2];
      ASSERT_EQ(::pipe2(ready, O_CLOEXEC), 0);
      const UniqueFd read_end(ready[0]);
      UniqueFd write_end(ready[1]);
      const pid_t starter = ::fork();
      ASSERT_GE(starter, 0);
      if (starter == 0) {
        // With a second thread and much memory to give back, it hands its children on well before it is dead.
        std::thread([] { ::pause(); }).detach();
        const std::string memory(64U << 20U, 'x');
        write_end.reset();
        JailSpec spec;
        spec.argv = {"/usr/bin/sh", "-c", "while :; do sleep 1000; done", mark};
        if (own_uid) spec.uid = jail_uid_for(folder_.path());
        const auto child = jailed(spec).start();
        for (;;) ::pause();
      }
      write_end.reset();
      char none = 0;
      ASSERT_EQ(::read(read_end.get(), &none, 1), 0);
      ::usleep(static_cast<useconds_t>(i < 40 ? 50 * i : 500 * i));
      ::kill(starter, SIGKILL);
      ASSERT_EQ(::waitpid(starter, nullptr, 0), starter);
    }
    std::string left = "?";
    for (int i = 0; i < 1200 && !left.empty(); ++i) {
      ::usleep(50'000);
      left = running_with(mark);
    }
    EXPECT_EQ(left, "");
  }
}

}  // namespace
}  // namespace sbx::vm
