#include "secret/file_vault.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"

namespace sbx::secret {
namespace {

namespace fs = std::filesystem;

class FileVaultTest : public testing::Test {
 protected:
  FileVaultTest() {
    fs::create_directories(folders.home);
    fs::create_directories(folders.config);
  }
  fs::path file() const { return FileVault::file_of(folders); }
  fs::path key() const {
    for (const auto& entry : fs::directory_iterator(folders.config / "keys")) return entry.path();
    return {};
  }
  void store(const std::string& value) const {
    FileVault vault(folders);
    ASSERT_TRUE(vault.load());
    ASSERT_TRUE(vault.save(entries(value), "a"));
  }
  static std::vector<Entry> entries(const std::string& value) {
    std::vector<Entry> made;
    made.push_back({"a", LockedString::copy_of(value).value()});
    return made;
  }
  // The message of the error that loading ends with; "" if it does not fail.
  std::string refusal() const {
    auto loaded = FileVault(folders).load();
    return loaded ? "" : loaded.error().message;
  }

  TemporaryFolder top = TemporaryFolder::make("sbx-vault").value();
  VaultFolders folders{top.path() / "home", top.path() / "config"};
};

TEST_F(FileVaultTest, KeepsSecretsInAFileAndItsKeyElsewhereBothPrivate) {
  EXPECT_EQ(FileVault(folders).load()->size(), 0U);
  EXPECT_FALSE(fs::exists(file()));
  store("the value");
  auto loaded = FileVault(folders).load();
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->at(0).bytes.reveal(), "the value");
  for (const auto& path : {file(), key()}) {
    struct stat info {};
    ASSERT_EQ(::stat(path.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777U, 0600U) << path;
    EXPECT_EQ(read_file(path)->find("the value"), std::string::npos);
  }
}

TEST_F(FileVaultTest, KeepsOneKeyForLaterChanges) {
  store("one");
  const auto first = key();
  store("two");
  EXPECT_EQ(key(), first);
  EXPECT_EQ(FileVault(folders).load()->at(0).bytes.reveal(), "two");
}

TEST_F(FileVaultTest, RemovesFileAndKeyWithTheLastSecret) {
  store("one");
  FileVault vault(folders);
  ASSERT_TRUE(vault.load());
  ASSERT_TRUE(vault.save({}, "a"));
  EXPECT_FALSE(fs::exists(file()));
  EXPECT_EQ(key(), fs::path());
  ASSERT_TRUE(vault.save(entries("again"), "a"));
  EXPECT_EQ(FileVault(folders).load()->at(0).bytes.reveal(), "again");
}

TEST_F(FileVaultTest, LeavesADamagedFileAsItIs) {
  store("one");
  std::string text = read_file(file()).value();
  for (const std::string& bad :
       {text.substr(0, text.size() - 1), text.substr(0, 10), text + "x", std::string("junk")}) {
    ASSERT_TRUE(write_file_atomically(file(), bad));
    EXPECT_NE(refusal().find("left as it is"), std::string::npos) << refusal();
    EXPECT_EQ(read_file(file()).value(), bad);
  }
  ASSERT_TRUE(write_file_atomically(file(), text));
  EXPECT_EQ(refusal(), "");
}

TEST_F(FileVaultTest, SaysThatTheKeyIsMissing) {
  store("one");
  fs::rename(key(), top.path() / "aside");
  EXPECT_NE(refusal().find("is missing"), std::string::npos) << refusal();
  fs::remove_all(folders.config / "keys");
  EXPECT_NE(refusal().find("is missing"), std::string::npos) << refusal();
  EXPECT_TRUE(fs::exists(file()));
}

TEST_F(FileVaultTest, RefusesAKeyThatOthersCouldHaveRead) {
  store("one");
  for (const mode_t mode : {0640U, 0604U, 0620U, 0666U}) {
    ASSERT_EQ(::chmod(key().c_str(), mode), 0);
    EXPECT_NE(refusal().find("can be read or written by others"), std::string::npos) << std::oct << mode;
  }
  ASSERT_EQ(::chmod(key().c_str(), 0600), 0);
  ASSERT_EQ(::chmod(file().c_str(), 0640), 0);
  EXPECT_NE(refusal().find("can be read or written by others"), std::string::npos);
  ASSERT_EQ(::chmod(file().c_str(), 0600), 0);
  ASSERT_EQ(::chmod((folders.config / "keys").c_str(), 0770), 0);
  EXPECT_NE(refusal().find("can be written by others"), std::string::npos);
}

TEST_F(FileVaultTest, FollowsNoSymbolicLinks) {
  store("one");
  const auto real = key();
  fs::rename(real, top.path() / "elsewhere");
  fs::create_symlink(top.path() / "elsewhere", real);
  EXPECT_NE(refusal().find("symbolic link"), std::string::npos) << refusal();
  fs::remove(real);
  fs::rename(top.path() / "elsewhere", real);
  EXPECT_EQ(refusal(), "");

  fs::rename(folders.config / "keys", top.path() / "keys");
  fs::create_directory_symlink(top.path() / "keys", folders.config / "keys");
  EXPECT_NE(refusal().find("is not a folder"), std::string::npos) << refusal();
  fs::remove(folders.config / "keys");
  fs::rename(top.path() / "keys", folders.config / "keys");

  fs::rename(file(), top.path() / "file");
  fs::create_symlink(top.path() / "file", file());
  EXPECT_NE(refusal().find("symbolic link"), std::string::npos) << refusal();
}

TEST_F(FileVaultTest, WritesOverASymbolicLinkNotThroughIt) {
  store("one");
  FileVault vault(folders);
  ASSERT_TRUE(vault.load());
  ASSERT_TRUE(write_file_atomically(top.path() / "victim", "untouched"));
  fs::remove(file());
  fs::create_symlink(top.path() / "victim", file());
  ASSERT_TRUE(vault.save(entries("two"), "a"));
  EXPECT_EQ(read_file(top.path() / "victim").value(), "untouched");
  EXPECT_EQ(refusal(), "");
}

TEST_F(FileVaultTest, RefusesPipesInPlaceOfFiles) {
  ASSERT_EQ(::mkfifo(file().c_str(), 0600), 0);
  EXPECT_NE(refusal().find("not a regular file"), std::string::npos) << refusal();
}

TEST_F(FileVaultTest, KeepsOtherUsersOutAndRefusesTheirFiles) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to be another user too";
  store("one");
  fs::permissions(top.path(), fs::perms::all);  // so that the modes of file and key alone are what is tested
  fs::permissions(folders.home, fs::perms::all);
  fs::permissions(folders.config, fs::perms::all);
  const auto secret = file(), its_key = key();
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setresgid(65534, 65534, 65534) != 0 || ::setresuid(65534, 65534, 65534) != 0) ::_exit(2);
    ::_exit(open_file(secret, O_RDONLY) || open_file(its_key, O_RDONLY) ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << "another user could open the file or its key";
  ASSERT_EQ(::chown(its_key.c_str(), 65534, 65534), 0);
  EXPECT_NE(refusal().find("belongs to another user"), std::string::npos) << refusal();
}

}  // namespace
}  // namespace sbx::secret
