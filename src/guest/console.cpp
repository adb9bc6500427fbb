#include "guest/console.h"

#include <fcntl.h>
#include <unistd.h>

#include <string>

namespace sbx::guest {
namespace {
int console_fd = -1;  // the process's own for its whole life
}

void open_console() { console_fd = ::open("/dev/console", O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK); }

void console_line(std::string_view line) {
  if (console_fd < 0) return;
  std::string text = "sbx-guest: ";
  text += line;
  text += '\n';
  if (::write(console_fd, text.data(), text.size()) < 0) return;  // nobody is left to tell
}

}  // namespace sbx::guest
