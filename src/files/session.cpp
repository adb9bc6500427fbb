#include "files/session.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <vector>

#include "base/file.h"

namespace sbx::files {
namespace {

using Clock = std::chrono::steady_clock;

constexpr unsigned kWorkers = 4;
constexpr std::size_t kMaxJobs = 64;
// Beyond this many bytes that the guest has not taken yet, no request is read.
constexpr std::size_t kMaxBacklog = 4U << 20U;
// Beyond this many, notifications wait: a guest that is parked or slow gets them in one piece later.
constexpr std::size_t kNotifyBacklog = 256U << 10U;
// Messages from here on are put into a string of their own, which a job may keep.
constexpr std::size_t kLarge = 32U << 10U;
// How long changes on the host are gathered. A guest that starts a command need not wait: see the barrier.
constexpr std::chrono::milliseconds kGather{10};

class Session {
 public:
  Session(int stream, Dispatcher& dispatcher, int control)
      : stream_(stream), control_(control), dispatcher_(dispatcher), input_(2 * kMaxMessage), workers_(kWorkers) {}

  Result<void> run() {
    const int flags = ::fcntl(stream_, F_GETFL);
    if (flags < 0 || ::fcntl(stream_, F_SETFL, flags | O_NONBLOCK) != 0) return fail_errno("fcntl", errno);
    while (!ended_) {
      SBX_CHECK(answer_requests(), "answering the guest");
      SBX_CHECK(write_output(), "sending to the guest");
      if (!ended_) SBX_CHECK(wait(), "waiting for the guest");
    }
    return {};
  }

 private:
  bool room() const { return backlog_ < kMaxBacklog && jobs_ < kMaxJobs; }

  // Handles what has been read, as long as there is room for the replies.
  Result<void> answer_requests() {
    while (!ended_ && room() && end_ - begin_ >= sizeof(std::uint32_t)) {
      std::uint32_t length = 0;
      std::memcpy(&length, input_.data() + begin_, sizeof(length));
      if (length < sizeof(fuse_in_header) || length > kMaxMessage) {
        return fail(ErrorCode::kInvalid, "the guest sent a FUSE message of " + std::to_string(length) + " bytes");
      }
      if (end_ - begin_ < length) break;
      SBX_CHECK(answer({input_.data() + begin_, length}), "answering a FUSE request");
      begin_ += length;
    }
    if (begin_ == end_) begin_ = end_ = 0;
    return {};
  }

  Result<void> answer(std::string_view message) {
    std::string kept;
    if (message.size() >= kLarge) message = kept.assign(message);
    std::optional<Job> later;
    const auto reply = SBX_TRY(dispatcher_.handle(message, &later), "handling it");
    if (!later) return send(reply);
    // A short string would not stay in its place when it is moved.
    if (kept.empty()) return send(later->run());
    later->request = std::move(kept);
    ++jobs_;
    workers_.add(*std::move(later));
    return {};
  }

  // Straight from the dispatcher's buffer, if the guest takes it at once.
  Result<void> send(std::string_view reply) {
    while (output_.empty() && !reply.empty()) {
      const ssize_t sent = ::write(stream_, reply.data(), reply.size());
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0 && errno == EAGAIN) break;
      if (sent < 0) return cannot_send(errno);
      reply.remove_prefix(static_cast<std::size_t>(sent));
    }
    if (!reply.empty()) queue(std::string(reply));
    return {};
  }

  // A peer that closes while something is on its way to it ends the session as one that closes in between.
  Result<void> cannot_send(int error) {
    if (error != EPIPE && error != ECONNRESET) return fail_errno("writing to the files port", error);
    ended_ = true;
    return {};
  }

  void queue(std::string bytes) {
    backlog_ += bytes.size();
    output_.push_back(std::move(bytes));
  }

  Result<void> write_output() {
    while (!output_.empty()) {
      std::array<iovec, 64> pieces{};
      int count = 0;
      for (auto& bytes : output_) {
        if (count == static_cast<int>(pieces.size())) break;
        pieces[count++] = {bytes.data(), bytes.size()};
      }
      pieces[0].iov_base = static_cast<char*>(pieces[0].iov_base) + written_;
      pieces[0].iov_len -= written_;
      const ssize_t sent = ::writev(stream_, pieces.data(), count);
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0 && errno == EAGAIN) break;
      if (sent < 0) return cannot_send(errno);
      backlog_ -= static_cast<std::size_t>(sent);
      written_ += static_cast<std::size_t>(sent);
      while (!output_.empty() && written_ >= output_.front().size()) {
        written_ -= output_.front().size();
        output_.pop_front();
      }
    }
    return {};
  }

  Result<void> wait() {
    const auto now = Clock::now();
    const bool may_notify = backlog_ < kNotifyBacklog;
    if (notify_at_ && may_notify && now >= *notify_at_) notify();
    if (sweep_at_ && now >= *sweep_at_) sweep_at_.reset();
    if (!sweep_at_ && dispatcher_.sweep()) sweep_at_ = now + OpenFiles::kWriterLife;

    enum { kStream, kJobs, kControl, kWatch, kCount };
    std::array<pollfd, kCount> waiting{};
    const auto stream_events = (room() ? POLLIN : 0) | (output_.empty() ? 0 : POLLOUT);
    waiting[kStream] = {stream_, static_cast<short>(stream_events), 0};
    waiting[kJobs] = {workers_.fd(), POLLIN, 0};
    waiting[kControl] = {control_, POLLIN, 0};
    waiting[kWatch] = {notify_at_ ? -1 : dispatcher_.watch_fd(), POLLIN, 0};
    const int ready = ::poll(waiting.data(), waiting.size(), timeout(now));
    if (ready < 0 && errno != EINTR) return fail_errno("poll", errno);
    if (ready <= 0) return {};
    if (waiting[kJobs].revents != 0) {
      for (auto& reply : workers_.take_finished()) {
        --jobs_;
        queue(std::move(reply));
      }
    }
    // Before the control: what it asks about may concern what is only now being read.
    if (waiting[kWatch].revents != 0) notify_at_ = Clock::now() + kGather;
    if (waiting[kControl].revents != 0) answer_barriers();
    if (waiting[kStream].revents != 0 && room()) return read_input();
    // Gone, and no room for more of its requests.
    if ((waiting[kStream].revents & (POLLHUP | POLLERR)) != 0) ended_ = true;
    return {};
  }

  // Milliseconds until the next thing to do; -1: none.
  int timeout(Clock::time_point now) const {
    auto next = Clock::time_point::max();
    if (notify_at_ && backlog_ < kNotifyBacklog) next = std::min(next, *notify_at_);
    if (sweep_at_) next = std::min(next, *sweep_at_);
    if (next == Clock::time_point::max()) return -1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - now).count();
    return static_cast<int>(std::max<std::int64_t>(left, 0));
  }

  void notify() {
    notify_at_.reset();
    std::string messages;
    notified_ += dispatcher_.notifications(messages);
    if (!messages.empty()) queue(std::move(messages));
  }

  void answer_barriers() {
    std::array<char, 64> questions{};
    const ssize_t count = ::read(control_, questions.data(), questions.size());
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (count <= 0) {
      control_ = -1;
      return;
    }
    notify();
    for (ssize_t i = 0; i < count; ++i) {
      if (!write_all(control_, {reinterpret_cast<const char*>(&notified_), sizeof(notified_)})) control_ = -1;
    }
  }

  Result<void> read_input() {
    if (input_.size() - begin_ < kMaxMessage) {
      std::memmove(input_.data(), input_.data() + begin_, end_ - begin_);
      end_ -= begin_;
      begin_ = 0;
    }
    const ssize_t got = ::read(stream_, input_.data() + end_, input_.size() - end_);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return {};
    if (got < 0 && errno != ECONNRESET) return fail_errno("reading the files port", errno);
    if (got <= 0) {
      ended_ = true;
    } else {
      end_ += static_cast<std::size_t>(got);
    }
    return {};
  }

  int stream_;
  int control_;
  Dispatcher& dispatcher_;
  std::vector<char> input_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::deque<std::string> output_;
  std::size_t written_ = 0;  // of output_.front()
  std::size_t backlog_ = 0;
  std::size_t jobs_ = 0;
  std::uint64_t notified_ = 0;
  std::optional<Clock::time_point> notify_at_;
  std::optional<Clock::time_point> sweep_at_;
  bool ended_ = false;
  Workers workers_;
};

}  // namespace

Result<void> serve(int stream, Dispatcher& dispatcher, int control) {
  return Session(stream, dispatcher, control).run();
}

}  // namespace sbx::files
