#include "guest/boot.h"

#include <fcntl.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/file.h"
#include "guest/console.h"

namespace sbx::guest {
namespace {

constexpr int kModuleInitCompressedFile = 4;  // finit_module(2), MODULE_INIT_COMPRESSED_FILE
constexpr int kRootDeviceDeadlineMs = 30'000;

void complain(std::string_view what) { console_line(std::string(what) + ": " + std::strerror(errno)); }

void insert_module(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return complain("opening " + path);
  const int flags = path.ends_with(".ko") ? 0 : kModuleInitCompressedFile;
  if (::syscall(SYS_finit_module, file.get(), "", flags) != 0 && errno != EEXIST) complain("inserting " + path);
}

void insert_listed_modules() {
  std::ifstream list("/modules.list");
  for (std::string line; std::getline(list, line);) {
    if (line.empty() || line.front() == '#') continue;
    const std::string path = line.front() == '/' ? line : "/modules/" + line;
    insert_module(path);
    ::unlink(path.c_str());  // the initramfs is RAM
  }
}

Result<void> wait_for_root_device() {
  for (int waited = 0; ::access("/dev/vda", F_OK) != 0; ++waited) {
    if (waited == kRootDeviceDeadlineMs) return fail(ErrorCode::kTimeout, "the root device /dev/vda did not appear");
    ::usleep(1000);
  }
  return {};
}

void mount_at(const char* source, const char* target, const char* type, unsigned long flags, const char* data) {
  ::mkdir(target, 0755);
  if (::mount(source, target, type, flags, data) != 0) complain(std::string("mounting ") + target);
}

void loopback_up() {
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  if (::ioctl(socket.get(), SIOCSIFFLAGS, &request) != 0) complain("bringing lo up");
}

}  // namespace

std::string kernel_argument(std::string_view command_line, std::string_view key) {
  std::istringstream words{std::string(command_line)};
  std::string value;
  for (std::string word; words >> word;) {
    if (word.starts_with(key) && word.size() > key.size() && word[key.size()] == '=')
      value = word.substr(key.size() + 1);
  }
  return value;
}

Result<void> enter_root_file_system(std::string& command_line) {
  ::mkdir("/dev", 0755);
  ::mount("dev", "/dev", "devtmpfs", MS_NOSUID, "mode=755");
  open_console();
  ::mkdir("/proc", 0755);
  ::mount("proc", "/proc", "proc", 0, nullptr);
  if (auto text = read_file("/proc/cmdline", 64U << 10U)) command_line = *text;
  insert_listed_modules();
  SBX_CHECK(wait_for_root_device(), "booting");
  ::mkdir("/sysroot", 0755);
  if (::mount("/dev/vda", "/sysroot", "ext4", MS_NOATIME, nullptr) != 0) return fail_errno("mounting /dev/vda", errno);
  ::umount2("/proc", MNT_DETACH);
  if (::mount("/dev", "/sysroot/dev", nullptr, MS_MOVE, nullptr) != 0) return fail_errno("moving /dev", errno);
  if (::chdir("/sysroot") != 0) return fail_errno("entering /sysroot", errno);
  if (::mount(".", "/", nullptr, MS_MOVE, nullptr) != 0) return fail_errno("moving the root", errno);
  if (::chroot(".") != 0 || ::chdir("/") != 0) return fail_errno("changing root", errno);
  return {};
}

void prepare_system() {
  ::umask(022);
  constexpr auto kPlain = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  mount_at("proc", "/proc", "proc", kPlain, nullptr);
  mount_at("sysfs", "/sys", "sysfs", kPlain, nullptr);
  mount_at("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=620,ptmxmode=666,gid=5");
  mount_at("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
  mount_at("mqueue", "/dev/mqueue", "mqueue", kPlain, nullptr);
  mount_at("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755");
  mount_at("tmp", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
  mount_at("cgroup2", "/sys/fs/cgroup", "cgroup2", kPlain, "nsdelegate");
  // Containers' mounts must not be private copies by accident: systemd makes / shared, and Docker's docs assume it.
  ::mount(nullptr, "/", nullptr, MS_REC | MS_SHARED, nullptr);
  ::mkdir("/run/sbx", 0755);
  ::mkdir("/run/lock", 0755);
  ::chmod("/run/lock", 01777);
  for (const auto& [target, link] :
       {std::pair{"/proc/self/fd", "/dev/fd"}, std::pair{"/proc/self/fd/0", "/dev/stdin"},
        std::pair{"/proc/self/fd/1", "/dev/stdout"}, std::pair{"/proc/self/fd/2", "/dev/stderr"}}) {
    if (::symlink(target, link) != 0 && errno != EEXIST) complain(std::string("linking ") + link);
  }
  loopback_up();
  const rlimit files{65'536, 1'048'576};
  ::setrlimit(RLIMIT_NOFILE, &files);
  std::string hostname = "sandbox";
  if (auto text = read_file("/etc/hostname", 256)) {
    if (const auto name = text->substr(0, text->find('\n')); !name.empty()) hostname = name;
  }
  if (::sethostname(hostname.data(), hostname.size()) != 0) complain("setting the hostname");
}

long boot_milliseconds() {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1'000'000;
}

}  // namespace sbx::guest
