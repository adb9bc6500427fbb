#include "guest/files_relay.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "base/file.h"
#include "guest/console.h"
#include "guest/port_filter.h"
#include "guest/users.h"
#include "guest/virtio_port.h"
#include "guest/watch_waker.h"
#include "wire/files_port.h"
#include "wire/resync.h"

namespace sbx::guest {
namespace {

constexpr const char* kMountPoint = "/run/sbx/workspaces";
// The largest request the kernel makes (max_pages 256: 1 MiB of data) with room for its headers.
constexpr std::size_t kMaxMessage = (1U << 20U) + (64U << 10U);
constexpr std::size_t kMaxQueuedNotifications = 64U << 20U;  // bytes

// Not a vector, which would touch every page: most of these are never used, and each costs time at the start and memory
// of the host.
std::unique_ptr<char[]> untouched_buffer(std::size_t size) { return std::make_unique_for_overwrite<char[]>(size); }

// The port, open and blocking; buffered on the way in.
class Port {
 public:
  explicit Port(UniqueFd fd) : fd_(std::move(fd)), buffer_(untouched_buffer(kBufferSize)) {}

  bool write(const char* data, std::size_t size) const {
    while (size > 0) {
      const ssize_t n = ::write(fd_.get(), data, size);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      data += n;
      size -= static_cast<std::size_t>(n);
    }
    return true;
  }
  // At least `wanted` bytes in data(); false when the host side has gone.
  bool fill(std::size_t wanted) {
    if (begin_ + wanted > kBufferSize) {
      std::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
      end_ -= begin_;
      begin_ = 0;
    }
    while (end_ - begin_ < wanted) {
      const ssize_t n = ::read(fd_.get(), buffer_.get() + end_, kBufferSize - end_);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      end_ += static_cast<std::size_t>(n);
    }
    return true;
  }
  const char* data() const { return buffer_.get() + begin_; }
  std::size_t size() const { return end_ - begin_; }
  void drop(std::size_t size) {
    begin_ += size;
    if (begin_ == end_) begin_ = end_ = 0;
  }
  void wait_for_host() const {
    PortEdge edge(fd_.get());
    for (;;) {
      edge.consume();
      if (PortEdge::host_is_there(fd_.get())) return;
      pollfd change{edge.fd(), POLLIN, 0};
      ::poll(&change, 1, 1000);
    }
  }

 private:
  static constexpr std::size_t kBufferSize = kMaxMessage + 4096;

  UniqueFd fd_;
  std::unique_ptr<char[]> buffer_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

// Drops input up to a SYN and answers it.
bool resynchronise(Port& port, Nonce& nonce) {
  SynMatcher matcher;
  std::string dropped;
  for (;;) {
    while (!port.fill(1)) port.wait_for_host();
    const char byte = *port.data();
    port.drop(1);
    dropped.clear();
    const auto found = matcher.push(byte, dropped);
    if (!found) continue;
    nonce = *found;
    std::string echo(wire::kResyncEchoMagic);
    echo.append(nonce.data(), nonce.size());
    if (port.write(echo.data(), echo.size())) return true;
  }
}

// The kernel hands out whole requests only.
fuse_in_header header_of(const char* request) {
  fuse_in_header header;
  std::memcpy(&header, request, sizeof header);
  return header;
}

// The errno that the file server would answer this request with, whatever the file: asking it is saved, and it is asked
// often (a program that opens a file as a stream asks whether it is a terminal, the kernel asks for the capabilities of
// what is written or executed, ls for access lists). 0: the request is the server's.
int refusal(std::string_view request) {
  const auto header = header_of(request.data());
  if (header.opcode == FUSE_IOCTL) return ENOSYS;
  if (header.opcode != FUSE_GETXATTR || request.size() < sizeof header + sizeof(fuse_getxattr_in)) return 0;
  return request.substr(sizeof header + sizeof(fuse_getxattr_in)).starts_with("user.") ? 0 : EOPNOTSUPP;
}

class Relay {
 public:
  Relay(Port port, Nonce nonce, UniqueFd fuse, RelayCounter counter, WatchWaker waker)
      : port_(std::move(port)),
        nonce_(nonce),
        fuse_(std::move(fuse)),
        counter_(std::move(counter)),
        waker_(std::move(waker)) {}

  void start() {
    std::thread([this] { from_kernel(); }).detach();
    std::thread([this] { from_host(); }).detach();
    std::thread([this] { deliver_notifications(); }).detach();
  }
  // Until the server's first answer (to INIT) has reached the kernel.
  void wait_for_first_answer() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return answered_; });
  }

 private:
  // The end of either direction is the end of the session, and of this process with every thread in it.
  [[noreturn]] static void finish() { ::_exit(0); }

  void from_kernel() {
    const auto message = untouched_buffer(kMaxMessage);
    for (;;) {
      const ssize_t size = ::read(fuse_.get(), message.get(), kMaxMessage);
      if (size < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT)) continue;  // ENOENT: request withdrawn
      if (size <= 0) finish();                                                           // ENODEV: unmounted
      if (const int error = refusal({message.get(), static_cast<std::size_t>(size)})) {
        refuse(message.get(), error);
        continue;
      }
      if (const auto asked = header_of(message.get());
          asked.opcode == FUSE_SETATTR && asked.pid == static_cast<std::uint32_t>(waker_.pid())) {
        if (!ask_attributes(asked)) finish();
        continue;
      }
      if (!port_.write(message.get(), static_cast<std::size_t>(size))) finish();
    }
  }

  // The answer to GETATTR looks like that to SETATTR.
  bool ask_attributes(fuse_in_header header) const {
    struct {
      fuse_in_header header;
      fuse_getattr_in body;
    } request{header, {}};
    request.header.len = sizeof request;
    request.header.opcode = FUSE_GETATTR;
    return port_.write(reinterpret_cast<const char*>(&request), sizeof request);
  }

  // The kernel does not mind that the answer comes at once, from the same thread.
  void refuse(const char* request, int error) {
    const auto asked = header_of(request);
    const fuse_out_header answer{sizeof answer, -error, asked.unique};
    deliver({reinterpret_cast<const char*>(&answer), sizeof answer});
  }

  void from_host() {
    for (;;) {
      if (!port_.fill(sizeof(fuse_out_header))) finish();
      fuse_out_header header;
      std::memcpy(&header, port_.data(), sizeof header);
      if (std::memcmp(port_.data(), wire::kResyncMagic.data(), wire::kResyncMagic.size()) == 0) {
        // A SYN that was on its way while we answered the first one; any other is a new server, for a new relay.
        if (!port_.fill(kSynSize)) finish();
        if (std::memcmp(port_.data() + wire::kResyncMagic.size(), nonce_.data(), nonce_.size()) != 0) finish();
        port_.drop(kSynSize);
        continue;
      }
      if (header.len < sizeof header || header.len > kMaxMessage) {
        console_line("files: a message with an impossible length");
        finish();
      }
      if (!port_.fill(header.len)) finish();
      if (header.unique == 0) {
        queue_notification({port_.data(), header.len});
      } else {
        deliver({port_.data(), header.len});
        if (!answered_) {
          const std::lock_guard lock(mutex_);
          answered_ = true;
          changed_.notify_all();
        }
      }
      port_.drop(header.len);
    }
  }

  // The kernel refuses answers to requests that were interrupted (ENOENT) and notifications about inodes it has
  // forgotten (ENOENT): both are normal.
  void deliver(std::string_view message) {
    if (::write(fuse_.get(), message.data(), message.size()) >= 0 || errno == ENOENT) return;
    if (errno == ENODEV) finish();
    console_line(std::string("files: the kernel refused a message: ") + std::strerror(errno));
  }

  void queue_notification(std::string_view message) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return queued_bytes_ < kMaxQueuedNotifications; });
    queued_bytes_ += message.size();
    notifications_.emplace_back(message);
    changed_.notify_all();
  }

  void deliver_notifications() {
    for (;;) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return !notifications_.empty(); });
      const std::string message = std::move(notifications_.front());
      notifications_.pop_front();
      queued_bytes_ -= message.size();
      changed_.notify_all();
      lock.unlock();
      fuse_out_header header;
      std::memcpy(&header, message.data(), sizeof header);
      if (header.error == wire::kHostChanged) {
        waker_.changed(message.c_str() + sizeof header);
        continue;
      }
      deliver(message);
      counter_.add(1);
    }
  }

  Port port_;
  Nonce nonce_;
  UniqueFd fuse_;
  RelayCounter counter_;
  WatchWaker waker_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> notifications_;
  std::size_t queued_bytes_ = 0;
  bool answered_ = false;  // written by from_host() only
};

// mkdir -p; what is made under the agent's home belongs to the agent.
Result<void> make_parents(const std::filesystem::path& path) {
  const auto agent = find_user("agent");
  std::filesystem::path made;
  for (const auto& part : path) {
    made /= part;
    if (::mkdir(made.c_str(), 0755) != 0) {
      if (errno == EEXIST || errno == EROFS || errno == EACCES) continue;  // what is missing shows at the last one
      return fail_errno("making " + made.string(), errno);
    }
    if (agent && made.string().starts_with(agent->home + "/")) {
      if (::chown(made.c_str(), agent->uid, agent->gid) != 0) return fail_errno("owning " + made.string(), errno);
    }
  }
  return {};
}

Result<void> bind_workspace(const Workspace& workspace) {
  const std::filesystem::path target(workspace.path);
  if (workspace.file) {
    SBX_CHECK(make_parents(target.parent_path()), "mounting " + workspace.path);
    SBX_TRY(open_file(target, O_WRONLY | O_CREAT, 0644), "mounting " + workspace.path);
  } else {
    SBX_CHECK(make_parents(target), "mounting " + workspace.path);
  }
  const auto source = std::string(kMountPoint) + "/" + std::to_string(workspace.index);
  if (::mount(source.c_str(), target.c_str(), nullptr, MS_BIND, nullptr) != 0) {
    return fail_errno("binding workspace " + std::to_string(workspace.index) + " at " + workspace.path, errno);
  }
  if (!workspace.readonly) return {};
  constexpr auto kReadOnly = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV;
  if (::mount(nullptr, target.c_str(), nullptr, kReadOnly, nullptr) != 0) {
    return fail_errno("making " + workspace.path + " read-only", errno);
  }
  return {};
}

Result<UniqueFd> mount_fuse() {
  auto fuse = SBX_TRY(open_file("/dev/fuse", O_RDWR), "opening /dev/fuse");
  SBX_CHECK(make_folders(kMountPoint, 0755), "mounting the workspaces");
  const auto options =
      "fd=" + std::to_string(fuse.get()) + ",rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions";
  if (::mount(kFuseSource.data(), kMountPoint, "fuse", MS_NOSUID | MS_NODEV, options.c_str()) != 0) {
    return fail_errno("mounting the FUSE session", errno);
  }
  return fuse;
}

// How far the kernel reads ahead in the workspaces' files: its usual 128 KiB leave the port idle between two requests.
void read_far_ahead() {
  struct stat status {};
  if (::stat(kMountPoint, &status) != 0) return;
  const auto device = std::to_string(major(status.st_dev)) + ":" + std::to_string(minor(status.st_dev));
  const auto control = open_file("/sys/class/bdi/" + device + "/read_ahead_kb", O_WRONLY);
  if (control) (void)write_all(control->get(), "512");
}

Result<void> serve(const std::vector<Workspace>& workspaces, const RelayCounter& counter) {
  auto waker = SBX_TRY(WatchWaker::start(kMountPoint), "starting the files session");
  const auto path = SBX_TRY(find_port("sbx.files"), "opening the files port");
  Port port(SBX_TRY(open_file(path, O_RDWR), "opening the files port"));
  Nonce nonce{};
  if (!resynchronise(port, nonce)) return fail(ErrorCode::kUnavailable, "the files port cannot be written");
  auto fuse = SBX_TRY(mount_fuse(), "starting the files session");
  auto* relay = new Relay(std::move(port), nonce, std::move(fuse), counter,
                          std::move(waker));  // its threads live as long as the process
  relay->start();
  relay->wait_for_first_answer();
  read_far_ahead();
  for (const auto& workspace : workspaces) SBX_CHECK(bind_workspace(workspace), "mounting the workspaces");
  return {};
}

void become_a_process_of_its_own(std::array<unsigned, 2> kept) {
  sigset_t none;
  ::sigemptyset(&none);
  for (int number = 1; number < NSIG; ++number) ::signal(number, SIG_DFL);
  ::signal(SIGPIPE, SIG_IGN);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::setsid();
  // Above all the control port's descriptor: a second reader would corrupt it.
  std::ranges::sort(kept);
  unsigned first = 3;
  for (const unsigned fd : kept) {
    if (fd > first) ::syscall(SYS_close_range, first, fd - 1, 0);
    first = fd + 1;
  }
  ::syscall(SYS_close_range, first, ~0U, 0);
  open_console();
}

}  // namespace

void run_files_relay(const std::vector<Workspace>& workspaces, UniqueFd report, const RelayCounter& counter) {
  become_a_process_of_its_own({static_cast<unsigned>(report.get()), static_cast<unsigned>(counter.fd())});
  const auto result = serve(workspaces, counter);
  const std::string answer = result ? std::string(kRelayReady) : result.error().describe();
  (void)write_all(report.get(), answer);
  if (!result) ::_exit(1);
  report.reset();
  for (;;) ::pause();
}

namespace {

[[noreturn]] void report_and_end(const Result<void>& result, const UniqueFd& report) {
  (void)write_all(report.get(), result ? std::string(kRelayReady) : result.error().describe());
  ::_exit(result ? 0 : 1);
}

}  // namespace

void bind_in_child(const Workspace& workspace, UniqueFd report) {
  const auto kept = static_cast<unsigned>(report.get());
  become_a_process_of_its_own({kept, kept});
  report_and_end(bind_workspace(workspace), report);
}

void unbind_in_child(const Workspace& workspace, UniqueFd report) {
  const auto kept = static_cast<unsigned>(report.get());
  become_a_process_of_its_own({kept, kept});
  if (::umount2(workspace.path.c_str(), UMOUNT_NOFOLLOW) == 0) report_and_end({}, report);
  if (errno == EBUSY) {
    (void)write_all(report.get(), kRelayBusy);
    ::_exit(1);
  }
  report_and_end(fail_errno("unmounting " + workspace.path, errno), report);
}

void unbind_by_force_in_child(const Workspace& workspace, UniqueFd report) {
  const auto kept = static_cast<unsigned>(report.get());
  become_a_process_of_its_own({kept, kept});
  // Open files keep the tree until they are closed, and find nothing in it.
  if (::umount2(workspace.path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) report_and_end({}, report);
  report_and_end(fail_errno("unmounting " + workspace.path, errno), report);
}

}  // namespace sbx::guest
