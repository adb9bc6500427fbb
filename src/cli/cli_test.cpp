#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdio>

#include "base/file.h"
#include "cli/copy_placement.h"
#include "cli/pkt_lines.h"
#include "cli/table.h"
#include "cli/units.h"
#include "cli/workspace_argument.h"

namespace sbx::cli {
namespace {

using Words = std::vector<std::string>;

TEST(Memory, ReadsBinaryUnits) {
  EXPECT_EQ(*parse_memory("512m"), 512);
  EXPECT_EQ(*parse_memory("8g"), 8192);
  EXPECT_EQ(*parse_memory("2GiB"), 2048);
  EXPECT_EQ(*parse_memory("1073741824"), 1024);
  for (const char* bad : {"", "g", "-1g", "1x", "1.5g", "99999999999999999999"}) EXPECT_FALSE(parse_memory(bad)) << bad;
}

std::string packet(const std::string& body) {
  char length[5];
  std::snprintf(length, sizeof length, "%04zx", body.size() + 4);
  return length + body;
}

TEST(PktLines, PassPackDataOnAndMaskWhatATerminalWouldObey) {
  using namespace std::string_literals;
  const std::string pack = packet("\x01PACK\0\0\0\2"s + std::string(60000, '\x1b')) + packet("\x01\x9b") +
                           packet("\x01" + std::string(30000, '\x1b'));
  const std::string sent = packet("0123 refs/heads/main\0side-band-64k\n"s) + "0000" + "0001" +
                           packet(
                               "\x02"
                               "Count\x1b[2J 10%\r") +
                           pack + packet("\x03no\x9b\xc2\x9b\n") + packet("") + packet("ERR \x1b]0;owned\x07") +
                           packet("\x02") + "0002";
  const std::string meant = packet("0123 refs/heads/main\0side-band-64k\n"s) + "0000" + "0001" +
                            packet(
                                "\x02"
                                "Count?[2J 10%\r") +
                            pack + packet("\x03no???\n") + packet("") + packet("ERR ?]0;owned?") + packet("\x02") +
                            "0002";
  for (const std::size_t piece : {std::size_t{1}, std::size_t{3}, std::size_t{5}, std::size_t{4096}, sent.size()}) {
    PktLines lines;
    std::string passed;
    for (std::size_t at = 0; at < sent.size(); at += piece) passed += lines.feed(sent.substr(at, piece)).value();
    EXPECT_TRUE(passed == meant) << "in pieces of " << piece;
  }
}

// What git did not expect it quotes, up to the first NUL, and leaves control characters beyond ASCII in.
TEST(PktLines, TakeNothingForPackDataThatNoPackBeganBefore) {
  using namespace std::string_literals;
  const std::string text = packet(
      "\x01\xc2\x9b"
      "31mowned\x1b]0;\x9b");
  const std::string masked = packet("\x01??31mowned?]0;?");
  const std::string pack = packet("\x01PACK\0\0\0\2\x9b"s);
  const std::string keep_alive = packet("\x01");
  for (const auto& [sent, meant] : {
           std::pair{text, masked},
           {keep_alive + text, keep_alive + masked},
           {packet("\x01packfile\n") + text, packet("\x01packfile\n") + masked},
           {packet("\x01PACK\xc2\x9b"
                   "31m"),
            packet("\x01PACK??31m")},
           // Among the capabilities of protocol 2 git takes any packet; a flush packet ends them.
           {pack + text + "0000" + text + "0001" + text, pack + text + "0000" + masked + "0001" + masked},
           {pack + "0000" + pack + text, pack + "0000" + pack + text},
       }) {
    for (const std::size_t piece : {std::size_t{1}, std::size_t{7}, sent.size()}) {
      PktLines lines;
      std::string passed;
      for (std::size_t at = 0; at < sent.size(); at += piece) passed += lines.feed(sent.substr(at, piece)).value();
      EXPECT_EQ(passed, meant) << "in pieces of " << piece;
    }
  }
}

TEST(PktLines, RefuseWhatIsNoPacket) {
  for (const char* bad : {"PACK", "0003", "fff1", "-001", "00 5", "\x1b]0;", "0x10"}) {
    PktLines lines;
    EXPECT_FALSE(lines.feed("0000" + std::string(bad))) << bad;
  }
}

TEST(Visible, LeavesNothingThatATerminalWouldObey) {
  EXPECT_EQ(visible("plain \u201cquoted\u201d \u00fc"), "plain \u201cquoted\u201d \u00fc");
  EXPECT_EQ(visible("a\x1b[31m\r\n\x7f"), "a\\x1b[31m\\x0d\\x0a\\x7f");
  EXPECT_EQ(visible("a\n\tb", "\n\t"), "a\n\tb");
  EXPECT_EQ(visible("\xc2\x9b"
                    "0m"),
            "\\xc2\\x9b0m");
  EXPECT_EQ(visible("\x9b\xff\xe2\x80"), "\\x9b\\xff\\xe2\\x80");
  EXPECT_EQ(visible("a\u202eb\u2066"), "a\\xe2\\x80\\xaeb\\xe2\\x81\\xa6");
}

TEST(SplitCommand, LeavesTheCommandVerbatim) {
  const auto [ours, theirs] = split_command({"sbx", "exec", "-it", "-u", "root", "box", "ls", "-l", "", "--", "-u"});
  EXPECT_EQ(ours, (Words{"sbx", "exec", "-it", "-u", "root", "box"}));
  EXPECT_EQ(theirs, (Words{"ls", "-l", "", "--", "-u"}));
}

TEST(SplitCommand, AcceptsADoubleDashBeforeTheCommand) {
  const auto [ours, theirs] = split_command({"sbx", "--app-name", "x", "exec", "box", "-e", "A=1", "--", "cmd", "-x"});
  EXPECT_EQ(ours, (Words{"sbx", "--app-name", "x", "exec", "box", "-e", "A=1"}));
  EXPECT_EQ(theirs, (Words{"cmd", "-x"}));
}

TEST(SplitCommand, GivesRunWhatFollowsTheDoubleDash) {
  const auto [ours, theirs] = split_command({"sbx", "run", "claude", ".", "--", "-p", "hi"});
  EXPECT_EQ(ours, (Words{"sbx", "run", "claude", "."}));
  EXPECT_EQ(theirs, (Words{"-p", "hi"}));
}

TEST(Environment, PrefersValuesOverTheHost) {
  ::setenv("SBX_TEST_HOST", "from host", 1);
  EXPECT_EQ(*read_environment({}, {"A=1", "SBX_TEST_HOST", "A=2", "SBX_TEST_UNSET"}),
            (Words{"A=2", "SBX_TEST_HOST=from host"}));
  EXPECT_FALSE(read_environment({}, {"=x"}));
  EXPECT_FALSE(read_environment({"/nonexistent"}, {}));
}

TEST(Table, AlignsColumnsWithoutTrailingBlanks) {
  EXPECT_EQ(format_table({{"A", "LONG", "C"}, {"value", "x", ""}}), "A       LONG   C\nvalue   x\n");
}

std::string placed(const std::string& destination, Found found, const CopySource& source) {
  const auto place = place_copy(destination, found, source);
  if (!place) return std::string(to_string(place.error().code));
  return place->folder + " [" + place->name + "]" + (place->folder_only ? " folder" : "");
}

TEST(CopyPlacement, IsDockers) {
  const CopySource file{"src", false, false};
  const CopySource folder{"src", false, true};
  const CopySource contents{"src", true, true};
  const CopySource unknown{"src", false, std::nullopt};
  const CopySource unknown_contents{"src", true, std::nullopt};
  EXPECT_EQ(placed("/a/b", Found::kFolder, file), "/a/b [src]");
  EXPECT_EQ(placed("/a/b/", Found::kFolder, folder), "/a/b [src]");
  EXPECT_EQ(placed("/a/b", Found::kFolder, contents), "/a/b []");
  EXPECT_EQ(placed("/", Found::kFolder, contents), "/ []");
  EXPECT_EQ(placed("/a/b", Found::kNothing, file), "/a [b]");
  EXPECT_EQ(placed("/a/b/", Found::kNothing, folder), "/a [b]");
  EXPECT_EQ(placed("/a/b", Found::kNothing, contents), "/a [b] folder");
  EXPECT_EQ(placed("/b", Found::kNothing, unknown), "/ [b]");
  EXPECT_EQ(placed("/a/b/", Found::kNothing, unknown), "/a [b] folder");
  EXPECT_EQ(placed("/a/b/", Found::kNothing, file), "not_found");
  EXPECT_EQ(placed("/a/b", Found::kOther, file), "/a [b]");
  EXPECT_EQ(placed("/a/b", Found::kOther, unknown), "/a [b]");
  EXPECT_EQ(placed("/a/b/", Found::kOther, unknown), "conflict");
  EXPECT_EQ(placed("/a/b", Found::kOther, folder), "conflict");
  EXPECT_EQ(placed("/a/b", Found::kOther, unknown_contents), "conflict");
  EXPECT_EQ(placed("/a/b", Found::kNoParent, file), "not_found");
}

TEST(WorkspaceArgument, HasAPlaceAndAMode) {
  const auto folder = TemporaryFolder::make("sbx-cli").value();
  const std::string path = std::filesystem::canonical(folder.path());
  const auto shown = [](const std::string& text) {
    const auto argument = parse_workspace_argument(text);
    return argument ? argument->source + " " + argument->target + (argument->readonly ? " ro" : "") : "error";
  };
  EXPECT_EQ(shown(path), path + " " + path);
  EXPECT_EQ(shown(path + "/:ro"), path + " " + path + " ro");
  EXPECT_EQ(shown(path + ":/x"), path + " /x");
  EXPECT_EQ(shown(path + ":/x:ro"), path + " /x ro");
  EXPECT_EQ(shown(path + ":x"), "error");
  EXPECT_EQ(shown(path + ":rw"), "error");
  EXPECT_EQ(shown(path + "/missing:/x"), "error");
  EXPECT_EQ(shown(path + "/missing"), "error");
  std::filesystem::create_directories(path + "/a:/b");
  EXPECT_EQ(shown(path + "/a:/b"), path + "/a:/b " + path + "/a:/b") << "a path that exists is one";
}

}  // namespace
}  // namespace sbx::cli
