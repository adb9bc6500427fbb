#include "base/command.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "base/file.h"

namespace sbx {
namespace {

TEST(Command, OutputIsTheWholeOfStdout) {
  auto text = Command({"/bin/sh", "-c", "printf 'a b'; echo noise >&2"}).output();
  ASSERT_TRUE(text) << text.error().describe();
  EXPECT_EQ(*text, "a b");
}

TEST(Command, AFailureCarriesStatusAndStderr) {
  auto text = Command({"/bin/sh", "-c", "echo why >&2; exit 3"}).output();
  ASSERT_FALSE(text);
  EXPECT_NE(text.error().message.find("exit status 3"), std::string::npos);
  EXPECT_NE(text.error().message.find("why"), std::string::npos);
}

TEST(Command, AMissingProgramIsNotFoundAtStart) {
  EXPECT_EQ(Command({"/no/such/program"}).start().error().code, ErrorCode::kNotFound);
}

TEST(Command, OnlyKeptDescriptorsReachTheChild) {
  auto kept = open_file("/dev/null", O_RDONLY);
  auto other = open_file("/dev/null", O_RDONLY);
  const std::string script = "test -e /proc/self/fd/" + std::to_string(kept->get()) + " && test ! -e /proc/self/fd/" +
                             std::to_string(other->get());
  auto child = Command({"/bin/sh", "-c", script}).keep_fd(kept->get()).start();
  ASSERT_TRUE(child);
  EXPECT_TRUE(child->wait()->success());
}

TEST(Command, AnUnreleasedChildDiesWithItsOwner) {
  pid_t pid = 0;
  {
    auto child = Command({"/bin/sleep", "1000"}).start();
    ASSERT_TRUE(child);
    pid = child->pid();
    EXPECT_EQ(::kill(pid, 0), 0);
  }
  EXPECT_EQ(::kill(pid, 0), -1);
}

// The grandchild keeps the pipe open for as long as it lives.
TEST(Command, WithAPidNamespaceOfItsOwnAChildTakesAllThatItStartedAlong) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  auto child = Command({"/bin/sh", "-c", "setsid sleep 1000 & echo; wait"})
                   .stdout_to(write_end.get())
                   .own_pid_namespace()
                   .start();
  ASSERT_TRUE(child) << child.error().describe();
  write_end.reset();
  char byte = 0;
  ASSERT_EQ(::read(read_end.get(), &byte, 1), 1);
  child->kill(SIGKILL);
  ASSERT_TRUE(child->wait());
  pollfd ended{read_end.get(), 0, 0};
  EXPECT_EQ(::poll(&ended, 1, 60'000), 1) << "what the child started is still there";
}

}  // namespace
}  // namespace sbx
