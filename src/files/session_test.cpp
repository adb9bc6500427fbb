#include "files/session.h"

#include <sys/socket.h>

#include "files/fuse_client_test_support.h"

namespace sbx::files {
namespace {

TEST(Session, EndsWithoutAnErrorWhenThePeerClosesBeforeItsAnswer) {
  FuseClient client;
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const UniqueFd server(ends[0]);
  UniqueFd peer(ends[1]);
  const auto question = message(FUSE_GETATTR, FUSE_ROOT_ID, bytes_of(fuse_getattr_in{}));
  ASSERT_TRUE(write_all(peer.get(), question + question));
  peer.reset();
  const auto result = serve(server.get(), client.dispatcher());
  EXPECT_TRUE(result) << result.error().describe();
}

}  // namespace
}  // namespace sbx::files
