// A point in time as RFC 3339 writes it, in UTC and whole seconds.
#pragma once

#include <chrono>
#include <string>

namespace sbx::keeper {

std::string rfc3339(std::chrono::system_clock::time_point time);

}  // namespace sbx::keeper
