#include "files/host_watch.h"

#include <sys/inotify.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "files/confined.h"

namespace sbx::files {
namespace {

// IN_CLOSE_WRITE: stores through a mapping make no event of their own, closing the file after them does.
constexpr std::uint32_t kContents = IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE;
constexpr std::uint32_t kNames = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR;

}  // namespace

Result<HostWatch> HostWatch::make() {
  UniqueFd fd(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (!fd.valid()) return fail_errno("inotify_init1 (see fs.inotify.max_user_instances)", errno);
  return HostWatch(std::move(fd));
}

Outcome<int> HostWatch::add(int path_fd, std::uint32_t mask) {
  const int watch = ::inotify_add_watch(fd_.get(), descriptor_path(path_fd).c_str(), mask);
  if (watch < 0) return std::unexpected(errno);
  return watch;
}

Outcome<int> HostWatch::add_folder(int path_fd) { return add(path_fd, kContents | kNames); }

Outcome<int> HostWatch::add_file(int path_fd) { return add(path_fd, kContents); }

void HostWatch::remove(int watch) { ::inotify_rm_watch(fd_.get(), watch); }

void HostWatch::drain(const std::function<void(const Event&)>& each) {
  alignas(inotify_event) char buffer[64U << 10U];
  while (true) {
    const ssize_t size = ::read(fd_.get(), buffer, sizeof(buffer));
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return;
    for (ssize_t at = 0; at < size;) {
      inotify_event head{};
      std::memcpy(&head, buffer + at, sizeof(head));
      Event event{head.wd, head.mask, {}};
      if (head.len > 0) event.name = buffer + at + sizeof(head);
      if ((head.mask & IN_Q_OVERFLOW) != 0) event.watch = -1;
      each(event);
      at += static_cast<ssize_t>(sizeof(head) + head.len);
    }
  }
}

}  // namespace sbx::files
