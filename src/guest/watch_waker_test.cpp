#include "guest/watch_waker.h"

#include <gtest/gtest.h>
#include <sys/sysmacros.h>

namespace sbx::guest {
namespace {

TEST(WatchWaker, FindsWhatIsWatchedOnADevice) {
  std::unordered_set<std::uint64_t> inodes;
  add_watched(
      "pos:\t0\nflags:\t02000000\nmnt_id:\t15\nino:\t1067\n"
      "inotify wd:2 ino:a7a056 sdev:2a mask:800afce ignored_mask:0 fhandle-bytes:8 fhandle-type:1\n"
      "inotify wd:1 ino:10 sdev:800001 mask:800afce ignored_mask:0 fhandle-bytes:8 fhandle-type:1\n"
      "fanotify ino:ff sdev:2a mflags:0 mask:2 ignored_mask:0",
      makedev(0, 0x2a), inodes);
  EXPECT_EQ(inodes, (std::unordered_set<std::uint64_t>{0xa7a056, 0xff}));
  inodes.clear();
  add_watched("inotify wd:1 ino:10 sdev:800001 mask:2\ninotify wd:2 ino: sdev:800001\ninotify", makedev(8, 1), inodes);
  EXPECT_EQ(inodes, std::unordered_set<std::uint64_t>{0x10});
}

}  // namespace
}  // namespace sbx::guest
