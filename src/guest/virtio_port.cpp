#include "guest/virtio_port.h"

#include <poll.h>
#include <sys/epoll.h>

#include <filesystem>

#include "base/file.h"

namespace sbx::guest {

Result<std::string> find_port(std::string_view name) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/class/virtio-ports", ignored)) {
    const auto text = read_file(entry.path() / "name", 4096);
    if (text && std::string_view(*text).substr(0, text->find('\n')) == name) {
      return "/dev/" + entry.path().filename().string();
    }
  }
  return fail(ErrorCode::kNotFound, "there is no virtio port " + std::string(name));
}

PortEdge::PortEdge(int port) : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLHUP | EPOLLET;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, port, &event);
}

void PortEdge::consume() {
  epoll_event event{};
  while (::epoll_wait(epoll_.get(), &event, 1, 0) > 0) continue;
}

bool PortEdge::host_is_there(int port) {
  pollfd state{port, POLLIN, 0};
  ::poll(&state, 1, 0);
  return (state.revents & POLLHUP) == 0;
}

}  // namespace sbx::guest
