#include "secret/vault_file.h"

#include <gtest/gtest.h>

namespace sbx::secret {
namespace {

std::vector<Entry> sample() {
  std::vector<Entry> entries;
  entries.push_back({"service/global/github", LockedString::copy_of("first value").value()});
  entries.push_back({"custom/x/Y", LockedString::copy_of(std::string("\0\n\xff", 3)).value()});
  return entries;
}

TEST(VaultFile, OpensWithItsKeyOnly) {
  const auto key = make_key().value();
  const std::string name = make_key_name();
  const std::string file = seal(sample(), key, name).value();
  EXPECT_EQ(key_name_of(file).value(), name);
  EXPECT_EQ(file.find("first value"), std::string::npos);
  EXPECT_EQ(file.find("github"), std::string::npos);
  const auto entries = open(file, key);
  ASSERT_TRUE(entries) << entries.error().message;
  ASSERT_EQ(entries->size(), 2U);
  EXPECT_EQ(entries->at(0).key, "service/global/github");
  EXPECT_EQ(entries->at(1).bytes.reveal(), std::string_view("\0\n\xff", 3));
  EXPECT_FALSE(open(file, make_key().value()));
  EXPECT_NE(file, seal(sample(), key, name).value()) << "the nonce was used twice";
}

TEST(VaultFile, NoticesEveryChangedBitAndEveryCut) {
  const auto key = make_key().value();
  const std::string file = seal(sample(), key, make_key_name()).value();
  for (std::size_t i = 0; i < file.size(); ++i) {
    std::string changed = file;
    changed[i] = static_cast<char>(changed[i] ^ (1 << (i % 8)));
    EXPECT_FALSE(open(changed, key)) << "byte " << i;
    EXPECT_FALSE(open(file.substr(0, i), key)) << "cut at " << i;
  }
  EXPECT_FALSE(open(file + '\0', key));
}

TEST(VaultFile, UnpacksOnlyWhatIsWhole) {
  const auto packed = pack(sample()).value();
  EXPECT_EQ(unpack(packed.reveal())->size(), 2U);
  EXPECT_EQ(unpack("")->size(), 0U);
  for (std::size_t i = 1; i < packed.size(); ++i) {
    const auto cut = unpack(packed.reveal().substr(0, i));
    EXPECT_TRUE(!cut || cut->size() == 1) << i;
  }
  EXPECT_FALSE(unpack("\xff\xff\xff\xff"));
}

}  // namespace
}  // namespace sbx::secret
