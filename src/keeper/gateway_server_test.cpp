#include "keeper/gateway_server.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "base/file.h"
#include "vm/machine_process.h"

namespace sbx::keeper {
namespace {

bool has(const std::vector<std::string>& argv, const std::string& word) {
  return std::ranges::find(argv, word) != argv.end();
}

TEST(GatewayServer, SeesTheNetworkAndNoFileOfTheUsers) {
  LaunchSpec spec;
  spec.runtime_folder = "/run/sbx/abcd1234";
  spec.workspaces.push_back({0, "/home/user/project", false, false});
  const auto argv = gateway_command(spec, "/opt/sbx-gateway", 5, 6).argv();
  EXPECT_FALSE(has(argv, "--unshare-net"));
  EXPECT_TRUE(has(argv, "--unshare-pid"));
  EXPECT_FALSE(has(argv, "--bind")) << "everything is read-only";
  EXPECT_FALSE(has(argv, "--proc"));
  EXPECT_FALSE(has(argv, "/home/user/project"));
  EXPECT_FALSE(has(argv, "/run/sbx/abcd1234"));
}

TEST(GatewayServer, IsGivenTheSshAgentOnlyWhereItIsForwarded) {
  LaunchSpec spec;
  spec.runtime_folder = "/run/sbx/abcd1234";
  EXPECT_FALSE(has(gateway_command(spec, "/opt/sbx-gateway", 5, 6).argv(), "--agent-fd"));
  EXPECT_TRUE(has(gateway_command(spec, "/opt/sbx-gateway", 5, 6, 7).argv(), "--agent-fd"));
}

// A byte and the descriptor that came with it, or -1.
int receive(int socket) {
  char byte = 0;
  iovec data{&byte, 1};
  alignas(cmsghdr) char room[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = room;
  message.msg_controllen = sizeof room;
  EXPECT_EQ(::recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT), 1);
  const auto* header = CMSG_FIRSTHDR(&message);
  int fd = -1;
  if (header != nullptr) std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return fd;
}

TEST(GatewayServer, GetsConnectionsToTheSshAgentOneByOneForAsLongAsThereIsOne) {
  const auto folder = TemporaryFolder::make("sbx-agent").value();
  auto listener = vm::listen_in(folder.path(), "agent.sock");
  ASSERT_TRUE(listener);
  std::filesystem::create_symlink(folder.path() / "agent.sock", folder.path() / "link");
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
  const UniqueFd ours(ends[0]);
  UniqueFd theirs(ends[1]);
  EXPECT_TRUE(connect_to_agent(ours.get(), folder.path() / "link")) << "nothing was asked";
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(::send(theirs.get(), "c", 1, 0), 1);
    EXPECT_TRUE(connect_to_agent(ours.get(), folder.path() / "link"));
    const UniqueFd connection(receive(theirs.get()));
    const UniqueFd accepted(::accept4(listener->get(), nullptr, nullptr, SOCK_CLOEXEC));
    ASSERT_TRUE(connection.valid() && accepted.valid());
    EXPECT_EQ(::write(connection.get(), "x", 1), 1);
    char byte = 0;
    EXPECT_EQ(::read(accepted.get(), &byte, 1), 1);
  }
  listener->reset();
  ASSERT_EQ(::send(theirs.get(), "c", 1, 0), 1);
  EXPECT_TRUE(connect_to_agent(ours.get(), folder.path() / "link"));
  EXPECT_EQ(receive(theirs.get()), -1) << "nobody listens there any more";
  theirs.reset();
  EXPECT_FALSE(connect_to_agent(ours.get(), folder.path() / "link"));
}

}  // namespace
}  // namespace sbx::keeper
