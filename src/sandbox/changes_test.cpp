#include "sandbox/changes.h"

#include <gtest/gtest.h>

#include "base/file.h"

namespace sbx::sandbox {
namespace {

namespace fs = std::filesystem;

TEST(Changes, ReadsEveryKindOfLine) {
  const auto journal = parse_journal(
      "N 0 a%20b\nO 1 5 7 100644 c/d\nO 0 - - - e\nP 0000000002 0000000000009 denied-write 0 .git/config\nN 0 cut");
  ASSERT_EQ(journal.entries.size(), 3U);
  EXPECT_TRUE(journal.complete);
  EXPECT_EQ(journal.entries[0].path, "a b");
  EXPECT_TRUE(journal.entries[0].made);
  EXPECT_EQ(journal.entries[1].before->second, 7U);
  EXPECT_EQ(journal.entries[1].mode, 0100644U);
  EXPECT_FALSE(journal.entries[2].before);
  ASSERT_EQ(journal.reports.size(), 1U);
  EXPECT_TRUE(journal.reports[0].denied);
  EXPECT_EQ(journal.reports[0].count, 2U);
  EXPECT_EQ(journal.reports[0].kind, "write");
}

TEST(Changes, RefusesLinesThatLie) {
  for (const std::string& line : std::initializer_list<std::string>{"N 0 ../x",
                                                                    "N 0 a/../../x",
                                                                    "N 0 /etc/passwd",
                                                                    "N 0 a//b",
                                                                    "N 0 %00",
                                                                    "N 0 %G1",
                                                                    "N 0 %4",
                                                                    "N 5000 x",
                                                                    "N x y",
                                                                    "O 0 1 x",
                                                                    "O 0 -1 2 - x",
                                                                    "O 0 1 2 x",
                                                                    "O 0 1 2 9 x",
                                                                    "O 0 1 2 7777777 x",
                                                                    "P 1 2 shout 0 x",
                                                                    "P 1 2 write x",
                                                                    "Z",
                                                                    "",
                                                                    "X changes",
                                                                    "N 0 a\x80",
                                                                    "N 0 a b",
                                                                    std::string("N 0 a\0b", 7)}) {
    const auto journal = parse_journal(line + "\n");
    EXPECT_TRUE(journal.entries.empty() && journal.reports.empty() && !journal.complete) << line;
  }
}

TEST(Changes, ComparesTheJournalWithWhatIsThere) {
  const auto folder = *TemporaryFolder::make("sbx-changes-test");
  const auto workspace = folder.path() / "ws";
  fs::create_directories(workspace / "new/inner");
  fs::create_directories(folder.path() / "outside");
  ASSERT_TRUE(write_file_atomically(before_file(folder.path()), "old"));
  for (const auto* name : {"back", "mode"}) ASSERT_TRUE(write_file_atomically(workspace / name, "old", 0644));
  ASSERT_TRUE(write_file_atomically(folder.path() / "outside/f", "secret"));
  ASSERT_TRUE(write_file_atomically(workspace / "edited", "12345"));
  ASSERT_TRUE(write_file_atomically(workspace / "new/inner/f", "1"));
  fs::create_symlink(folder.path() / "outside", workspace / "new/link");
  fs::create_symlink(folder.path() / "outside", workspace / "way");
  ASSERT_TRUE(write_file_atomically(
      journal_file(folder.path()),
      "O 0 0 3 100644 edited\nO 0 0 3 100644 removed\nN 0 new\nN 0 came-and-went\nN 0 way/f\nO 9 - - - nowhere\n"
      "O 0 0 3 100644 back\nO 0 0 3 100755 mode\nO 0 - - 40755 gone\n"));
  const auto found = read_changes(folder.path(), {{workspace, false, false}});
  std::string text;
  for (const auto& change : found.changes)
    text += std::to_string(change.kind) + " " + change.entry.path + " " + std::to_string(change.size) + "\n";
  const auto link = std::to_string((folder.path() / "outside").native().size());
  EXPECT_EQ(text, "1 edited 5\n2 gone 0\n1 mode 3\n0 new 0\n0 new/inner 0\n0 new/inner/f 1\n0 new/link " + link +
                      "\n2 removed 3\n");
  EXPECT_TRUE(found.complete);
}

}  // namespace
}  // namespace sbx::sandbox
