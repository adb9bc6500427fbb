// What sbx-keeper-worker could do once a guest has taken it over: started in the worker's jail (or, to prove that the
// attacks themselves work, without any), it tries everything, locks itself down as the worker does, and tries again.
//
// Arguments as the worker's (src/keeper/worker_jail.h): to the first descriptor it writes one line "PHASE ATTACK
// done|refused" each; from the second it reads lines NAME VALUE, its targets; the third is a UDP socket and the fourth
// a TCP socket that is not connected, both of the host's network.
#include <dirent.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <sstream>
#include <string>

#include "base/sanitizers.h"
#include "base/unique_fd.h"
#include "keeper/worker_lockdown.h"

#if SBX_ADDRESS_SANITIZER
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }
#endif

namespace {

using sbx::UniqueFd;
using Attack = std::function<bool()>;  // whether it got through

std::map<std::string, std::string> targets;
int report_fd = -1;
int packet_fd = -1;
int tcp_fd = -1;
std::string phase;

void attempt(const std::string& name, const Attack& attack) {
  const std::string line = phase + " " + name + (attack() ? " done\n" : " refused\n");
  if (::write(report_fd, line.data(), line.size()) < 0) ::_exit(9);
}

bool opens(const std::string& path, int flags = O_RDONLY) { return UniqueFd(::open(path.c_str(), flags)).valid(); }

bool connects(int family, const sockaddr* address, socklen_t size) {
  const UniqueFd fd(::socket(family, SOCK_STREAM, 0));
  return fd.valid() && ::connect(fd.get(), address, size) == 0;
}

sockaddr_in loopback(const std::string& port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(std::atoi(port.c_str())));
  return address;
}

bool sends_to_port(int fd, int flags) {
  const sockaddr_in address = loopback(targets["port"]);
  return ::sendto(fd, "x", 1, flags, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 1;
}

bool sends_message_to_port(int fd, int flags) {
  sockaddr_in address = loopback(targets["port"]);
  char byte = 'x';
  iovec part{&byte, 1};
  msghdr header{};
  header.msg_name = &address;
  header.msg_namelen = sizeof address;
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  return ::sendmsg(fd, &header, flags) == 1;
}

bool connects_to_port(const std::string& port) {
  const sockaddr_in address = loopback(port);
  return connects(AF_INET, reinterpret_cast<const sockaddr*>(&address), sizeof address);
}

// A path, or with `abstract` a name in the network namespace's own table.
bool connects_to_socket(const std::string& name, bool abstract) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  name.copy(address.sun_path + (abstract ? 1 : 0), sizeof address.sun_path - 2);
  const auto size = offsetof(sockaddr_un, sun_path) + 1 + name.size();
  return connects(AF_UNIX, reinterpret_cast<const sockaddr*>(&address), static_cast<socklen_t>(size));
}

// In a child, so that a success does not end the probe.
bool in_child(const std::function<void()>& action) {
  const pid_t child = ::fork();
  if (child < 0) return false;
  if (child == 0) {
    action();
    ::_exit(77);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool maps_code() {
  void* memory = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  ::munmap(memory, 4096);
  return true;
}

bool makes_data_code() {
  void* memory = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  const bool done = ::mprotect(memory, 4096, PROT_READ | PROT_EXEC) == 0;
  ::munmap(memory, 4096);
  return done;
}

// What the host's walls alone must hold: the jail of worker_command().
void attack_the_host() {
  attempt("open /etc/passwd", [] { return opens("/etc/passwd"); });
  attempt("open another sandbox's folder", [] { return opens(targets["folder"], O_RDONLY | O_DIRECTORY); });
  attempt("read another sandbox's disk", [] { return opens(targets["disk"]); });
  attempt("make a file beside it", [] { return opens(targets["folder"] + "/new", O_CREAT | O_WRONLY); });
  attempt("connect to the daemon's socket", [] { return connects_to_socket(targets["socket"], false); });
  attempt("connect to an abstract socket", [] { return connects_to_socket(targets["abstract"], true); });
  attempt("connect to the network", [] { return connects_to_port(targets["port"]); });
  attempt("send a packet to an address", [] { return sends_to_port(packet_fd, 0); });
  // Those two end in EINPROGRESS at best where nothing forbids them, since the socket does not block.
  attempt("connect by sending", [] { return sends_to_port(tcp_fd, MSG_FASTOPEN) || errno != EPERM; });
  attempt("connect by a message", [] { return sends_message_to_port(tcp_fd, MSG_FASTOPEN) || errno != EPERM; });
  attempt("connect a socket of the host's", [] {
    const sockaddr_in address = loopback(targets["port"]);
    return ::connect(packet_fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  });
  attempt("let others share a port", [] {
    const int on = 1;
    return ::setsockopt(packet_fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0;
  });
  attempt("see the host's processes", [] { return ::kill(std::atoi(targets["pid"].c_str()), 0) == 0; });
  attempt("trace a process of the host", [] {
    const pid_t pid = std::atoi(targets["pid"].c_str());
    return ::ptrace(PTRACE_SEIZE, pid, nullptr, nullptr) == 0 ||
           (errno == EPERM && phase != "locked");  // it is there; the filter says EPERM to everything
  });
  attempt("open a descriptor anew", [] { return opens("/proc/self/fd/" + std::to_string(report_fd), O_WRONLY); });
  // In namespaces of a child's own, so that nothing is mounted where the probe has every right.
  attempt("mount", [] {
    return in_child([] {
      if (::unshare(CLONE_NEWNS) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) ::_exit(1);
      if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) ::_exit(1);
      ::_exit(::mount("none", "/tmp", "tmpfs", 0, nullptr) == 0 ? 0 : 1);
    });
  });
  attempt("give a file away", [] {
    const UniqueFd file(::open("/tmp", O_TMPFILE | O_RDWR, 0600));
    return file.valid() && ::fchown(file.get(), 0, 0) == 0 && ::geteuid() != 0;
  });
}

// What the worker has given up on top.
void attack_the_kernel() {
  attempt("open a program", [] { return opens("/usr/bin/env"); });
  attempt("stat a path", [] {
    struct stat status {};
    return ::stat("/usr/bin/env", &status) == 0;
  });
  attempt("make a file", [] { return opens("/tmp", O_TMPFILE | O_WRONLY); });
  attempt("unlink", [] { return ::unlink("/tmp/no-such-file") == 0 || errno == ENOENT; });
  attempt("exec", [] { return in_child([] { ::execl("/usr/bin/true", "true", nullptr); }); });
  attempt("exec without a child", [] {
    // Only where it cannot succeed any more: it would end the probe.
    if (phase != "locked") return true;
    ::execl("/usr/bin/true", "true", nullptr);
    return false;
  });
  attempt("fork", [] { return in_child([] { ::_exit(0); }); });
  attempt("be traced",
          [] { return in_child([] { ::_exit(::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) == 0 ? 0 : 1); }); });
  attempt("read memory through the kernel", [] {
    char from = 1;
    char to = 0;
    const iovec local{&to, 1};
    const iovec remote{&from, 1};
    return ::process_vm_readv(::getpid(), &local, 1, &remote, 1, 0) == 1;
  });
  attempt("signal init", [] { return ::kill(1, 0) == 0; });
  attempt("signal its group", [] { return ::kill(0, 0) == 0; });
  attempt("make a unix socket", [] { return UniqueFd(::socket(AF_UNIX, SOCK_STREAM, 0)).valid(); });
  attempt("make an internet socket", [] { return UniqueFd(::socket(AF_INET, SOCK_DGRAM, 0)).valid(); });
  attempt("make a netlink socket", [] { return UniqueFd(::socket(AF_NETLINK, SOCK_RAW, 0)).valid(); });
  attempt("make a pair of sockets", [] {
    int fds[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0) return false;
    ::close(fds[0]);
    ::close(fds[1]);
    return true;
  });
  attempt("map code", [] { return maps_code(); });
  attempt("turn data into code", [] { return makes_data_code(); });
  attempt("make a memory file", [] { return UniqueFd(::memfd_create("x", 0)).valid(); });
  attempt("io_uring", [] {
    io_uring_params parameters{};
    return UniqueFd(static_cast<int>(::syscall(SYS_io_uring_setup, 4, &parameters))).valid() || errno == EFAULT ||
           phase != "locked";
  });
  attempt("change limits", [] {
    rlimit limit{};
    return ::getrlimit(RLIMIT_FSIZE, &limit) == 0 && ::setrlimit(RLIMIT_FSIZE, &limit) == 0;
  });
  attempt("become dumpable", [] { return ::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0; });
  attempt("name an owner for signals", [] { return ::fcntl(report_fd, F_SETOWN, ::getpid()) == 0; });
  attempt("chdir", [] { return ::chdir("/") == 0; });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  ::signal(SIGPIPE, SIG_IGN);
  report_fd = std::atoi(argv[1]);
  packet_fd = std::atoi(argv[3]);
  tcp_fd = std::atoi(argv[4]);
  std::string text(65536, '\0');
  const ssize_t n = ::read(std::atoi(argv[2]), text.data(), text.size());
  if (n <= 0) return 3;
  text.resize(static_cast<std::size_t>(n));
  std::istringstream lines(text);
  for (std::string name, value; lines >> name >> value;) targets[name] = value;

  phase = "jailed";
  attack_the_host();
  attack_the_kernel();
  if (const auto locked = sbx::keeper::lock_worker_down(); !locked) {
    std::fprintf(stderr, "%s\n", locked.error().describe().c_str());
    return 4;
  }
  phase = "locked";
  attack_the_host();
  attack_the_kernel();
  attempt("reach the end", [] { return false; });
  return 0;
}
