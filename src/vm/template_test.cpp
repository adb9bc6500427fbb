#include "vm/template.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

namespace sbx::vm {
namespace {

TEST(Template, ItsIdIsMadeOfEverythingThatMadeIt) {
  const TemplateKey key{"k", "r", "g", "c", "q", "w", "", Accelerator::kTcg, 1, 2048};
  EXPECT_EQ(template_id(key).size(), 32U);
  EXPECT_EQ(template_id(key), template_id(TemplateKey(key)));
  TemplateKey other = key;
  other.memory_mib = 4096;
  EXPECT_NE(template_id(key), template_id(other));
  other = key;
  other.guest_binary = "h";
  EXPECT_NE(template_id(key), template_id(other));
}

TEST(Template, SealingDigsHolesAndMakesItReadOnly) {
  const auto folder = TemporaryFolder::make("sbx-template").value();
  const TemplatePaths paths(folder.path());
  {
    const auto ram = open_file(paths.ram(), O_RDWR | O_CREAT).value();
    ASSERT_TRUE(write_all(ram.get(), std::string(8 << 20, '\0') + std::string(4096, 'x') + std::string(8 << 20, '\0')));
  }
  ASSERT_TRUE(write_file_atomically(paths.state(), "state"));
  ASSERT_TRUE(write_file_atomically(paths.disk(), "disk"));
  const std::string before = file_sha256(paths.ram()).value();
  TemplateManifest manifest;
  manifest.key.kernel = "k";
  const auto sealed = seal_template(paths, manifest);
  ASSERT_TRUE(sealed) << sealed.error().describe();
  struct stat status {};
  ASSERT_EQ(::stat(paths.ram().c_str(), &status), 0);
  EXPECT_LT(status.st_blocks * 512, 1 << 20);
  EXPECT_EQ(status.st_mode & 0777, 0444U);
  EXPECT_EQ(file_sha256(paths.ram()).value(), before);
  const auto read = read_manifest(paths);
  ASSERT_TRUE(read) << read.error().describe();
  EXPECT_EQ(read->id, template_id(manifest.key));
  std::string text = read_file(paths.manifest()).value();
  text.replace(text.find("\"kernel\": \"k\""), 13, "\"kernel\": \"x\"");
  ASSERT_TRUE(write_file_atomically(paths.manifest(), text));
  EXPECT_FALSE(read_manifest(paths)) << "an id that does not fit the key";
}

TEST(Template, QemuTellsItsVersion) {
  if (::access("/usr/bin/qemu-system-x86_64", X_OK) != 0) GTEST_SKIP() << "needs QEMU";
  EXPECT_GE(qemu_version().value().major, 7);
  EXPECT_FALSE(qemu_version("/usr/bin/true"));
  EXPECT_EQ(parse_qemu_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)").value().major, 7);
}

TEST(Sha256, IsWhatEverybodyElseComputes) {
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace sbx::vm
