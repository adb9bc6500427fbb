#include "keeper/supervision.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace sbx::keeper {
namespace {

void set_text(Message& message, std::string_view text) { text.copy(message.text, sizeof message.text - 1); }

}  // namespace

Message message(Request request, std::int32_t value, std::string_view text) {
  Message result;
  result.kind = static_cast<std::uint32_t>(request);
  result.value = value;
  set_text(result, text);
  return result;
}

Message message(Event event, std::int32_t value, std::int32_t more) {
  Message result;
  result.kind = static_cast<std::uint32_t>(event);
  result.value = value;
  result.more = more;
  return result;
}

Message answer(const Result<void>& result) {
  Message message;
  message.kind = static_cast<std::uint32_t>(Event::kAnswer);
  if (!result) {
    message.value = 1 + static_cast<std::int32_t>(result.error().code);
    set_text(message, result.error().describe());
  }
  return message;
}

std::string text_of(const Message& message) {
  std::string text(message.text, ::strnlen(message.text, sizeof message.text));
  std::ranges::replace_if(
      text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, ' ');
  return text;
}

Result<void> result_of(const Message& answer) {
  if (answer.value == 0) return {};
  const bool known = answer.value > 0 && answer.value <= 1 + static_cast<std::int32_t>(ErrorCode::kInternal);
  return fail(known ? static_cast<ErrorCode>(answer.value - 1) : ErrorCode::kInternal, text_of(answer));
}

Result<void> send_message(int socket, const Message& message, int fd) {
  iovec part{const_cast<Message*>(&message), sizeof message};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  if (fd >= 0) {
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &fd, sizeof fd);
  }
  ssize_t sent = 0;
  do {
    sent = ::sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  if (sent == sizeof message) return {};
  return fail(ErrorCode::kUnavailable, std::string("the keeper's other half does not listen: ") + std::strerror(errno));
}

Result<Received> receive_message(int socket, Descriptors descriptors) {
  Received received;
  iovec part{&received.message, sizeof received.message};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  if (descriptors == Descriptors::kAccepted) {
    header.msg_control = control.data();
    header.msg_controllen = control.size();
  }
  ssize_t got = 0;
  do {
    got = ::recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0 && errno == EAGAIN) return fail(ErrorCode::kTimeout, "there is no message");
  if (got < 0) return fail_errno("reading from the keeper's other half", errno);
  if (got == 0) return fail(ErrorCode::kUnavailable, "the keeper's other half is gone");
  for (cmsghdr* rights = CMSG_FIRSTHDR(&header); rights != nullptr; rights = CMSG_NXTHDR(&header, rights)) {
    if (rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS) continue;
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(rights), sizeof fd);
    received.fd.reset(fd);
  }
  if (got != sizeof received.message || (header.msg_flags & MSG_TRUNC) != 0) {
    return fail(ErrorCode::kInvalid,
                "the keeper's other half sent " + std::to_string(got) + " bytes, which is no message");
  }
  return received;
}

}  // namespace sbx::keeper
