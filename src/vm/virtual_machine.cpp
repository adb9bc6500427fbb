#include "vm/virtual_machine.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/this_coro.hpp>
#include <cerrno>
#include <cstring>

#include "base/file.h"
#include "vm/jail.h"
#include "vm/process_exit.h"
#include "vm/template.h"

namespace sbx::vm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr const char* kJailRam = "/ram";
constexpr const char* kJailKernel = "/kernel";
constexpr const char* kJailInitramfs = "/initramfs";
constexpr int kStateFdset = 91;
// How long one wait for an event lasts before the status is asked again: an event may have passed unseen.
constexpr auto kPoll = std::chrono::milliseconds(5);

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
  if (fits_in_memory(static_cast<std::uint64_t>(size))) {
    path = "/dev/shm/sbx-template-" + std::to_string(::getpid()) + "-" + spec.runtime_folder.filename().string();
    std::error_code ignored;
    fs::remove(path, ignored);
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

Result<void> open_disks(StartSpec& spec, Inherited& inherited) {
  spec.machine.disk_chain.clear();
  for (const DiskFile& disk : spec.disks) {
    const int mode = spec.machine.disk_chain.empty() ? O_RDWR : O_RDONLY;
    const int fd = inherited.add(SBX_TRY(open_file(disk.path, mode), "opening a disk"));
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

Result<UniqueFd> listen_in(const fs::path& runtime_folder, std::string_view name) {
  const auto folder = SBX_TRY(open_file(runtime_folder, O_PATH | O_DIRECTORY), "opening the runtime folder");
  const auto address = SBX_TRY(socket_address(folder.get(), name), runtime_folder.string());
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
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

Awaitable<Result<std::unique_ptr<VirtualMachine>>> VirtualMachine::start(StartSpec spec) {
  if (spec.jail && !spec.uid) spec.uid = jail_uid_for(spec.runtime_folder);
  if (!spec.jail || ::geteuid() != 0) spec.uid.reset();
  if (spec.machine.qemu_major == 0) {
    SBX_CO_TRY(spec.machine.qemu_major, version_for(spec), "starting a VM");
  }
  Inherited inherited;
  SBX_CO_CHECK(open_disks(spec, inherited), "starting a VM");
  spec.ram_in_jail.clear();
  UniqueFd ram;
  if (spec.machine.purpose == Purpose::kTemplate) {
    SBX_CO_TRY(ram, create_ram(spec), "starting a VM");
  } else if (uses_ram_file(spec.machine.purpose)) {
    SBX_CO_CHECK(check_ram(spec), "starting a VM");
  }
  if (spec.machine.purpose == Purpose::kClone && spec.machine.qemu_major < 9) {
    SBX_CO_CHECK(copy_ram(spec), "starting a VM");
  }
  if (!spec.kernel.empty()) SBX_CO_CHECK(require_readable_in_jail(spec.kernel, spec.uid), "starting a VM");
  if (!spec.initramfs.empty()) SBX_CO_CHECK(require_readable_in_jail(spec.initramfs, spec.uid), "starting a VM");
  for (int i = 0; i < 3; ++i) {
    SBX_CO_TRY(auto socket, listen_in(spec.runtime_folder, kPortSockets[i]), "making a VM's ports");
    spec.machine.port_fds[i] = inherited.add(std::move(socket));
  }
  SBX_CO_TRY(auto qmp, socket_pair(), "making the QMP connection");
  spec.machine.qmp_fd = inherited.add(std::move(qmp.theirs));
  spec.machine.console_fd = -1;
  if (spec.console_fd >= 0) {
    UniqueFd console(::fcntl(spec.console_fd, F_DUPFD_CLOEXEC, 3));
    if (!console.valid()) co_return fail_errno("duplicating the console", errno);
    spec.machine.console_fd = inherited.add(std::move(console));
  }
  int log[2];
  if (::pipe2(log, O_CLOEXEC | O_NONBLOCK) != 0) co_return fail_errno("making a log pipe", errno);

  std::unique_ptr<VirtualMachine> vm(new VirtualMachine());
  vm->log_.reset(log[0]);
  if (!spec.ram_in_jail.empty()) vm->ram_ = std::move(ram);
  UniqueFd log_end(log[1]);
  Command command = qemu_command(spec);
  for (const UniqueFd& fd : inherited.fds) command.keep_fd(fd.get());
  const int output = spec.log_fd >= 0 ? spec.log_fd : log_end.get();
  command.stdout_to(output).stderr_to(output);
  SBX_CO_TRY(vm->process_, command.start(), "starting QEMU");
  inherited.fds.clear();
  log_end.reset();

  const auto executor = co_await boost::asio::this_coro::executor;
  vm->qmp_ = std::make_unique<QmpClient>(executor, std::move(qmp.ours));
  const auto deadline = spec.deadline;
  vm->spec_ = std::move(spec);
  auto greeted = co_await vm->qmp_->handshake(deadline);
  // QEMU has it open by now; nobody else needs its name.
  std::error_code ignored;
  if (!vm->spec_.ram_in_jail.empty()) fs::remove(vm->spec_.ram_in_jail, ignored);
  if (!greeted) {
    Error error = std::move(greeted).error();
    error.message += "; it said: " + vm->log();
    co_return std::unexpected(std::move(error).while_doing("starting QEMU"));
  }
  co_return std::move(vm);
}

VirtualMachine::~VirtualMachine() {
  if (!process_.running()) return;
  kill();
  (void)process_.wait();
}

// QEMU itself, not the jail around it: when the jail's process has ended then, QEMU has let go of the disk.
void VirtualMachine::kill() {
  const auto pid = qemu_pid();
  if (!pid || ::kill(*pid, SIGKILL) != 0) process_.kill(SIGKILL);
}

int VirtualMachine::pidfd() const { return process_.pidfd(); }
pid_t VirtualMachine::jail_pid() const { return process_.pid(); }

Result<pid_t> VirtualMachine::qemu_pid() const {
  if (!process_.running()) return fail(ErrorCode::kNotFound, "the VM has ended");
  if (!spec_.jail) return process_.pid();
  return jailed_pid(process_.pid());
}

std::string VirtualMachine::log() const { return drain(log_.get()); }

Awaitable<Result<void>> VirtualMachine::set_migration(bool ignore_shared) {
  json capabilities = json::array();
  for (const auto& [name, state] : {std::pair{"x-ignore-shared", ignore_shared}, std::pair{"events", true}}) {
    json capability = json::object();
    capability["capability"] = name;
    capability["state"] = state;
    capabilities.push_back(std::move(capability));
  }
  json arguments = json::object();
  arguments["capabilities"] = std::move(capabilities);
  auto answer = co_await qmp_->execute("migrate-set-capabilities", std::move(arguments));
  if (!answer) co_return std::unexpected(std::move(answer).error());
  co_return Result<void>{};
}

// Hands `fd` to QEMU and returns the address it has there. A file goes by a descriptor set from QEMU 9 on ("fd:" for
// files is deprecated since); pipes, and everything before, by name.
Awaitable<Result<std::string>> VirtualMachine::hand_over(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) co_return fail_errno("looking at a state file", errno);
  json arguments = json::object();
  if (S_ISREG(status.st_mode) && spec_.machine.qemu_major >= 9) {
    arguments["fdset-id"] = kStateFdset;
    SBX_CO_TRY(const json ignored, co_await qmp_->execute("add-fd", std::move(arguments), fd),
               "passing a file to QEMU");
    (void)ignored;
    co_return "file:/dev/fdset/" + std::to_string(kStateFdset);
  }
  arguments["fdname"] = "state";
  SBX_CO_TRY(const json ignored, co_await qmp_->execute("getfd", std::move(arguments), fd), "passing a file to QEMU");
  (void)ignored;
  co_return std::string("fd:state");
}

Awaitable<void> VirtualMachine::take_back() {
  json arguments = json::object();
  arguments["fdset-id"] = kStateFdset;
  auto ignored = co_await qmp_->execute("remove-fd", std::move(arguments));
  (void)ignored;  // there may be none: a pipe went by name
}

Awaitable<Result<void>> VirtualMachine::load_stream(int fd, bool ignore_shared, Duration deadline) {
  const auto end = Clock::now() + deadline;
  SBX_CO_CHECK(co_await set_migration(ignore_shared), "preparing to load");
  SBX_CO_TRY(auto uri, co_await hand_over(fd), "preparing to load");
  json arguments = json::object();
  arguments["uri"] = uri;
  SBX_CO_TRY(const json started, co_await qmp_->execute("migrate-incoming", std::move(arguments)), "loading");
  (void)started;
  while (true) {
    auto now = co_await status();
    if (!now) {
      Error error = std::move(now).error();
      error.message += "; QEMU said: " + log();
      co_return std::unexpected(std::move(error).while_doing("loading a machine's state"));
    }
    if (*now != "inmigrate") break;
    // A state for another CPU model loads for ever: only a deadline ends that.
    if (Clock::now() > end) co_return fail(ErrorCode::kTimeout, "QEMU did not load the state in time");
    auto ignored = co_await qmp_->wait_for_event(kPoll);
    (void)ignored;
  }
  co_await take_back();
  co_return Result<void>{};
}

Awaitable<Result<void>> VirtualMachine::load_state(fs::path state, Duration deadline) {
  SBX_CO_TRY(const auto file, open_file(state, O_RDONLY), "opening the template's state");
  co_return co_await load_stream(file.get(), true, deadline);
}

Awaitable<Result<void>> VirtualMachine::migrate_out(int fd, bool ignore_shared, Duration deadline) {
  const auto end = Clock::now() + deadline;
  SBX_CO_CHECK(co_await set_migration(ignore_shared), "preparing to save");
  json parameters = json::object();
  parameters["max-bandwidth"] = 100'000'000'000;  // the default is made for a network
  SBX_CO_TRY(const json set, co_await qmp_->execute("migrate-set-parameters", std::move(parameters)), "saving");
  (void)set;
  SBX_CO_TRY(auto uri, co_await hand_over(fd), "preparing to save");
  json arguments = json::object();
  arguments["uri"] = uri;
  SBX_CO_TRY(const json started, co_await qmp_->execute("migrate", std::move(arguments)), "saving");
  (void)started;
  while (true) {
    SBX_CO_TRY(const json answer, co_await qmp_->execute("query-migrate"), "saving");
    const auto found = answer.find("status");
    const std::string state = found != answer.end() && found->is_string() ? found->get<std::string>() : "";
    if (state == "completed") break;
    if (state == "failed" || state == "cancelled") {
      const auto reason = answer.find("error-desc");
      co_return fail(ErrorCode::kInternal,
                     "QEMU could not save the machine's state: " +
                         (reason != answer.end() && reason->is_string() ? reason->get<std::string>() : state));
    }
    if (Clock::now() > end) co_return fail(ErrorCode::kTimeout, "QEMU did not save the machine's state in time");
    auto ignored = co_await qmp_->wait_for_event(kPoll);
    (void)ignored;
  }
  co_await take_back();
  co_return Result<void>{};
}

Awaitable<Result<void>> VirtualMachine::save_template_state(fs::path state, Duration deadline) {
  SBX_CO_TRY(const auto file, open_file(state, O_WRONLY | O_CREAT | O_EXCL), "creating the template's state");
  SBX_CO_CHECK(co_await migrate_out(file.get(), true, deadline), "saving the template");
  if (!ram_.valid()) co_return Result<void>{};
  SBX_CO_TRY(const auto ram, open_file(spec_.ram, O_RDWR | O_CREAT | O_EXCL), "creating the template's RAM");
  co_return copy_without_zeros(ram_.get(), ram.get());
}

Awaitable<Result<void>> VirtualMachine::save_full_stream(int fd, Duration deadline) {
  co_return co_await migrate_out(fd, false, deadline);
}

Awaitable<Result<void>> VirtualMachine::resume() {
  auto answer = co_await qmp_->execute("cont");
  if (!answer) co_return std::unexpected(std::move(answer).error());
  co_return Result<void>{};
}

Awaitable<Result<void>> VirtualMachine::pause() {
  auto answer = co_await qmp_->execute("stop");
  if (!answer) co_return std::unexpected(std::move(answer).error());
  co_return Result<void>{};
}

Awaitable<Result<std::string>> VirtualMachine::status() {
  SBX_CO_TRY(const json answer, co_await qmp_->execute("query-status"), "asking for the VM's status");
  const auto found = answer.find("status");
  if (found == answer.end() || !found->is_string()) co_return fail(ErrorCode::kInvalid, "QEMU has no status");
  co_return found->get<std::string>();
}

Result<ExitStatus> VirtualMachine::reap() {
  if (!exit_status_) exit_status_ = SBX_TRY(process_.wait(), "waiting for QEMU");
  return *exit_status_;
}

Awaitable<Result<ExitStatus>> VirtualMachine::exited() {
  if (!exit_status_) co_await process_ended(process_.pidfd(), Duration::max());
  co_return reap();
}

Awaitable<Result<ExitStatus>> VirtualMachine::quit(Duration deadline) {
  if (exit_status_) co_return *exit_status_;
  json none = json::object();
  auto ignored = co_await qmp_->execute("quit", std::move(none), -1, deadline);
  (void)ignored;  // QEMU may be gone before it has answered
  const bool ended = co_await process_ended(process_.pidfd(), deadline);
  if (!ended) kill();
  SBX_CO_TRY(const auto status, reap(), "ending QEMU");
  if (!ended) co_return fail(ErrorCode::kTimeout, "QEMU did not end when asked to, and was killed");
  co_return status;
}

}  // namespace sbx::vm
