#include "image/apt_sources.h"

#include <gtest/gtest.h>

#include "base/file.h"

namespace sbx::image {
namespace {

TEST(AptSources, ReadsOneLineEntriesWithOptionsAndComments) {
  const auto sources = parse_one_line_sources(
      "# a comment\n"
      "deb [arch=amd64 signed-by=/k.gpg] http://mirror.test/debian bookworm main contrib # rest\n"
      "deb-src http://mirror.test/debian bookworm main\n"
      "deb [broken http://mirror.test/debian bookworm main\n"
      "nonsense\n");
  ASSERT_EQ(sources.size(), 1U);
  EXPECT_EQ(sources[0], (AptSource{"http://mirror.test/debian", "bookworm", {"main", "contrib"}}));
}

TEST(AptSources, TakesDeb822EntriesApartAndSkipsDisabledOnes) {
  const auto sources = parse_deb822_sources(
      "Types: deb deb-src\n# a comment inside\nURIs: http://mirror.test/debian\nSuites: bookworm\n bookworm-updates\n"
      "Components: main\nSigned-By: /k.gpg\n\n"
      "Types: deb\nEnabled: no\nURIs: http://off.test/debian\nSuites: bookworm\nComponents: main\n\n"
      "Types: deb-src\nURIs: http://src.test/debian\nSuites: bookworm\nComponents: main\n");
  ASSERT_EQ(sources.size(), 2U);
  EXPECT_EQ(sources[0], (AptSource{"http://mirror.test/debian", "bookworm", {"main"}}));
  EXPECT_EQ(sources[1], (AptSource{"http://mirror.test/debian", "bookworm-updates", {"main"}}));
}

TEST(AptSources, ReadsBothFormatsBelowAnAptFolder) {
  const auto folder = TemporaryFolder::make("apt").value();
  ASSERT_TRUE(make_folders(folder.path() / "sources.list.d"));
  ASSERT_TRUE(write_file_atomically(folder.path() / "sources.list", "deb http://a.test/d bookworm main\n"));
  ASSERT_TRUE(
      write_file_atomically(folder.path() / "sources.list.d/b.sources",
                            "Types: deb\nURIs: http://b.test/d\nSuites: bookworm-security\nComponents: main\n"));
  ASSERT_TRUE(write_file_atomically(folder.path() / "sources.list.d/c.save", "deb http://c.test/d bookworm main\n"));
  const auto sources = host_apt_sources(folder.path());
  ASSERT_EQ(sources.size(), 2U);
  EXPECT_EQ(sources[0].uri, "http://a.test/d");
  EXPECT_EQ(sources[1].uri, "http://b.test/d");
}

TEST(AptSources, AnImageUsesTheHostsArchivesForItsOwnSuite) {
  const std::vector<AptSource> host{{"http://extra.test/x", "stable", {"main"}},
                                    {"http://m.test/debian", "bookworm", {"main"}},
                                    {"http://s.test/debian-security", "bookworm-security", {"main"}}};
  EXPECT_EQ(sources_for_suite(host, "bookworm", "trixie", "", "/k.gpg").value(),
            "deb [signed-by=/k.gpg] http://m.test/debian trixie main\n"
            "deb [signed-by=/k.gpg] http://s.test/debian-security trixie-security main\n");
}

TEST(AptSources, AMirrorThatWasSetIsUsedAlone) {
  const std::vector<AptSource> host{{"http://m.test/debian", "bookworm", {"main"}}};
  EXPECT_EQ(sources_for_suite(host, "bookworm", "trixie", "http://own.test/debian", "").value(),
            "deb http://own.test/debian trixie main\n");
}

TEST(AptSources, AMirrorThatWouldAddALineIsRefused) {
  const auto sources = sources_for_suite({}, "bookworm", "trixie", "http://x.test/ trixie main\ndeb http://y.test", "");
  ASSERT_FALSE(sources);
  EXPECT_EQ(sources.error().code, ErrorCode::kInvalid);
}

TEST(AptSources, AHostWithoutADebianArchiveIsToldWhatToSet) {
  const auto sources = sources_for_suite({}, "noble", "trixie", "", "");
  ASSERT_FALSE(sources);
  EXPECT_EQ(sources.error().code, ErrorCode::kNotFound);
  EXPECT_NE(sources.error().message.find("SBX_DEBIAN_MIRROR"), std::string::npos);
}

}  // namespace
}  // namespace sbx::image
