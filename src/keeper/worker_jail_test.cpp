// A hostile program in exactly the worker's jail (tests/attack/worker_probe.cpp).
#include "keeper/worker_jail.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <sstream>

#include "base/file.h"
#include "vm/jail.h"
#include "vm/machine_process.h"

namespace sbx::keeper {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

class WorkerJail : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::access("/usr/bin/bwrap", X_OK) != 0) GTEST_SKIP() << "needs bwrap";
    ::chmod(folder_.path().c_str(), 0755);
    ASSERT_TRUE(write_file_atomically(folder_.path() / "disk.qcow2", "disk", 0644));
    daemon_ = vm::listen_in(folder_.path(), "sbxd.sock").value();
    ASSERT_EQ(::listen(daemon_.get(), 16), 0);
    ::chmod((folder_.path() / "sbxd.sock").c_str(), 0666);
    listen_on_the_network();
    listen_abstractly();
  }

  void listen_on_the_network() {
    network_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    ASSERT_EQ(::bind(network_.get(), reinterpret_cast<const sockaddr*>(&address), size), 0);
    ASSERT_EQ(::listen(network_.get(), 16), 0);
    ASSERT_EQ(::getsockname(network_.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
  }

  void listen_abstractly() {
    abstract_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    name_.copy(address.sun_path + 1, sizeof address.sun_path - 2);
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name_.size());
    ASSERT_EQ(::bind(abstract_.get(), reinterpret_cast<const sockaddr*>(&address), size), 0);
    ASSERT_EQ(::listen(abstract_.get(), 16), 0);
  }

  std::string targets() const {
    std::ostringstream text;
    text << "folder " << folder_.path().string() << "\ndisk " << (folder_.path() / "disk.qcow2").string() << "\nsocket "
         << (folder_.path() / "sbxd.sock").string() << "\nabstract " << name_ << "\nport " << port_ << "\npid "
         << ::getpid() << "\n";
    return text.str();
  }

  // The probe's report; in the jail, or as it would be without one.
  std::string probe(bool jailed) {
    const auto report = open_file(folder_.path() / "report", O_CREAT | O_TRUNC | O_RDWR, 0644).value();
    EXPECT_TRUE(write_file_atomically(folder_.path() / "targets", targets(), 0644));
    const auto told = open_file(folder_.path() / "targets", O_RDONLY).value();
    WorkerFds fds;
    fds.supervisor = report.get();
    fds.spec = told.get();
    // Where the worker has none: sockets of the host's network, as those of published ports are.
    const UniqueFd packets(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const UniqueFd stream(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    fds.qmp = packets.get();
    fds.listener = stream.get();
    Command command = worker_command(SBX_WORKER_PROBE, fds, vm::jail_uid_for(folder_.path()));
    if (!jailed) {
      command = Command({SBX_WORKER_PROBE, std::to_string(report.get()), std::to_string(told.get()),
                         std::to_string(packets.get()), std::to_string(stream.get())});
      for (const int fd : {report.get(), told.get(), packets.get(), stream.get()}) command.keep_fd(fd);
    }
    auto child = command.start().value();
    const auto status = child.wait().value();
    EXPECT_TRUE(status.success()) << status.describe();
    return read_file(folder_.path() / "report").value();
  }

  TemporaryFolder folder_ = TemporaryFolder::make("sbx-worker-jail").value();
  UniqueFd daemon_;
  UniqueFd network_;
  UniqueFd abstract_;
  std::string name_ = "sbx-worker-jail-" + std::to_string(::getpid());
  int port_ = 0;
};

TEST_F(WorkerJail, NothingOfTheHostIsReachableFromIt) {
  const std::string report = probe(true);
  EXPECT_THAT(report, Not(ContainsRegex("locked [^\n]* done")));
  EXPECT_THAT(report, HasSubstr("locked reach the end"));
}

// Two walls: what the jail alone must hold, before the worker has locked itself down.
TEST_F(WorkerJail, HoldsOnItsOwnToo) {
  const std::string report = probe(true);
  for (const char* attack : {"open /etc/passwd", "open another sandbox's folder", "read another sandbox's disk",
                             "make a file beside it", "connect to the daemon's socket", "connect to an abstract socket",
                             "connect to the network", "trace a process of the host", "open a descriptor anew"}) {
    EXPECT_THAT(report, HasSubstr(std::string("jailed ") + attack + " refused"));
  }
}

TEST_F(WorkerJail, TheAttacksWorkWhereThereIsNoJail) {
  const std::string report = probe(false);
  for (const char* attack : {"open /etc/passwd",
                             "open another sandbox's folder",
                             "read another sandbox's disk",
                             "make a file beside it",
                             "connect to the daemon's socket",
                             "connect to an abstract socket",
                             "connect to the network",
                             "open a descriptor anew",
                             "send a packet to an address",
                             "connect by sending",
                             "connect by a message",
                             "connect a socket of the host's",
                             "let others share a port",
                             "open a program",
                             "stat a path",
                             "make a file",
                             "exec",
                             "fork",
                             "be traced",
                             "read memory through the kernel",
                             "make a unix socket",
                             "make an internet socket",
                             "map code",
                             "turn data into code",
                             "make a memory file",
                             "change limits",
                             "name an owner for signals"}) {
    EXPECT_THAT(report, HasSubstr(std::string("jailed ") + attack + " done"));
  }
  // And the worker's own lockdown holds where the jail is missing.
  EXPECT_THAT(report, Not(ContainsRegex("locked [^\n]* done")));
}

}  // namespace
}  // namespace sbx::keeper
