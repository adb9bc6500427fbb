#include "terminal.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>

#include "base/file.h"

namespace sbx::test {

using Clock = std::chrono::steady_clock;

Terminal::Terminal(const std::vector<std::string>& argv, unsigned short rows, unsigned short cols) {
  std::vector<char*> pointers;
  for (const auto& word : argv) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  const winsize size{rows, cols, 0, 0};
  int master = -1;
  pid_ = ::forkpty(&master, nullptr, nullptr, &size);
  if (pid_ == 0) {
    ::execv(pointers[0], pointers.data());
    ::_exit(127);
  }
  EXPECT_GT(pid_, 0);
  master_.reset(master);
}

Terminal::~Terminal() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void Terminal::type(const std::string& text) { EXPECT_TRUE(write_all(master_.get(), text)); }

void Terminal::resize(unsigned short rows, unsigned short cols) {
  const winsize size{rows, cols, 0, 0};
  EXPECT_EQ(::ioctl(master_.get(), TIOCSWINSZ, &size), 0);
}

bool Terminal::read_some(int milliseconds) {
  pollfd waiting{master_.get(), POLLIN, 0};
  if (::poll(&waiting, 1, milliseconds) <= 0) return true;
  char piece[4096];
  const ssize_t got = ::read(master_.get(), piece, sizeof piece);  // EIO once nobody has the other end open
  if (got > 0) screen_.append(piece, static_cast<std::size_t>(got));
  return got > 0;
}

bool Terminal::shows(const std::string& text, int seconds) {
  const auto until = Clock::now() + std::chrono::seconds(seconds);
  for (bool open = true;;) {
    if (const auto at = screen_.find(text); at != std::string::npos) {
      screen_.erase(0, at + text.size());
      return true;
    }
    if (!open || Clock::now() > until) return false;
    open = read_some(100);
  }
}

int Terminal::finish(int seconds) {
  const auto until = Clock::now() + std::chrono::seconds(seconds);
  for (;;) {
    const bool open = read_some(50);  // a program may wait for its last output to be read
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) == pid_) {
      while (read_some(0) && ::poll(nullptr, 0, 0) == 0 && Clock::now() < until) {
        pollfd more{master_.get(), POLLIN, 0};
        if (::poll(&more, 1, 0) <= 0) break;
      }
      pid_ = -1;
      return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    }
    if (Clock::now() > until) return -1;
    if (!open) ::poll(nullptr, 0, 10);
  }
}

termios Terminal::attributes() const {
  termios result{};
  EXPECT_EQ(::tcgetattr(master_.get(), &result), 0);
  return result;
}

}  // namespace sbx::test
