#include "secret/mask.h"

#include <gtest/gtest.h>

namespace sbx::secret {
namespace {

std::string masked(const std::string& value) { return mask(LockedString::copy_of(value).value()); }

TEST(Mask, ShowsAsLittleAsTheLengthAllows) {
  const std::pair<const char*, const char*> kTable[] = {
      {"", ""},
      {"a", "*"},
      {"abcdef", "******"},
      {"abcdefg", "abcdef*"},
      {"testtest", "testte**"},
      {"abcdefghijklmnopqrs", "abcdef*************"},              // 19
      {"abcdefghijklmnopqrst", "abcdef**********qrst"},            // 20
      {"abcdefghijklmnopqrstuvwxy", "abcdef***************vwxy"},  // 25
      {"abcdefghijklmnopqrstuvwxyz", "abcdef******...******wxyz"},
      {"gho_GCaw4oXXXXXXXXXXXXXXXXXXXXXXXXXX43qy", "gho_GC******...******43qy"},
  };
  for (const auto& [value, expected] : kTable) EXPECT_EQ(masked(value), expected) << value;
  for (std::size_t size = 0; size < 200; ++size) EXPECT_LE(masked(std::string(size, 'x')).size(), 25U);
}

TEST(Mask, HidesShortPasswordsAltogether) {
  const auto shown = [](const std::string& value) { return mask_password(LockedString::copy_of(value).value()); };
  EXPECT_EQ(shown("abc"), "***");
  EXPECT_EQ(shown("abcdefghijk"), "********");
  EXPECT_EQ(shown("abcdefghijkl"), "abcdef******");
}

}  // namespace
}  // namespace sbx::secret
