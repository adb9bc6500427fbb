#include "cli/read_secret.h"

#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <iostream>

namespace sbx::cli {
namespace {

constexpr std::size_t kLargest = 64U << 10U;

// Neither echo nor line editing nor signals from the keyboard: Ctrl-C must not leave the terminal silent.
class SilentTerminal {
 public:
  SilentTerminal() {
    ok_ = ::tcgetattr(0, &before_) == 0;
    termios silent = before_;
    silent.c_lflag &= ~static_cast<tcflag_t>(ECHO | ICANON | ISIG);
    silent.c_cc[VMIN] = 1;
    silent.c_cc[VTIME] = 0;
    ok_ = ok_ && ::tcsetattr(0, TCSAFLUSH, &silent) == 0;
  }
  ~SilentTerminal() {
    if (ok_) ::tcsetattr(0, TCSAFLUSH, &before_);
  }
  SilentTerminal(const SilentTerminal&) = delete;
  SilentTerminal& operator=(const SilentTerminal&) = delete;
  bool ok() const { return ok_; }

 private:
  termios before_{};
  bool ok_ = false;
};

// The number of bytes read; 0 at the end.
Result<std::size_t> read_some(LockedString& into, std::size_t most) {
  for (;;) {
    const auto room = SBX_TRY(into.prepare(most), "reading the secret");
    const ssize_t got = ::read(0, room.data(), room.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno("reading the secret", errno);
    into.commit(static_cast<std::size_t>(got));
    if (into.size() > kLargest) return fail(ErrorCode::kInvalid, "the secret is longer than 64 KiB");
    return static_cast<std::size_t>(got);
  }
}

Result<LockedString> read_line() {
  constexpr char kInterrupt = 3, kEndOfFile = 4, kBackspace = 8, kEraseLine = 21, kDelete = 127;
  LockedString line;
  for (;;) {
    if (SBX_TRY(read_some(line, 1), "reading the secret") == 0) return line;
    const char c = line.reveal().back();
    if (c == kInterrupt) return fail(ErrorCode::kInvalid, "cancelled");
    const bool control =
        c == kEndOfFile || c == kBackspace || c == kEraseLine || c == kDelete || c == '\n' || c == '\r';
    if (control) line.shrink_to(line.size() - 1);
    if (c == '\n' || c == '\r' || c == kEndOfFile) return line;
    if ((c == kBackspace || c == kDelete) && !line.empty()) line.shrink_to(line.size() - 1);
    if (c == kEraseLine) line.shrink_to(0);
  }
}

}  // namespace

Result<LockedString> read_secret(const std::string& prompt) {
  LockedString secret;
  if (::isatty(0) == 0) {
    while (SBX_TRY(read_some(secret, 4096), "reading the secret") > 0) {
    }
  } else {
    const SilentTerminal terminal;
    if (!terminal.ok()) return fail(ErrorCode::kInvalid, "the terminal's echo cannot be turned off; pipe the value in");
    std::cerr << prompt << std::flush;
    auto line = read_line();
    std::cerr << "\n";
    secret = SBX_TRY(std::move(line), "reading the secret");
  }
  const auto end = secret.reveal().find_last_not_of(" \t\r\n");
  secret.shrink_to(end == std::string_view::npos ? 0 : end + 1);
  if (secret.empty()) return fail(ErrorCode::kInvalid, "the secret is empty");
  return secret;
}

}  // namespace sbx::cli
