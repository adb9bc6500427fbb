#include "base/locked_string.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <type_traits>

namespace sbx {
namespace {

static_assert(!std::is_copy_constructible_v<LockedString>);
static_assert(!std::is_convertible_v<LockedString, std::string>);
static_assert(!std::is_convertible_v<LockedString, std::string_view>);
template <typename T>
concept Printable = requires(std::ostream& out, const T& value) { out << value; };
static_assert(Printable<std::string> && !Printable<LockedString>);

// The lines of /proc/self/smaps that describe the mapping at `address`.
std::string mapping_of(const void* address) {
  std::ifstream maps("/proc/self/smaps");
  std::string line, text;
  bool inside = false;
  while (std::getline(maps, line)) {
    unsigned long from = 0, to = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &from, &to) == 2) {
      const auto at = reinterpret_cast<unsigned long>(address);
      inside = at >= from && at < to;
    }
    if (inside) text += line + "\n";
  }
  return text;
}

TEST(LockedString, KeepsItsBytesLockedAndOutOfCoreDumpsAndForks) {
  auto secret = LockedString::copy_of("the value");
  ASSERT_TRUE(secret) << secret.error().message;
  EXPECT_EQ(secret->reveal(), "the value");
  const std::string mapping = mapping_of(secret->reveal().data());
  const auto flags = mapping.substr(mapping.find("VmFlags:"));
  for (const char* flag : {" lo", " dd", " wf"}) EXPECT_NE(flags.find(flag), std::string::npos) << flag << flags;

  const pid_t child = ::fork();
  if (child == 0) {
    const auto seen = secret->reveal();
    ::_exit(seen.find_first_not_of('\0') == std::string_view::npos ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << "a forked child sees the value";
}

TEST(LockedString, WipesWhatItDrops) {
  auto secret = LockedString::copy_of("0123456789").value();
  const char* memory = secret.reveal().data();
  secret.shrink_to(4);
  EXPECT_EQ(secret.reveal(), "0123");
  EXPECT_EQ(std::string_view(memory + 4, 6), std::string_view("\0\0\0\0\0\0", 6));
  secret.remove_prefix(2);
  EXPECT_EQ(secret.reveal(), "23");
  EXPECT_EQ(std::string_view(memory + 2, 8), std::string_view("\0\0\0\0\0\0\0\0", 8));
}

TEST(LockedString, GrowsAndMoves) {
  LockedString secret;
  EXPECT_TRUE(secret.empty());
  std::string expected;
  for (int i = 0; i < 3000; ++i) {
    ASSERT_TRUE(secret.append("abc" + std::to_string(i)));
    expected += "abc" + std::to_string(i);
  }
  LockedString moved = std::move(secret);
  EXPECT_EQ(moved.reveal(), expected);
  EXPECT_TRUE(secret.empty());  // NOLINT: a moved-from LockedString is empty, by contract
  EXPECT_TRUE(moved == LockedString::copy_of(expected).value());
  expected.back() = '!';
  EXPECT_FALSE(moved == LockedString::copy_of(expected).value());
  moved.clear();
  EXPECT_TRUE(moved.empty());
}

TEST(LockedString, IsRefusedWhereMemoryCannotBeLocked) {
  const pid_t child = ::fork();
  if (child == 0) {
    const rlimit none{0, 0};
    // Root may lock whatever the limit is: become nobody first.
    if (::setrlimit(RLIMIT_MEMLOCK, &none) != 0 || (::getuid() == 0 && ::setresuid(65534, 65534, 65534) != 0))
      ::_exit(2);
    auto refused = LockedString::copy_of("x");
    ::_exit(!refused && refused.error().code == ErrorCode::kUnavailable ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace sbx
