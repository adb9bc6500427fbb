// A program on a pseudo-terminal of its own, with the test as the person in front of it.
#pragma once

#include <sys/types.h>
#include <termios.h>

#include <string>
#include <vector>

#include "base/unique_fd.h"

namespace sbx::test {

// Killed (SIGKILL) and reaped at destruction if it still runs.
class Terminal {
 public:
  Terminal(const std::vector<std::string>& argv, unsigned short rows, unsigned short cols);
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  void type(const std::string& text);
  // Changes the window's size, as a terminal emulator does: the foreground process group gets SIGWINCH.
  void resize(unsigned short rows, unsigned short cols);
  // Reads until the output so far contains `text` (then drops everything up to its end); false after `seconds`.
  bool shows(const std::string& text, int seconds = 60);
  // Waits for the program's end; its exit status, 128 + signal, or -1 after `seconds`.
  int finish(int seconds = 60);
  termios attributes() const;
  const std::string& screen() const { return screen_; }  // what shows() has not consumed
  pid_t pid() const { return pid_; }

 private:
  bool read_some(int milliseconds);
  UniqueFd master_;
  pid_t pid_ = -1;
  std::string screen_;
};

}  // namespace sbx::test
