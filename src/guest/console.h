// Short lines to the VM's console ("sbx-guest: ..."): what a person or a test sees when nothing else works yet.
// Any thread or process; each line is one write(2).
#pragma once

#include <string_view>

namespace sbx::guest {

// Opens /dev/console; until then lines are lost.
void open_console();
void console_line(std::string_view line);

}  // namespace sbx::guest
