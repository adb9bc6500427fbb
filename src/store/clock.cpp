#include "store/clock.h"

#include <time.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

namespace sbx::store {

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string rfc3339(std::int64_t ms) {
  if (ms == 0) return "";
  const time_t seconds = ms / 1000;
  tm parts{};
  ::gmtime_r(&seconds, &parts);
  char day[32];
  std::strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &parts);
  char fraction[16];
  std::snprintf(fraction, sizeof fraction, ".%03dZ", static_cast<int>(ms % 1000));
  return std::string(day) + fraction;
}

Result<std::int64_t> parse_rfc3339(std::string_view text) {
  const std::string whole(text);
  tm parts{};
  const char* rest = ::strptime(whole.c_str(), "%Y-%m-%dT%H:%M:%S", &parts);
  const auto refuse = [&] { return fail(ErrorCode::kInvalid, "\"" + whole + "\" is not an RFC 3339 time"); };
  if (rest == nullptr) return refuse();
  std::int64_t ms = static_cast<std::int64_t>(::timegm(&parts)) * 1000;
  if (*rest == '.') {
    ++rest;
    int scale = 100;
    for (; *rest >= '0' && *rest <= '9'; ++rest, scale /= 10) ms += (*rest - '0') * scale;
  }
  if (*rest == 'Z' || *rest == 'z') {
    ++rest;
  } else {
    int hours = 0;
    int minutes = 0;
    int used = 0;
    char sign = 0;
    if (std::sscanf(rest, "%c%2d:%2d%n", &sign, &hours, &minutes, &used) != 3 || (sign != '+' && sign != '-'))
      return refuse();
    ms -= (sign == '+' ? 1 : -1) * (hours * 60LL + minutes) * 60'000;
    rest += used;
  }
  if (*rest != '\0') return refuse();
  return ms;
}

Result<std::int64_t> parse_duration(std::string_view text) {
  const std::string whole(text);
  const auto refuse = [&] {
    return fail(ErrorCode::kInvalid, "\"" + whole + "\" is not a length of time; write it like 30s, 15m or 168h");
  };
  if (whole.empty()) return refuse();
  double total = 0;
  for (const char* at = whole.c_str(); *at != '\0';) {
    if ((*at < '0' || *at > '9') && *at != '.') return refuse();
    char* end = nullptr;
    const double number = std::strtod(at, &end);
    const std::string_view unit(end);
    double scale = 0;
    std::size_t length = 1;
    if (unit.starts_with("ms")) {
      scale = 1;
      length = 2;
    } else if (unit.starts_with("h")) {
      scale = 3'600'000;
    } else if (unit.starts_with("m")) {
      scale = 60'000;
    } else if (unit.starts_with("s")) {
      scale = 1000;
    } else {
      return refuse();
    }
    total += number * scale;
    at = end + length;
  }
  if (total > 1e15) return refuse();
  return static_cast<std::int64_t>(total);
}

std::string describe_duration(std::int64_t ms) {
  const std::int64_t seconds = ms / 1000;
  const auto say = [](std::int64_t n, const char* unit) {
    return std::to_string(n) + " " + unit + (n == 1 ? "" : "s");
  };
  if (seconds < 60) return say(seconds, "second");
  if (seconds < 3600) return say(seconds / 60, "minute");
  if (seconds < 48 * 3600) return say(seconds / 3600, "hour");
  return say(seconds / 86400, "day");
}

}  // namespace sbx::store
