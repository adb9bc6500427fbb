#include "vm/machine_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/file.h"
#include "vm/jail.h"
#include "vm/template.h"

namespace sbx::vm {
namespace {

namespace fs = std::filesystem;

constexpr const char* kJailRam = "/ram";
constexpr const char* kJailKernel = "/kernel";
constexpr const char* kJailInitramfs = "/initramfs";

bool uses_ram_file(Purpose purpose) { return purpose == Purpose::kTemplate || purpose == Purpose::kClone; }

// Descriptors that QEMU inherits, closed here once it runs.
struct Inherited {
  std::vector<UniqueFd> fds;
  int add(UniqueFd fd) {
    fds.push_back(std::move(fd));
    return fds.back().get();
  }
};

Result<void> require_readable_in_jail(const fs::path& path, const std::optional<unsigned>& uid) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return fail_errno("looking for " + path.string(), errno);
  if (uid && (status.st_mode & S_IROTH) == 0) {
    return fail(ErrorCode::kDenied, path.string() + " must be readable for everyone (0444): QEMU runs under a uid of " +
                                        "its own; the folder above it may stay private");
  }
  return {};
}

// A clone needs the QEMU that made its template, and the template's manifest knows which: no need to run QEMU for it.
Result<int> version_for(const StartSpec& spec) {
  if (spec.machine.purpose == Purpose::kClone) {
    if (const auto manifest = read_manifest(TemplatePaths(spec.ram.parent_path()))) {
      if (const auto version = parse_qemu_version(manifest->key.qemu_version)) return version->major;
    }
  }
  return SBX_TRY(qemu_version(spec.qemu), "starting a VM").major;
}

// Whether /dev/shm can hold `size` bytes and leave as much memory again to everybody else.
bool fits_in_memory(std::uint64_t size) {
  struct statvfs shm {};
  if (::statvfs("/dev/shm", &shm) != 0 || shm.f_bavail * shm.f_frsize < size) return false;
  const std::string text = read_file("/proc/meminfo", 1U << 16U).value_or("");
  constexpr std::string_view kName = "MemAvailable:";
  const std::size_t at = text.find(kName);
  return at != std::string::npos && std::strtoull(text.c_str() + at + kName.size(), nullptr, 10) * 1024 > 2 * size;
}

// A template under construction writes all of its memory once (init_on_free). On a disk's file that costs 20 s of
// writing back; so it is built in memory where there is enough, and save_template_state copies what is not zero.
Result<UniqueFd> create_ram(StartSpec& spec) {
  const auto size = static_cast<off_t>(spec.machine.memory_mib) * 1024 * 1024;
  fs::path path = spec.ram;
  const fs::path in_memory = ram_in_memory(spec.ram);
  std::error_code ignored;
  fs::remove(in_memory, ignored);
  // Somebody else may have taken the name: everybody may write there.
  if (fits_in_memory(static_cast<std::uint64_t>(size)) && !fs::exists(fs::symlink_status(in_memory, ignored))) {
    path = in_memory;
    spec.ram_in_jail = path;
  }
  auto fd = SBX_TRY(open_file(path, O_RDWR | O_CREAT | O_EXCL), "creating the template's RAM");
  if (::ftruncate(fd.get(), size) != 0) return fail_errno("sizing the template's RAM", errno);
  if (spec.uid && ::fchown(fd.get(), *spec.uid, *spec.uid) != 0) return fail_errno("giving away the RAM", errno);
  return fd;
}

Result<void> check_ram(const StartSpec& spec) {
  const auto size = static_cast<off_t>(spec.machine.memory_mib) * 1024 * 1024;
  struct stat status {};
  if (::stat(spec.ram.c_str(), &status) != 0) return fail_errno("looking for " + spec.ram.string(), errno);
  if (status.st_size != size) {
    return fail(ErrorCode::kInvalid, "the template has " + std::to_string(status.st_size >> 20) +
                                         " MiB of memory, not " + std::to_string(spec.machine.memory_mib));
  }
  return require_readable_in_jail(spec.ram, spec.uid);
}

// QEMU before 9 (8.2, to be exact) can map a file privately only if it may write it. A QEMU that is taken over could
// then change the template under all its clones, so each gets a copy of its own: slow, but safe.
Result<void> copy_ram(StartSpec& spec) {
  const auto size = static_cast<off_t>(spec.machine.memory_mib) * 1024 * 1024;
  const auto source = SBX_TRY(open_file(spec.ram, O_RDONLY), "copying the template's RAM");
  const fs::path path = spec.runtime_folder / "ram";
  std::error_code ignored;
  fs::remove(path, ignored);
  const auto copy = SBX_TRY(open_file(path, O_RDWR | O_CREAT | O_EXCL), "copying the template's RAM");
  if (::ftruncate(copy.get(), size) != 0) return fail_errno("sizing a copy of the RAM", errno);
  off_t at = 0;
  while ((at = ::lseek(source.get(), at, SEEK_DATA)) >= 0) {
    const off_t end = ::lseek(source.get(), at, SEEK_HOLE);
    off_t to = at;
    while (at < end) {
      const ssize_t n = ::copy_file_range(source.get(), &at, copy.get(), &to, static_cast<std::size_t>(end - at), 0);
      if (n <= 0) return fail_errno("copying the template's RAM", errno);
    }
  }
  if (spec.uid && ::fchown(copy.get(), *spec.uid, *spec.uid) != 0) return fail_errno("giving away the RAM", errno);
  spec.ram_in_jail = path;
  return {};
}

// A QEMU whose keeper was killed may need a moment to die, and no two may ever write one disk. The lock belongs to the
// open file that QEMU inherits, so it is held exactly as long as that QEMU can write.
Result<void> lock_disk(int fd, const fs::path& path) {
  constexpr int kAttempts = 1000;
  for (int attempt = 0; ::flock(fd, LOCK_EX | LOCK_NB) != 0; ++attempt) {
    if (errno != EWOULDBLOCK && errno != EINTR) return fail_errno("locking " + path.string(), errno);
    if (attempt == kAttempts) {
      return fail(ErrorCode::kConflict,
                  path.string() + " is in use by a QEMU that does not end; see: ps -C qemu-system-x86_64");
    }
    ::poll(nullptr, 0, 10);  // a lock that is released tells nobody
  }
  return {};
}

Result<void> open_disks(StartSpec& spec, Inherited& inherited) {
  spec.machine.disk_chain.clear();
  for (const DiskFile& disk : spec.disks) {
    const bool top = spec.machine.disk_chain.empty();
    const int fd = inherited.add(SBX_TRY(open_file(disk.path, top ? O_RDWR : O_RDONLY), "opening a disk"));
    if (top) SBX_CHECK(lock_disk(fd, disk.path), "opening a disk");
    spec.machine.disk_chain.push_back({fd, disk.format});
  }
  return {};
}

struct SocketPair {
  UniqueFd ours;
  UniqueFd theirs;
};
Result<SocketPair> socket_pair() {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) return fail_errno("socketpair", errno);
  return SocketPair{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

// /dev/kvm belongs to a group: QEMU's own uid needs it.
std::vector<unsigned> device_groups(const char* device) {
  struct stat status {};
  if (::stat(device, &status) != 0 || (status.st_mode & S_IROTH) != 0) return {};
  return {status.st_gid};
}

Command qemu_command(StartSpec& spec) {
  JailSpec jail;
  jail.uid = spec.uid;
  if (uses_ram_file(spec.machine.purpose)) {
    const fs::path& file = spec.ram_in_jail.empty() ? spec.ram : spec.ram_in_jail;
    const bool writable = spec.machine.purpose == Purpose::kTemplate || !spec.ram_in_jail.empty();
    jail.binds.push_back({file, kJailRam, writable ? BindMode::kReadWrite : BindMode::kReadOnly});
    spec.machine.ram_path = spec.jail ? kJailRam : file.string();
  }
  if (!spec.kernel.empty()) {
    jail.binds.push_back({spec.kernel, kJailKernel});
    spec.machine.kernel = spec.jail ? kJailKernel : spec.kernel.string();
  }
  if (!spec.initramfs.empty()) {
    jail.binds.push_back({spec.initramfs, kJailInitramfs});
    spec.machine.initramfs = spec.jail ? kJailInitramfs : spec.initramfs.string();
  }
  if (spec.machine.accelerator == Accelerator::kKvm) {
    jail.binds.push_back({"/dev/kvm", "/dev/kvm", BindMode::kDevice});
    if (spec.uid) jail.groups = device_groups("/dev/kvm");
  }
  jail.argv = {spec.qemu};
  for (std::string& argument : qemu_arguments(spec.machine)) jail.argv.push_back(std::move(argument));
  if (spec.jail) return jailed(jail);
  Command plain(jail.argv);
  plain.die_with_parent();
  return plain;
}

// What QEMU and bubblewrap said: bounded by the pipe's size, since a QEMU that is taken over may write without end.
std::string drain(int fd) {
  std::string out(8192, '\0');
  const ssize_t n = ::read(fd, out.data(), out.size());
  out.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  }
  return out;
}

Result<sockaddr_un> socket_address(int folder, std::string_view name) {
  const std::string path = "/proc/self/fd/" + std::to_string(folder) + "/" + std::string(name);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return fail(ErrorCode::kInvalid, "the socket's name is too long");
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

}  // namespace

fs::path ram_in_memory(const fs::path& ram) {
  std::uint64_t hash = 14695981039346656037ULL;  // FNV-1a
  for (const char c : fs::absolute(ram).lexically_normal().string())
    hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  char name[64];
  std::snprintf(name, sizeof name, "/dev/shm/sbx-template-%016llx", static_cast<unsigned long long>(hash));
  return name;
}

Result<UniqueFd> listen_in(const fs::path& runtime_folder, std::string_view name) {
  return listen_in(runtime_folder, name, SOCK_STREAM);
}

Result<UniqueFd> listen_in(const fs::path& runtime_folder, std::string_view name, int type) {
  const auto folder = SBX_TRY(open_file(runtime_folder, O_PATH | O_DIRECTORY), "opening the runtime folder");
  const auto address = SBX_TRY(socket_address(folder.get(), name), runtime_folder.string());
  UniqueFd socket(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return fail_errno("socket", errno);
  ::unlinkat(folder.get(), std::string(name).c_str(), 0);
  ::fchmod(socket.get(), 0600);  // the mode bind(2) gives the file
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail_errno("binding " + (runtime_folder / name).string(), errno);
  }
  if (::listen(socket.get(), 1) != 0) return fail_errno("listening on " + (runtime_folder / name).string(), errno);
  return socket;
}

Result<UniqueFd> connect_port(const fs::path& runtime_folder, int port) {
  if (port < 0 || port > 2) return fail(ErrorCode::kInvalid, "a VM has the ports 0, 1 and 2");
  const auto folder = SBX_TRY(open_file(runtime_folder, O_PATH | O_DIRECTORY), "opening the runtime folder");
  const auto address = SBX_TRY(socket_address(folder.get(), kPortSockets[port]), runtime_folder.string());
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return fail_errno("socket", errno);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail_errno("connecting to the port " + std::string(kPortNames[port]), errno);
  }
  return socket;
}

Result<MachineProcess> MachineProcess::start(StartSpec spec) {
  if (spec.jail && !spec.uid) spec.uid = jail_uid_for(spec.runtime_folder);
  if (!spec.jail || ::geteuid() != 0) spec.uid.reset();
  if (spec.machine.qemu_major == 0) spec.machine.qemu_major = SBX_TRY(version_for(spec), "starting a VM");
  Inherited inherited;
  SBX_CHECK(open_disks(spec, inherited), "starting a VM");
  spec.ram_in_jail.clear();
  UniqueFd ram;
  if (spec.machine.purpose == Purpose::kTemplate) {
    ram = SBX_TRY(create_ram(spec), "starting a VM");
  } else if (uses_ram_file(spec.machine.purpose)) {
    SBX_CHECK(check_ram(spec), "starting a VM");
  }
  if (spec.machine.purpose == Purpose::kClone && spec.machine.qemu_major < 9) {
    SBX_CHECK(copy_ram(spec), "starting a VM");
  }
  if (!spec.kernel.empty()) SBX_CHECK(require_readable_in_jail(spec.kernel, spec.uid), "starting a VM");
  if (!spec.initramfs.empty()) SBX_CHECK(require_readable_in_jail(spec.initramfs, spec.uid), "starting a VM");
  for (int i = 0; i < 3; ++i) {
    auto socket = SBX_TRY(listen_in(spec.runtime_folder, kPortSockets[i]), "making a VM's ports");
    spec.machine.port_fds[i] = inherited.add(std::move(socket));
  }
  auto qmp = SBX_TRY(socket_pair(), "making the QMP connection");
  spec.machine.qmp_fd = inherited.add(std::move(qmp.theirs));
  spec.machine.console_fd = -1;
  if (spec.console_fd >= 0) {
    UniqueFd console(::fcntl(spec.console_fd, F_DUPFD_CLOEXEC, 3));
    if (!console.valid()) return fail_errno("duplicating the console", errno);
    spec.machine.console_fd = inherited.add(std::move(console));
  }
  int log[2];
  if (::pipe2(log, O_CLOEXEC | O_NONBLOCK) != 0) return fail_errno("making a log pipe", errno);

  MachineProcess machine;
  machine.log_.reset(log[0]);
  machine.qmp_ = std::move(qmp.ours);
  if (!spec.ram_in_jail.empty()) machine.ram_ = std::move(ram);
  const UniqueFd log_end(log[1]);
  Command command = qemu_command(spec);
  for (const UniqueFd& fd : inherited.fds) command.keep_fd(fd.get());
  const int output = spec.log_fd >= 0 ? spec.log_fd : log_end.get();
  command.stdout_to(output).stderr_to(output);
  machine.process_ = SBX_TRY(command.start(), "starting QEMU");
  machine.spec_ = std::move(spec);
  return machine;
}

MachineProcess& MachineProcess::operator=(MachineProcess&& other) noexcept {
  const MachineProcess old(std::move(*this));  // ended here
  spec_ = std::move(other.spec_);
  ram_ = std::move(other.ram_);
  log_ = std::move(other.log_);
  qmp_ = std::move(other.qmp_);
  process_ = std::move(other.process_);
  exit_status_ = std::exchange(other.exit_status_, std::nullopt);
  return *this;
}

MachineProcess::~MachineProcess() {
  forget_ram_name();
  if (!process_.running()) return;
  kill();
  (void)process_.wait();
}

void MachineProcess::kill() {
  const auto pid = qemu_pid();
  if (!pid || ::kill(*pid, SIGKILL) != 0) process_.kill(SIGKILL);
}

Result<pid_t> MachineProcess::qemu_pid() const {
  if (!process_.running()) return fail(ErrorCode::kNotFound, "the VM has ended");
  if (!spec_.jail) return process_.pid();
  return jailed_pid(process_.pid());
}

std::string MachineProcess::log() const { return drain(log_.get()); }

void MachineProcess::forget_ram_name() {
  std::error_code ignored;
  if (!spec_.ram_in_jail.empty()) fs::remove(spec_.ram_in_jail, ignored);
}

Result<void> MachineProcess::keep_template_ram() {
  if (!ram_.valid()) return {};
  const auto ram = SBX_TRY(open_file(spec_.ram, O_RDWR | O_CREAT | O_EXCL), "creating the template's RAM");
  return copy_without_zeros(ram_.get(), ram.get());
}

Result<ExitStatus> MachineProcess::wait() {
  if (!exit_status_) exit_status_ = SBX_TRY(process_.wait(), "waiting for QEMU");
  return *exit_status_;
}

Result<ExitStatus> MachineProcess::wait_or_kill(std::chrono::milliseconds deadline) {
  if (exit_status_) return *exit_status_;
  pollfd ended{process_.pidfd(), POLLIN, 0};
  const bool in_time = ::poll(&ended, 1, static_cast<int>(deadline.count())) > 0;
  if (!in_time) kill();
  const auto status = SBX_TRY(wait(), "ending QEMU");
  if (!in_time) return fail(ErrorCode::kTimeout, "QEMU did not end when asked to, and was killed");
  return status;
}

}  // namespace sbx::vm
