#include "files/journal.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>

#include "base/file.h"

namespace sbx::files {
namespace {

class JournalTest : public testing::Test {
 protected:
  Journal open(Journal::Limits limits = {}) { return Journal(file("journal"), file("before"), limits); }
  UniqueFd file(const char* name, int flags = O_RDWR | O_CREAT) { return *open_file(folder_.path() / name, flags); }
  std::string text(const char* name = "journal") { return *read_file(folder_.path() / name); }
  std::string with_contents(const char* contents) {
    const auto path = folder_.path() / "file";
    EXPECT_TRUE(write_file_atomically(path, contents, 0600));
    return path;
  }
  TemporaryFolder folder_ = *TemporaryFolder::make("sbx-journal-test");
};

TEST_F(JournalTest, TellsEachPathOnceWithWhatItWas) {
  auto journal = open();
  const auto was = *open_file(with_contents("old"), O_PATH);
  journal.changed(0, "src/a", was.get());
  journal.changed(0, "src/a", was.get());
  journal.changed(1, "src/a", -1);
  journal.made(0, "new");
  journal.made(0, "new");
  EXPECT_EQ(text(), "O 0 0 3 100600 src/a\nO 1 - - - src/a\nN 0 new\n");
  EXPECT_EQ(text("before"), "old");
}

TEST_F(JournalTest, TellsNothingOfWhatLiesInAFolderThatTheGuestMade) {
  auto journal = open();
  journal.made(0, "node_modules");
  journal.made(0, "node_modules/a/b");
  journal.changed(0, "node_modules/x", -1);
  journal.changed(0, "node_modules2", -1);
  EXPECT_EQ(text(), "N 0 node_modules\nO 0 - - - node_modules2\n");
}

TEST_F(JournalTest, TellsOfGitsObjectsAsOne) {
  auto journal = open();
  journal.made(0, ".git/objects/ab");
  journal.made(0, "sub/.git/objects/ab/cd");
  journal.changed(0, ".git/objects/pack/p.idx", -1);
  journal.changed(0, "x.git/objects/a", -1);
  EXPECT_EQ(text(), "O 0 - - - .git/objects\nO 0 - - - sub/.git/objects\nO 0 - - - x.git/objects/a\n");
}

TEST_F(JournalTest, GoesOnWhereItStopped) {
  { open().made(0, "folder"); }
  {
    const auto was = *open_file(with_contents("old"), O_PATH);
    open().changed(0, "a b", was.get());
  }
  { open().protected_change(0, ".envrc", "write"); }
  auto journal = open();
  journal.made(0, "folder/x");
  journal.changed(0, "a b", -1);
  journal.protected_change(0, ".envrc", "write");
  EXPECT_TRUE(text().starts_with("N 0 folder\nO 0 0 3 100600 a%20b\nP 0000000002 ")) << text();
  EXPECT_TRUE(text().ends_with(" write 0 .envrc\n")) << text();
}

TEST_F(JournalTest, ALineThatWasCutOffIsOverwritten) {
  ASSERT_TRUE(write_file_atomically(folder_.path() / "journal", "N 0 a\nO 0 -"));
  open().made(0, "b");
  EXPECT_EQ(text(), "N 0 a\nN 0 b\n");
}

TEST_F(JournalTest, WhatCouldNotBeWrittenIsSaidToBeMissing) {
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, SIG_IGN);
  auto journal = open();
  const rlimit tight{3, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &tight);
  journal.made(0, "a");
  ::setrlimit(RLIMIT_FSIZE, &before);
  journal.made(0, "b");
  EXPECT_EQ(text(), "X lost\nN 0 b\n");
}

TEST_F(JournalTest, NamesCannotForgeLines) {
  open().made(0, "a\nP 1 2\x1b[31m%");
  EXPECT_EQ(text(), "N 0 a%0AP%201%202%1B[31m%25\n");
}

TEST_F(JournalTest, IsBoundedAndSaysSo) {
  Journal::Limits limits;
  limits.paths = 3;
  limits.reports = 2;
  limits.before_each = 4;
  limits.before_all = 6;
  {
    auto journal = open(limits);
    const auto was = *open_file(with_contents("1234"), O_PATH);
    for (const auto* path : {"a", "b", "c", "d", "e"}) journal.changed(0, path, was.get());
    for (const auto* path : {"a", "b", "c", "d"}) journal.protected_change(0, path, "write");
  }
  const auto before = text();
  EXPECT_TRUE(before.starts_with("O 0 0 4 100600 a\nO 0 - - 100600 b\nO 0 - - 100600 c\nX changes\nP ")) << before;
  EXPECT_TRUE(before.ends_with("b\nX reports\n")) << before;
  auto journal = open(limits);
  journal.made(0, "z");
  journal.protected_change(0, "z", "write");
  EXPECT_EQ(text(), before);
}

}  // namespace
}  // namespace sbx::files
