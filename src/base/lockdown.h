// What every process that reads untrusted bytes gives up before it reads the first of them. Each step is for good and
// for this process and all it may start; call from the main thread, where possible while it is the only one.
// Sources: prctl(2), capabilities(7), seccomp(2), seccomp_rule_add(3).
#pragma once

#include <seccomp.h>

#include <cstdint>
#include <memory>
#include <span>

#include "base/result.h"

namespace sbx {

// No new privileges by execve(2), and no capability, not even as root.
Result<void> give_up_privileges();
// Nobody may look into this process: no ptrace, no core dump, no reading of its /proc but by root.
Result<void> forbid_inspection();

// Conditions on the argument `number` (0 to 5) of a system call: all of it, or the bits of `mask`.
constexpr scmp_arg_cmp argument_is(unsigned number, std::uint64_t value) { return {number, SCMP_CMP_EQ, value, 0}; }
constexpr scmp_arg_cmp argument_is_masked(unsigned number, std::uint64_t mask, std::uint64_t value) {
  return {number, SCMP_CMP_MASKED_EQ, mask, value};
}

// The system calls that the process may still make. All others fail with EPERM.
//   SystemCallFilter filter;
//   filter.allow(kEventLoopCalls);
//   filter.allow_if(SCMP_SYS(ioctl), argument_is(1, FIONBIO));
//   SBX_CHECK(filter.load(), "locking down");
class SystemCallFilter {
 public:
  SystemCallFilter();
  void allow(std::span<const int> calls);
  void allow_if(int call, scmp_arg_cmp condition);
  void allow_if(int call, scmp_arg_cmp condition, scmp_arg_cmp and_this);
  void refuse(int call, int error_number);
  // Threads that exist already are confined as well, not only this one and those it starts.
  void include_all_threads();
  // Takes effect now. Fails with the first mistake made in adding a rule, or if the kernel will not have it.
  Result<void> load();

 private:
  struct Release {
    void operator()(void* filter) const { seccomp_release(filter); }
  };
  std::unique_ptr<void, Release> filter_;
  int error_ = 0;
};

// What the C library and one thread with an event loop need to move bytes between descriptors that are open.
extern const std::span<const int> kEventLoopCalls;
// What starting threads and loading parts of the C library (name resolution) need on top.
extern const std::span<const int> kThreadCalls;

}  // namespace sbx
