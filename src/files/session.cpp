#include "files/session.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "base/file.h"

namespace sbx::files {

Result<void> serve(int stream, Dispatcher& dispatcher) {
  std::vector<char> buffer(2 * kMaxMessage);
  std::size_t begin = 0;
  std::size_t end = 0;
  while (true) {
    std::uint32_t length = 0;
    if (end - begin >= sizeof(length)) {
      std::memcpy(&length, buffer.data() + begin, sizeof(length));
      if (length < sizeof(fuse_in_header) || length > kMaxMessage) {
        return fail(ErrorCode::kInvalid, "the guest sent a FUSE message of " + std::to_string(length) + " bytes");
      }
      if (end - begin >= length) {
        const auto reply = SBX_TRY(dispatcher.handle({buffer.data() + begin, length}), "answering a FUSE request");
        SBX_CHECK(write_all(stream, reply), "sending a FUSE reply");
        begin += length;
        continue;
      }
    }
    if (begin == end) {
      begin = end = 0;
    } else if (buffer.size() - begin < kMaxMessage) {
      std::memmove(buffer.data(), buffer.data() + begin, end - begin);
      end -= begin;
      begin = 0;
    }
    const ssize_t got = ::read(stream, buffer.data() + end, buffer.size() - end);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno != ECONNRESET) return fail_errno("reading the files port", errno);
    if (got <= 0) return {};
    end += static_cast<std::size_t>(got);
  }
}

}  // namespace sbx::files
