#include "cli/attach.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <deque>
#include <iostream>
#include <optional>

#include "base/file.h"
#include "cli/table.h"
#include "wire/stdcopy.h"

namespace sbx::cli {

using nlohmann::json;

namespace {

// RFC 6455 section 5.2.
enum Opcode : unsigned { kContinuation = 0, kText = 1, kBinary = 2, kClose = 8, kPing = 9, kPong = 10 };
constexpr std::size_t kWindow = 1U << 20U;  // kStdinWindow of the daemon: more stdin may not be under way
constexpr std::size_t kPiece = 32U << 10U;

int g_signal_pipe[2] = {-1, -1};

void on_signal(int number) {
  const int saved = errno;
  const char byte = static_cast<char>(number);
  if (::write(g_signal_pipe[1], &byte, 1) < 0) {
    // The pipe is full of signals already.
  }
  errno = saved;
}

class RawTerminal {
 public:
  explicit RawTerminal(bool wanted) {
    if (!wanted || ::tcgetattr(0, &saved_) != 0) return;
    termios raw = saved_;
    ::cfmakeraw(&raw);
    active_ = ::tcsetattr(0, TCSADRAIN, &raw) == 0;
  }
  ~RawTerminal() {
    if (active_) ::tcsetattr(0, TCSADRAIN, &saved_);
  }
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;

 private:
  termios saved_{};
  bool active_ = false;
};

// Signals come through a pipe while a command is attached, and do what they did before afterwards.
class SignalPipe {
 public:
  Result<void> open() {
    if (g_signal_pipe[0] < 0 && ::pipe2(g_signal_pipe, O_CLOEXEC | O_NONBLOCK) != 0)
      return fail_errno("making a pipe", errno);
    for (char stale = 0; ::read(g_signal_pipe[0], &stale, 1) > 0;) continue;
    struct sigaction action {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    for (std::size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &action, &before_[i]);
    opened_ = true;
    ::signal(SIGPIPE, SIG_IGN);
    return {};
  }
  SignalPipe() = default;
  ~SignalPipe() {
    for (std::size_t i = 0; opened_ && i < kSignals.size(); ++i) ::sigaction(kSignals[i], &before_[i], nullptr);
  }
  SignalPipe(const SignalPipe&) = delete;
  SignalPipe& operator=(const SignalPipe&) = delete;

 private:
  static constexpr std::array kSignals = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH};
  std::array<struct sigaction, kSignals.size()> before_{};
  bool opened_ = false;
};

class Attachment {
 public:
  Attachment(UniqueFd fd, AttachOptions options)
      : fd_(std::move(fd)),
        options_(std::move(options)),
        reader_([this](wire::StdStream stream, std::string_view data) { take(stream, data); }) {}

  Result<int> run(const std::string& sandbox) {
    SBX_CHECK(upgrade(sandbox), "reaching the daemon");
    SBX_CHECK(send(kText, options_.command.dump(-1, ' ', false, json::error_handler_t::replace)),
              "sending the command");
    if (options_.stdin_fd < 0) SBX_CHECK(control({{"stdin_eof", true}}), "sending the command");
    for (;;) {
      SBX_CHECK(step(), "running the command");
      if (error_) return std::unexpected(*error_);
      if (status_) return exit_status(*status_);
      if (closed_) return fail(ErrorCode::kUnavailable, "the sandbox went away before the command ended");
    }
  }

 private:
  Result<void> upgrade(const std::string& sandbox) {
    SBX_CHECK(
        write_all(fd_.get(), "GET /v1/sandboxes/" + percent_encode(sandbox) +
                                 "/attach HTTP/1.1\r\nHost: sbx\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                 "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2J4c2J4c2J4c2J4c2J4eA==\r\n\r\n"),
        "asking the daemon");
    ResponseReader head(fd_.get());
    const int status = SBX_TRY(head.read_head(), "asking the daemon");
    if (status != 101) {
      std::string body = SBX_TRY(head.read_piece(), "asking the daemon");
      return std::unexpected(error_from(json::parse(body, nullptr, false)));
    }
    input_ = head.take_rest();
    return {};
  }

  // Clients mask (section 5.3); the mask protects proxies, of which there are none here.
  Result<void> send(unsigned opcode, std::string payload) {
    std::string frame(1, static_cast<char>(0x80U | opcode));
    if (payload.size() < 126) {
      frame += static_cast<char>(0x80U | payload.size());
    } else if (payload.size() < 65536) {
      frame += static_cast<char>(0x80U | 126U);
      for (int shift = 8; shift >= 0; shift -= 8)
        frame += static_cast<char>(payload.size() >> static_cast<unsigned>(shift));
    } else {
      frame += static_cast<char>(0x80U | 127U);
      for (int shift = 56; shift >= 0; shift -= 8)
        frame += static_cast<char>(payload.size() >> static_cast<unsigned>(shift));
    }
    const char mask[4] = {0x1f, 0x2e, 0x3d, 0x4c};
    frame.append(mask, 4);
    for (std::size_t i = 0; i < payload.size(); ++i) frame += static_cast<char>(payload[i] ^ mask[i % 4]);
    auto written = write_all(fd_.get(), frame);
    // The daemon closes its end when the command has ended: what it said before is what counts.
    if (!written) sending_failed_ = true;
    return {};
  }
  Result<void> control(const json& message) { return send(kBinary, "\x01" + message.dump()); }

  Result<void> step() {
    const bool stdin_open = options_.stdin_fd >= 0 && in_flight_ + kPiece <= kWindow && started_ && !sending_failed_;
    pollfd fds[3] = {
        {fd_.get(), POLLIN, 0}, {g_signal_pipe[0], POLLIN, 0}, {stdin_open ? options_.stdin_fd : -1, POLLIN, 0}};
    if (input_.empty() || !parse_frames()) {
      if (::poll(fds, 3, time_left()) < 0 && errno != EINTR) return fail_errno("waiting", errno);
      // Also of one that says something all the time.
      if (time_left() == 0) return fail(ErrorCode::kTimeout, "the command did not end in time");
    }
    if ((fds[0].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
      char piece[65536];
      const ssize_t got = ::recv(fd_.get(), piece, sizeof piece, MSG_DONTWAIT);
      if (got > 0)
        input_.append(piece, static_cast<std::size_t>(got));
      else if (got == 0 || (errno != EAGAIN && errno != EINTR))
        closed_ = true;
      parse_frames();
    }
    if ((fds[1].revents & POLLIN) != 0) SBX_CHECK(pass_signals(), "passing a signal on");
    if (fds[2].revents != 0 && !status_) SBX_CHECK(pass_stdin(), "passing stdin on");
    return {};
  }

  int time_left() const {
    if (!options_.deadline) return -1;
    const auto left = began_ + *options_.deadline - std::chrono::steady_clock::now();
    return static_cast<int>(std::max<std::int64_t>(std::chrono::ceil<std::chrono::milliseconds>(left).count(), 0));
  }

  Result<void> pass_signals() {
    char number = 0;
    while (::read(g_signal_pipe[0], &number, 1) == 1) {
      if (number == SIGWINCH) {
        const json size = terminal_size();
        if (options_.raw_terminal && !size.is_null()) SBX_CHECK(control({{"resize", size}}), "resizing");
      } else {
        if (number == SIGINT && ++interrupts_ >= 3) ::_exit(130);  // the closed socket ends the command
        SBX_CHECK(control({{"signal", static_cast<int>(number)}}), "signalling");
      }
    }
    return {};
  }

  Result<void> pass_stdin() {
    char piece[kPiece];
    const ssize_t got = ::read(options_.stdin_fd, piece, sizeof piece);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return {};
    if (got <= 0) {
      options_.stdin_fd = -1;
      return control({{"stdin_eof", true}});
    }
    in_flight_ += static_cast<std::size_t>(got);
    std::string message(1, '\0');
    message.append(piece, static_cast<std::size_t>(got));
    return send(kBinary, std::move(message));
  }

  // True if it consumed at least one frame.
  bool parse_frames() {
    bool any = false;
    std::size_t at = 0;
    while (input_.size() - at >= 2) {
      const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(input_[at + i]); };
      const bool final = (byte(0) & 0x80U) != 0;
      const unsigned opcode = byte(0) & 15U;
      std::uint64_t size = byte(1) & 127U;
      std::size_t head = 2;
      const std::size_t extra = size == 126 ? 2 : size == 127 ? 8 : 0;
      if (input_.size() - at < head + extra) break;
      if (extra != 0) {
        size = 0;
        for (std::size_t i = 0; i < extra; ++i) size = size << 8U | byte(2 + i);
        head += extra;
      }
      if (input_.size() - at < head + size) break;
      const std::string_view payload(input_.data() + at + head, size);
      handle(opcode, final, payload);
      at += head + size;
      any = true;
      if (closed_ || error_ || status_) break;
    }
    input_.erase(0, at);
    return any;
  }

  void handle(unsigned opcode, bool final, std::string_view payload) {
    if (opcode == kClose) {
      closed_ = true;
    } else if (opcode == kPing) {
      (void)send(kPong, std::string(payload));
    } else if (opcode == kText || opcode == kBinary || opcode == kContinuation) {
      if (opcode != kContinuation) text_ = opcode == kText;
      if (!text_) {
        if (auto fed = reader_.feed(payload); !fed && !error_) error_ = fed.error();
        return;
      }
      message_ += payload;
      if (!final) return;
      const json message = json::parse(message_, nullptr, false);
      message_.clear();
      if (!message.is_object()) return;
      if (message.contains("credit") && message["credit"].is_number())
        in_flight_ -= std::min(in_flight_, message["credit"].get<std::size_t>());
      if (message.contains("started")) started_ = true;
      if (message.contains("progress"))
        std::cerr << message.value("progress", "") << (options_.raw_terminal ? "\r\n" : "\n");
      if (message.contains("error")) error_ = error_from(message);
    }
  }

  void take(wire::StdStream stream, std::string_view data) {
    if (stream == wire::StdStream::kStatus) {
      status_ = json::parse(data, nullptr, false);
      return;
    }
    const int number = static_cast<int>(stream);
    auto done = options_.sink ? options_.sink(number, data) : write_all(number, data);
    if (!done && !error_) error_ = done.error();
  }

  UniqueFd fd_;
  AttachOptions options_;
  const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
  wire::StdcopyReader reader_;
  std::string input_;
  std::string message_;
  bool text_ = false;
  bool started_ = false;
  bool closed_ = false;
  bool sending_failed_ = false;
  int interrupts_ = 0;
  std::size_t in_flight_ = 0;
  std::optional<Error> error_;
  std::optional<json> status_;
};

}  // namespace

json terminal_size() {
  winsize size{};
  for (const int fd : {1, 0, 2}) {
    if (::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_row > 0) return {{"rows", size.ws_row}, {"cols", size.ws_col}};
  }
  return nullptr;
}

int exit_status(const json& status) {
  if (!status.is_object()) return 125;
  if (status.contains("error") && status["error"].is_string())
    std::cerr << "ERROR: " << visible(status["error"].get<std::string>(), "\n\t") << "\n";  // a guest's words
  if (status.contains("signal") && status["signal"].is_number_integer()) return 128 + status["signal"].get<int>();
  if (status.contains("exit_code") && status["exit_code"].is_number_integer()) return status["exit_code"].get<int>();
  return 125;
}

Result<int> attach(const ApiClient& client, const std::string& sandbox, AttachOptions options) {
  auto fd = SBX_TRY(client.connect(), "reaching the daemon");
  SignalPipe signals;
  SBX_CHECK(signals.open(), "running the command");
  const RawTerminal raw(options.raw_terminal);
  Attachment attachment(std::move(fd), std::move(options));
  return attachment.run(sandbox);
}

}  // namespace sbx::cli
