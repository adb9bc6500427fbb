#include "gateway/test_network.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "base/command.h"
#include "base/file.h"

namespace sbx::gateway::test {
namespace {

Result<void> put(const std::string& path, const std::string& text) {
  const auto fd = SBX_TRY(open_file(path, O_WRONLY), "writing " + path);
  return write_all(fd.get(), text);
}

Result<void> configure(int fd, const std::string& name, const std::string& address) {
  ifreq request{};
  name.copy(request.ifr_name, IFNAMSIZ - 1);
  if (!address.empty()) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    if (::inet_pton(AF_INET, address.c_str(), &in.sin_addr) != 1) return fail(ErrorCode::kInvalid, address);
    std::memcpy(&request.ifr_addr, &in, sizeof(in));
    if (::ioctl(fd, SIOCSIFADDR, &request) != 0) return fail_errno("giving loopback " + address, errno);
  }
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  if (::ioctl(fd, SIOCSIFFLAGS, &request) != 0) return fail_errno("bringing loopback up", errno);
  return {};
}

Result<void> replace_file(const std::string& path, const std::string& text) {
  char temporary[] = "/tmp/sbx-test-network-XXXXXX";
  const UniqueFd fd(::mkstemp(temporary));
  if (!fd.valid()) return fail_errno("mkstemp", errno);
  SBX_CHECK(write_all(fd.get(), text), "writing " + path);
  ::chmod(temporary, 0644);
  const int rc = ::mount(temporary, path.c_str(), nullptr, MS_BIND, nullptr);
  ::unlink(temporary);
  if (rc != 0) return fail_errno("binding " + path, errno);
  return {};
}

}  // namespace

Result<void> enter_test_network(const std::vector<std::string>& addresses, const std::string& own_address,
                                const std::string& hosts) {
  const auto uid = ::getuid();
  const auto gid = ::getgid();
  if (::unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET) != 0) return fail_errno("unshare", errno);
  SBX_CHECK(put("/proc/self/setgroups", "deny"), "entering a user namespace");
  SBX_CHECK(put("/proc/self/uid_map", "0 " + std::to_string(uid) + " 1"), "entering a user namespace");
  SBX_CHECK(put("/proc/self/gid_map", "0 " + std::to_string(gid) + " 1"), "entering a user namespace");
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return fail_errno("making mounts private", errno);
  const UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  SBX_CHECK(configure(fd.get(), "lo", ""), "setting up the network");
  for (std::size_t i = 0; i < addresses.size(); ++i) {
    SBX_CHECK(configure(fd.get(), "lo:" + std::to_string(i + 1), addresses[i]), "setting up the network");
  }
  // All of them are this host's; what is sent to the servers' must not look so.
  for (const auto& address : addresses) {
    if (address == own_address) continue;
    SBX_CHECK(Command({"/sbin/ip", "route", "replace", "local", address + "/32", "dev", "lo", "table", "local", "src",
                       "127.0.0.1"})
                  .output(),
              "making " + address + " a stranger's");
  }
  SBX_CHECK(replace_file("/etc/hosts", hosts), "setting up names");
  return replace_file("/etc/resolv.conf", "nameserver 127.0.0.53\noptions timeout:1 attempts:1\n");
}

}  // namespace sbx::gateway::test
