// `sbx cp` with a real guest: docker's rules for folders, streams of any size, and a guest whose tar lies.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <map>

#include "archive/tar_test_support.h"
#include "instance.h"
#include "processes.h"

namespace sbx::test {
namespace {

namespace fs = std::filesystem;
using archive::Member;
using archive::tar_of;
using ::testing::HasSubstr;

class Copy : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { sandbox = std::make_unique<Sandbox>(); }
  static void TearDownTestSuite() { sandbox.reset(); }

  std::string guest(const std::string& path) const { return sandbox->name() + ":" + path; }
  fs::path host(const std::string& path) const { return folder_.path() / path; }
  void write(const std::string& path, const std::string& text, unsigned mode = 0644) const {
    ASSERT_TRUE(make_folders(host(path).parent_path(), 0755));
    ASSERT_TRUE(write_file_atomically(host(path), text, mode));
  }
  std::string content(const std::string& path) const { return read_file(host(path)).value_or("missing"); }
  static void expect_ok(const Outcome& outcome) { EXPECT_EQ(outcome.status, 0) << outcome.out << outcome.err; }

  static std::unique_ptr<Sandbox> sandbox;
  TemporaryFolder folder_ = TemporaryFolder::make("sbx-copy").value();
};
std::unique_ptr<Sandbox> Copy::sandbox;

TEST_F(Copy, FoldersFollowDockersRulesBothWays) {
  write("tree/sub/run.sh", "script", 0751);
  write("tree/odd\xff name", "odd");
  fs::create_symlink("sub/run.sh", host("tree/link"));
  expect_ok(sbx({"cp", host("tree"), guest("/opt/new")}));         // does not exist: is the source
  expect_ok(sbx({"cp", host("tree"), guest("/opt/new")}));         // exists: takes it in
  expect_ok(sbx({"cp", host("tree/."), guest("/opt/new/sub/")}));  // its contents
  EXPECT_EQ(sandbox
                ->root("cd /opt/new && ls -A . tree && stat -c '%a %U' sub/run.sh && readlink link && "
                       "cat sub/sub/run.sh odd*")
                .out,
            ".:\nlink\nodd\xff name\nsub\ntree\n\ntree:\nlink\nodd\xff name\nsub\n751 root\nsub/run.sh\nscriptodd");

  expect_ok(sbx({"cp", guest("/opt/new/tree"), host("out")}));
  EXPECT_EQ(content("out/sub/run.sh") + content("out/odd\xff name"), "scriptodd");
  EXPECT_EQ(fs::status(host("out/sub/run.sh")).permissions(), static_cast<fs::perms>(0751));
  EXPECT_EQ(fs::read_symlink(host("out/link")), "sub/run.sh");
  expect_ok(sbx({"cp", guest("/opt/new/tree"), host("out")}));
  EXPECT_EQ(content("out/tree/sub/run.sh"), "script");
  fs::create_directory(host("flat"));
  expect_ok(sbx({"cp", guest("/opt/new/tree/sub/."), host("flat")}));
  EXPECT_EQ(content("flat/run.sh"), "script");
  // A link itself, and what it points to.
  expect_ok(sbx({"cp", guest("/opt/new/link"), host("link")}));
  EXPECT_TRUE(fs::is_symlink(host("link")));
  expect_ok(sbx({"cp", "-L", guest("/opt/new/link"), host("followed")}));
  EXPECT_EQ(content("followed"), "script");
  // Into a folder that the sandbox sees as its workspace.
  expect_ok(sbx({"cp", host("tree"), guest(sandbox->workspace())}));
  EXPECT_EQ(read_file(sandbox->workspace() / "tree/sub/run.sh").value_or("missing"), "script");
}

TEST_F(Copy, WhatCannotBeDoneIsSaid) {
  write("file", "text");
  write("tree/file", "text");
  expect_ok(sbx({"cp", host("file"), guest("/opt/plain")}));
  const auto fails = [&](const std::string& from, const std::string& to, const std::string& why) {
    const auto outcome = sbx({"cp", from, to});
    EXPECT_EQ(outcome.status, 1) << from << " " << to;
    EXPECT_THAT(outcome.err, HasSubstr(why));
  };
  fails(host("tree"), guest("/opt/plain"), "cannot copy a folder over /opt/plain");
  fails(host("file"), guest("/opt/missing/"), "/opt/missing does not exist");
  fails(host("file"), guest("/opt/no/where"), "the folder /opt/no does not exist");
  fails(guest("/opt/nothing"), host("x"), "No such file");
  fails(guest("/opt"), host("file"), "cannot overwrite file with a folder");
  fails(guest("/opt/plain"), host("missing/"), "missing does not exist");
  fails(guest("/opt/plain"), host("no/where"), "does not exist; make it first");
  EXPECT_FALSE(fs::exists(host("x")));
  EXPECT_EQ(content("file"), "text");
}

TEST_F(Copy, ADashIsATarStream) {
  const std::string bytes = tar_of({{"from-stream", AE_IFREG, "streamed"}});
  expect_ok(sbx({"cp", "-", guest("/opt")}, bytes));
  EXPECT_EQ(sandbox->shell("cat /opt/from-stream").out, "streamed");
  const auto out = sbx({"cp", guest("/opt/from-stream"), "-"});
  expect_ok(out);
  write("out.tar", out.out);
  EXPECT_EQ(run(Command({"tar", "-xOf", host("out.tar"), "from-stream"})).out, "streamed");
}

// The whole way has a fixed amount of memory, whatever the size.
TEST_F(Copy, LargeFilesStream) {
  const long size = (full() ? 1024L : 64L) << 20U;
  {
    std::ofstream file(host("large"), std::ios::binary);
    std::string piece(1U << 20U, '\0');
    for (std::size_t i = 0; i < piece.size(); ++i) piece[i] = static_cast<char>((i * 2654435761U) >> 13U);
    for (long at = 0; at < size; at += static_cast<long>(piece.size())) {
      piece[0] = static_cast<char>(at >> 20U);
      file.write(piece.data(), static_cast<std::streamsize>(piece.size()));
    }
  }
  run(Command({"truncate", "-s", "8G", host("sparse")}));

  std::map<pid_t, long> before = {{daemon_pid(), 0}};
  for (const auto& process : sandbox_processes()) {
    if (process.name.starts_with("sbx-")) before[process.pid] = 0;  // not QEMU, which has the guest's page cache
  }
  ASSERT_GE(before.size(), 4U);
  for (auto& [pid, kib] : before) kib = memory_kib(pid, "RssAnon");
  expect_ok(sbx({"cp", host("large"), guest("/home/agent/large")}));
  expect_ok(sbx({"cp", guest("/home/agent/large"), host("back")}));
  for (const auto& [pid, kib] : before) EXPECT_LT(memory_kib(pid, "RssAnon"), kib + 16 * 1024) << pid;
  rusage usage{};
  ::getrusage(RUSAGE_CHILDREN, &usage);
  EXPECT_LT(usage.ru_maxrss, 40 * 1024) << "the largest sbx of this test program";
  EXPECT_EQ(run(Command({"cmp", host("large"), host("back")})).status, 0);

  expect_ok(sbx({"cp", host("sparse"), guest("/home/agent/sparse")}));
  EXPECT_EQ(sandbox->shell("stat -c %s ~/sparse; test $(stat -c %b ~/sparse) -lt 100 && echo sparse").out,
            "8589934592\nsparse\n");
  expect_ok(sbx({"cp", guest("/home/agent/sparse"), host("sparse-back")}));
  struct stat status {};
  ASSERT_EQ(::stat(host("sparse-back").c_str(), &status), 0);
  EXPECT_EQ(status.st_size, 8589934592);
  EXPECT_LT(status.st_blocks, 100);
  sandbox->root("rm -f /home/agent/large /home/agent/sparse");
}

// Root in the sandbox has a tar of its own: whatever it sends, nothing outside the destination is touched.
TEST_F(Copy, AnArchiveThatEscapesIsRefused) {
  const fs::path evil = sandbox->workspace() / "evil.tar";
  expect_ok(sandbox->root("printf '#!/bin/sh\\nexec cat " + evil.string() +
                          "\\n' > /opt/tar && chmod 755 /opt/tar && "
                          "mount --bind /opt/tar $(command -v tar)"));
  fs::create_directory(host("target"));
  write("outside", "mine");
  write("target/mine", "mine");
  const auto refused = [&](const std::vector<Member>& members, const std::string& why) {
    ASSERT_TRUE(write_file_atomically(evil, tar_of(members), 0644));
    for (const char* source : {"/opt/tree", "/opt/tree/."}) {
      const auto outcome = sbx({"cp", guest(source), host("target")});
      EXPECT_EQ(outcome.status, 1) << why;
      EXPECT_THAT(outcome.err, HasSubstr(why));
      EXPECT_THAT(outcome.err, HasSubstr("refused"));
      EXPECT_EQ(outcome.err.find('\x1b'), std::string::npos);
    }
    EXPECT_EQ(content("outside") + content("target/mine"), "minemine");
    EXPECT_EQ(fs::hard_link_count(host("outside")) + fs::hard_link_count(host("target/mine")), 2U);
    EXPECT_FALSE(fs::exists(host("evil")));
  };
  refused({{(host("evil")).native()}}, "absolute path");
  refused({{"tree/../../evil"}}, "..");
  refused({{"tree", AE_IFDIR}, {"tree/l", AE_IFLNK, host("").native()}, {"tree/l/evil"}}, "symbolic link");
  refused({{"tree/x", AE_IFREG, "", host("outside").native()}}, "absolute path");
  refused({{"tree/x", AE_IFREG, "", "tree/mine"}}, "hard link");
  refused({{"tree/null", AE_IFCHR}}, "device node");
  refused({{"tree", AE_IFDIR}, {"\x1b[2Jother"}}, "\\x1b[2Jother is outside");
  // Nonsense, endless output and silence end with an error too.
  ASSERT_TRUE(write_file_atomically(evil, std::string(100'000, '\x1b'), 0644));
  EXPECT_EQ(sbx({"cp", guest("/opt/tree"), host("target")}).status, 1);
  ASSERT_TRUE(write_file_atomically(evil, "", 0644));
  EXPECT_EQ(sbx({"cp", guest("/opt/tree"), host("target")}).status, 1);
  sandbox->root("printf '#!/bin/sh\\nexec cat /dev/zero\\n' > /opt/tar");
  EXPECT_EQ(sbx({"cp", guest("/opt/tree"), host("target")}).status, 1);
  EXPECT_EQ(content("outside"), "mine");
  sandbox->root("umount $(command -v tar)");
}

}  // namespace
}  // namespace sbx::test
