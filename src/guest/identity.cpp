#include "guest/identity.h"

#include <fcntl.h>
#include <linux/random.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/file.h"
#include "guest/authorities.h"
#include "guest/overwrite.h"

namespace sbx::guest {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;

// random(4): credit the host's bytes, and reseed at once instead of at the next interval, so that no clone draws what
// its sibling drew.
Result<void> add_entropy(std::string_view bytes) {
  const auto random = SBX_TRY(open_file("/dev/urandom", O_RDWR), "adding entropy");
  std::vector<int> request(2 + (bytes.size() + sizeof(int) - 1) / sizeof(int));  // struct rand_pool_info
  request[0] = static_cast<int>(bytes.size() * 8);
  request[1] = static_cast<int>(bytes.size());
  std::memcpy(request.data() + 2, bytes.data(), bytes.size());
  if (::ioctl(random.get(), RNDADDENTROPY, request.data()) != 0) return fail_errno("adding entropy", errno);
  if (::ioctl(random.get(), RNDRESEEDCRNG) != 0) return fail_errno("reseeding", errno);
  return {};
}

Result<void> set_hostname(const std::string& hostname) {
  if (::sethostname(hostname.data(), hostname.size()) != 0) return fail_errno("setting the hostname", errno);
  SBX_CHECK(overwrite("/etc/hostname", hostname + "\n"), "setting the hostname");
  const auto hosts = read_file("/etc/hosts", 1U << 20U);
  return overwrite("/etc/hosts", hosts_with(hosts ? std::string_view(*hosts) : "127.0.0.1\tlocalhost\n", hostname));
}

}  // namespace

Result<std::string> decode_base64(std::string_view text) {
  constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  while (!text.empty() && text.back() == '=') text.remove_suffix(1);
  std::string bytes;
  unsigned value = 0;
  int bits = 0;
  for (const char c : text) {
    const auto digit = kAlphabet.find(c);
    if (digit == std::string_view::npos) return fail(ErrorCode::kInvalid, "malformed base64");
    value = value << 6U | static_cast<unsigned>(digit);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes += static_cast<char>(value >> static_cast<unsigned>(bits) & 0xffU);
    }
  }
  return bytes;
}

Result<Identity> parse_identity(std::string_view text) {
  Identity identity;
  std::string entropy;
  try {
    const auto json = nlohmann::json::parse(text);
    identity.hostname = json.value("hostname", "");
    identity.machine_id = json.value("machine_id", "");
    entropy = json.value("entropy", "");
    identity.time_ns = json.value("time_ns", std::int64_t{0});
    identity.environment = json.value("environment", std::vector<std::string>());
    identity.sandbox_id = json.value("sandbox_id", "");
    identity.authorities = json.value("authorities", std::vector<std::string>());
    identity.ssh_agent = json.value("ssh_agent", false);
  } catch (const nlohmann::json::exception& error) {
    return fail(ErrorCode::kInvalid, std::string("the identity is malformed: ") + error.what());
  }
  identity.entropy = SBX_TRY(decode_base64(entropy), "reading the entropy");
  if (identity.entropy.size() > 4096) return fail(ErrorCode::kInvalid, "more than 4096 bytes of entropy");
  const auto is_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  if (!identity.machine_id.empty() &&
      (identity.machine_id.size() != 32 || !std::ranges::all_of(identity.machine_id, is_hex))) {
    return fail(ErrorCode::kInvalid, "a machine id is 32 lower-case hexadecimal digits");
  }
  const auto in_name = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '.' || c == '_';
  };
  if (identity.hostname.size() > 64 || !std::ranges::all_of(identity.hostname, in_name)) {
    return fail(ErrorCode::kInvalid, "not a hostname: " + identity.hostname);
  }
  return identity;
}

std::string hosts_with(std::string_view hosts, std::string_view hostname) {
  std::string result;
  std::istringstream lines{std::string(hosts)};
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("127.0.1.1")) result += line + "\n";
  }
  return result + "127.0.1.1\t" + std::string(hostname) + "\n";
}

std::string profile_script(const std::vector<std::string>& environment) {
  std::string script = "# Written by sbx-guest: the sandbox's environment, for shells that sudo or su has stripped.\n";
  for (const auto& entry : environment) {
    const auto equals = entry.find('=');
    if (equals == std::string::npos || equals == 0) continue;
    std::string quoted;
    for (const char c : entry.substr(equals + 1)) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
    script += "export " + entry.substr(0, equals) + "='" + quoted + "'\n";
  }
  return script;
}

Result<void> set_clock(std::int64_t time_ns) {
  const timespec now{time_ns / kSecond, time_ns % kSecond};
  if (::clock_settime(CLOCK_REALTIME, &now) != 0) return fail_errno("setting the clock", errno);
  return {};
}

Result<void> apply_identity(const Identity& identity) {
  if (identity.time_ns > 0) SBX_CHECK(set_clock(identity.time_ns), "applying the identity");
  if (!identity.entropy.empty()) SBX_CHECK(add_entropy(identity.entropy), "applying the identity");
  if (!identity.hostname.empty()) SBX_CHECK(set_hostname(identity.hostname), "applying the identity");
  if (!identity.machine_id.empty()) {
    SBX_CHECK(overwrite("/etc/machine-id", identity.machine_id + "\n"), "applying the identity");
  }
  if (!identity.sandbox_id.empty())
    SBX_CHECK(overwrite("/run/sbx/id", identity.sandbox_id + "\n"), "applying the identity");
  SBX_CHECK(trust_authorities(identity.authorities), "applying the identity");
  ::mkdir("/etc/profile.d", 0755);
  return overwrite("/etc/profile.d/sbx-identity.sh", profile_script(identity.environment));
}

}  // namespace sbx::guest
