#include "archive/pack.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "archive/unpack.h"
#include "base/file.h"

namespace sbx::archive {
namespace {

namespace fs = std::filesystem;

class Pack : public ::testing::Test {
 protected:
  Pack() : folder_(TemporaryFolder::make("sbx-pack").value()) {
    fs::create_directory(source());
    fs::create_directory(target());
  }
  fs::path source() const { return folder_.path() / "source"; }
  fs::path target() const { return folder_.path() / "target"; }

  // Packs into memory and unpacks that; the size of the archive.
  off_t copy(const PackOptions& options) {
    const UniqueFd tar(::memfd_create("tar", MFD_CLOEXEC));
    const auto packed = pack(options, tar.get());
    EXPECT_TRUE(packed) << packed.error().message;
    if (packed) left_out_ = packed->left_out;
    const off_t size = ::lseek(tar.get(), 0, SEEK_END);
    ::lseek(tar.get(), 0, SEEK_SET);
    const auto folder = open_file(target(), O_PATH | O_DIRECTORY).value();
    UnpackOptions out;
    out.input = tar.get();
    out.folder = folder.get();
    out.name = options.leave_out_root ? "" : "copy";
    const auto unpacked = unpack(out);
    EXPECT_TRUE(unpacked) << unpacked.error().message;
    return size;
  }
  std::string content(const std::string& path) const { return read_file(target() / path).value_or("missing"); }

  TemporaryFolder folder_;
  std::vector<std::string> left_out_;
};

TEST_F(Pack, ATreeSurvivesTheWayThereAndBack) {
  fs::create_directories(source() / "sub/empty");
  const std::string odd = "odd\xff name\n\xc3(";
  ASSERT_TRUE(write_file_atomically(source() / odd, "bytes", 0751));
  ASSERT_TRUE(write_file_atomically(source() / "sub" / std::string(200, 'l'), "long"));
  ASSERT_TRUE(write_file_atomically(source() / "\xc3\xa4", "umlaut"));
  fs::create_hard_link(source() / odd, source() / "sub/again");
  fs::create_symlink("sub/\xff", source() / "link");
  ::mkfifo((source() / "fifo").c_str(), 0600);
  ::chmod((source() / "sub").c_str(), 0555);
  copy({source(), "source"});
  EXPECT_EQ(content("copy/" + odd), "bytes");
  EXPECT_EQ(content("copy/sub/" + std::string(200, 'l')), "long");
  EXPECT_EQ(content("copy/\xc3\xa4"), "umlaut");
  EXPECT_EQ(fs::read_symlink(target() / "copy/link"), "sub/\xff");
  EXPECT_TRUE(fs::is_directory(target() / "copy/sub/empty"));
  EXPECT_EQ(fs::hard_link_count(target() / "copy/sub/again"), 2U);
  EXPECT_EQ(static_cast<unsigned>(fs::status(target() / "copy/sub").permissions()), 0555U);
  EXPECT_EQ(static_cast<unsigned>(fs::status(target() / ("copy/" + odd)).permissions()), 0751U);
  ::chmod((source() / "sub").c_str(), 0755);  // to be removed
  ::chmod((target() / "copy/sub").c_str(), 0755);
}

TEST_F(Pack, HolesStayHoles) {
  constexpr off_t kSize = off_t{1} << 30U;
  {
    const auto file = open_file(source() / "sparse", O_CREAT | O_RDWR).value();
    ASSERT_EQ(::ftruncate(file.get(), kSize), 0);
    ASSERT_EQ(::pwrite(file.get(), "middle", 6, kSize / 2), 6);
    const auto hole = open_file(source() / "hole", O_CREAT | O_RDWR).value();
    ASSERT_EQ(::ftruncate(hole.get(), kSize), 0);
  }
  EXPECT_LT(copy({source() / "sparse", "sparse"}), 1 << 20);
  const auto file = open_file(target() / "copy", O_RDONLY).value();
  struct stat status {};
  ASSERT_EQ(::fstat(file.get(), &status), 0);
  EXPECT_EQ(status.st_size, kSize);
  EXPECT_LT(status.st_blocks * 512, 1 << 20);
  char middle[6] = {};
  ASSERT_EQ(::pread(file.get(), middle, 6, kSize / 2), 6);
  EXPECT_EQ(std::string_view(middle, 6), "middle");

  EXPECT_LT(copy({source() / "hole", "hole"}), 1 << 20);
  EXPECT_EQ(fs::file_size(target() / "copy"), static_cast<std::uintmax_t>(kSize));
}

TEST_F(Pack, TheRootsLinkIsFollowedWhenAskedFor) {
  ASSERT_TRUE(write_file_atomically(source() / "file", "text"));
  fs::create_symlink("file", source() / "link");
  copy({source() / "link", "link"});
  EXPECT_TRUE(fs::is_symlink(target() / "copy"));
  copy({source() / "link", "link", true});
  EXPECT_FALSE(fs::is_symlink(target() / "copy"));
  EXPECT_EQ(content("copy"), "text");
}

TEST_F(Pack, ContentsGoWithoutTheirRoot) {
  ASSERT_TRUE(write_file_atomically(source() / "file", "text"));
  copy({source(), ".", false, true});
  EXPECT_EQ(content("file"), "text");
}

TEST_F(Pack, SocketsAreLeftOutAndTold) {
  const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  (source() / "s").native().copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  copy({source(), "source"});
  EXPECT_THAT(left_out_, ::testing::ElementsAre("source/s"));
}

TEST_F(Pack, WhoReadsNoFurtherIsTold) {
  ASSERT_TRUE(write_file_atomically(source() / "file", std::string(1U << 20U, 'x')));
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  ::close(ends[0]);
  const UniqueFd output(ends[1]);
  const auto packed = pack({source(), "source"}, output.get());
  ASSERT_FALSE(packed);
  EXPECT_EQ(packed.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(pack({source() / "nothing", "nothing"}, output.get()).error().code, ErrorCode::kNotFound);
}

// A guest that swaps a folder of its workspace for a link while the workspace is copied.
TEST_F(Pack, AFolderThatBecomesALinkLeadsNowhere) {
  const fs::path secret = folder_.path() / "secret";
  fs::create_directory(secret);
  ASSERT_TRUE(write_file_atomically(secret / "key", "host secret"));
  fs::create_directory(source() / "real");
  ASSERT_TRUE(write_file_atomically(source() / "real/key", "guest's own"));
  fs::create_directory_symlink(secret, source() / "link");
  std::atomic<bool> done = false;
  std::thread swapper([&] {
    while (!done) {
      ::renameat2(AT_FDCWD, (source() / "real").c_str(), AT_FDCWD, (source() / "link").c_str(), RENAME_EXCHANGE);
    }
  });
  for (int i = 0; i < 300; ++i) {
    const UniqueFd tar(::memfd_create("tar", MFD_CLOEXEC));
    (void)pack({source(), "source"}, tar.get());
    std::string bytes(static_cast<std::size_t>(::lseek(tar.get(), 0, SEEK_END)), '\0');
    ASSERT_EQ(::pread(tar.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    EXPECT_EQ(bytes.find("host secret"), std::string::npos);
    if (HasFailure()) break;
  }
  done = true;
  swapper.join();
}

}  // namespace
}  // namespace sbx::archive
