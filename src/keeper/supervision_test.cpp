#include "keeper/supervision.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "base/file.h"
#include "keeper/worker_spec.h"

namespace sbx::keeper {
namespace {

class Supervision : public ::testing::Test {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    ours_.reset(ends[0]);
    theirs_.reset(ends[1]);
  }
  UniqueFd ours_;
  UniqueFd theirs_;
};

TEST_F(Supervision, AMessageArrivesWithItsDescriptorWhereThatIsAccepted) {
  const auto file = open_file("/dev/null", O_RDONLY).value();
  ASSERT_TRUE(send_message(theirs_.get(), answer(Result<void>{}), file.get()));
  auto received = receive_message(ours_.get(), Descriptors::kAccepted);
  ASSERT_TRUE(received) << received.error().describe();
  EXPECT_TRUE(received->fd.valid());
  EXPECT_TRUE(result_of(received->message));
}

TEST_F(Supervision, AWorkerCannotHandDescriptorsToItsSupervisor) {
  const auto file = open_file("/dev/null", O_RDONLY).value();
  const int next = ::dup(0);
  ::close(next);
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(send_message(theirs_.get(), message(Request::kReady), file.get()));
    auto received = receive_message(ours_.get(), Descriptors::kRefused);
    ASSERT_TRUE(received);
    EXPECT_FALSE(received->fd.valid());
  }
  const int now = ::dup(0);
  ::close(now);
  EXPECT_EQ(now, next) << "descriptors stayed open";
}

TEST_F(Supervision, WhatIsNoMessageIsRefused) {
  for (const std::size_t size : {std::size_t{1}, sizeof(Message) - 1, sizeof(Message) + 1, std::size_t{65536}}) {
    const std::string bytes(size, 'x');
    ASSERT_EQ(::send(theirs_.get(), bytes.data(), size, 0), static_cast<ssize_t>(size));
    const auto received = receive_message(ours_.get(), Descriptors::kRefused);
    ASSERT_FALSE(received);
    EXPECT_EQ(received.error().code, ErrorCode::kInvalid);
  }
  EXPECT_EQ(receive_message(ours_.get(), Descriptors::kRefused).error().code, ErrorCode::kTimeout);
  theirs_.reset();
  EXPECT_EQ(receive_message(ours_.get(), Descriptors::kRefused).error().code, ErrorCode::kUnavailable);
}

TEST_F(Supervision, APeerThatDoesNotReadBlocksNobody) {
  Result<void> sent;
  int count = 0;
  while (sent && count < 100'000) {
    sent = send_message(ours_.get(), message(Event::kProcesses));
    ++count;
  }
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().code, ErrorCode::kUnavailable);
}

TEST(SupervisionText, IsBoundedAndFitToBeShown) {
  Message hostile = message(Request::kFailed, 3, "one\ntwo\x1b[2J");
  EXPECT_EQ(text_of(hostile), "one two [2J");
  std::memset(hostile.text, 'x', sizeof hostile.text);  // no end
  EXPECT_EQ(text_of(hostile).size(), sizeof hostile.text);
  EXPECT_EQ(text_of(message(Request::kFailed, 0, std::string(5000, 'y'))).size(), sizeof hostile.text - 1);
}

TEST(SupervisionText, ErrorsKeepTheirCodeAndOddOnesAreInternal) {
  const auto denied = answer(fail(ErrorCode::kDenied, "no"));
  EXPECT_EQ(result_of(denied).error().code, ErrorCode::kDenied);
  EXPECT_EQ(result_of(denied).error().message, "no");
  for (const int value : {-1, 8, 1000, INT32_MIN}) {
    Message odd = denied;
    odd.value = value;
    EXPECT_EQ(result_of(odd).error().code, ErrorCode::kInternal);
  }
}

TEST(WorkerSpec, SurvivesItsWayToTheWorker) {
  WorkerSpec spec;
  spec.mode = LaunchMode::kResume;
  spec.sandbox_id = "id";
  spec.qemu_major = 10;
  spec.supervisor_pid = 42;
  spec.identity = {{"hostname", "h\xff"}};
  spec.workspaces = {{1, "/w", true, false}};
  const auto fd = write_worker_spec(spec);
  ASSERT_TRUE(fd) << fd.error().describe();
  const auto read = read_worker_spec(fd->get());
  ASSERT_TRUE(read) << read.error().describe();
  EXPECT_EQ(read->mode, LaunchMode::kResume);
  EXPECT_EQ(read->sandbox_id, "id");
  EXPECT_EQ(read->qemu_major, 10);
  EXPECT_EQ(read->supervisor_pid, 42);
  ASSERT_EQ(read->workspaces.size(), 1U);
  EXPECT_TRUE(read->workspaces[0].readonly);
}

}  // namespace
}  // namespace sbx::keeper
