#include "base/command.h"

#include <fcntl.h>
#include <gtest/gtest.h>
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

}  // namespace
}  // namespace sbx
