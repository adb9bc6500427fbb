#include "volume.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "instance.h"
#include "processes.h"

namespace sbx::test {

namespace fs = std::filesystem;

namespace {

// fs/ext4/ext4.h: the file system stops at once, without so much as writing its journal out.
constexpr unsigned long kShutdown = _IOR('X', 125, std::uint32_t);
constexpr std::uint32_t kWithoutJournal = 2;

bool succeeds(std::vector<std::string> argv) {
  auto child = Command(std::move(argv)).start();
  if (!child) return false;
  const auto status = child->wait();
  return status && status->success();
}

}  // namespace

Volume::Volume(TemporaryFolder folder) : folder_(std::move(folder)), old_home_(home()) {
  fs::create_directory(folder_.path() / "m");
}

std::unique_ptr<Volume> Volume::ext4(const std::string& size) {
  std::unique_ptr<Volume> volume(new Volume(TemporaryFolder::make("sbx-volume").value()));
  volume->type_ = "ext4";
  volume->source_ = (volume->folder_.path() / "image").string();
  volume->options_ = "loop";
  if (!succeeds({"truncate", "-s", size, volume->source_}) || !succeeds({"mkfs.ext4", "-q", volume->source_}) ||
      !volume->mount()) {
    return nullptr;
  }
  volume->use_as_home();
  return volume;
}

std::unique_ptr<Volume> Volume::tmpfs(const std::string& size) {
  std::unique_ptr<Volume> volume(new Volume(TemporaryFolder::make("sbx-volume").value()));
  volume->type_ = "tmpfs";
  volume->source_ = "sbx-test";
  volume->options_ = "size=" + size;
  if (!volume->mount()) return nullptr;
  volume->use_as_home();
  return volume;
}

bool Volume::mount() {
  mounted_ = succeeds({"mount", "-t", type_, "-o", options_, source_, (folder_.path() / "m").string()});
  return mounted_;
}

void Volume::use_as_home() {
  const auto here = folder_.path() / "m/home";
  fs::create_directory(here);
  for (const char* shared : {"images", "templates"})
    fs::create_directory_symlink(old_home_ + "/" + shared, here / shared);
  ::setenv("SBX_HOME", here.c_str(), 1);
}

void Volume::kill_everybody() {
  const std::string prefix = (folder_.path() / "m").string();
  EXPECT_TRUE(eventually([&] {
    const auto there = processes_using(prefix);
    for (const auto& process : there) kill_now(process.pid);
    return there.empty();
  }));
}

void Volume::unmount() {
  const auto point = (folder_.path() / "m").string();
  EXPECT_TRUE(eventually([&] { return succeeds({"umount", point}); })) << describe(processes_using(point));
  mounted_ = false;
  // Somebody who made a mount namespace just before has a copy of the mount for a moment. While there is one, the next
  // mount is of the same file system, shut down as it is.
  if (type_ == "ext4") {
    EXPECT_TRUE(eventually([&] {
      const auto devices = Command({"losetup", "--noheadings", "--output", "NAME", "--associated", source_}).output();
      return devices && devices->empty();
    })) << "the loop device of "
        << source_ << " is not given back";
  }
}

Volume::~Volume() {
  if (!mounted_) return;
  kill_everybody();
  ::setenv("SBX_HOME", old_home_.c_str(), 1);
  unmount();
}

void Volume::cut_power() {
  const auto point = folder_.path() / "m";
  auto fd = open_file(point, O_RDONLY | O_DIRECTORY).value();
  std::uint32_t how = kWithoutJournal;
  ASSERT_EQ(::ioctl(fd.get(), kShutdown, &how), 0) << std::strerror(errno);
  kill_everybody();
  fd.reset();
  unmount();
  ASSERT_TRUE(mount());
}

void Volume::fill(std::uint64_t spare) {
  const auto path = folder_.path() / "m/filler";
  const auto file = open_file(path, O_CREAT | O_WRONLY).value();
  const std::string block(64U << 10U, 'x');
  const auto left = [&] {
    struct statvfs space {};
    ::statvfs(path.c_str(), &space);
    return space.f_bavail * space.f_frsize;
  };
  while (left() > spare + block.size() && ::write(file.get(), block.data(), block.size()) > 0) continue;
  if (spare == 0) {
    while (::write(file.get(), block.data(), 4096) > 0) continue;
  }
}

void Volume::make_room() { fs::remove(folder_.path() / "m/filler"); }

}  // namespace sbx::test
