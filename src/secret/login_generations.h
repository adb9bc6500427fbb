// Which logins of a sandbox are those of now: for each sandbox and service a number that grows when the user removes
// the login. A gateway is told the number with its credentials and names it with what it sends; what comes with an
// older one is of a login that was removed meanwhile, and must not come back. Gateways outlive the daemon, and so do
// the numbers: they are in a file, which holds no secret. Blocking; one thread at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "base/result.h"

namespace sbx::secret {

class LoginGenerations {
 public:
  explicit LoginGenerations(std::filesystem::path file) : file_(std::move(file)) {}

  // 0: none was ever removed. kInvalid: the file is damaged.
  Result<std::uint64_t> of(const std::string& sandbox_id, const std::string& service);
  // On the disk when it returns.
  Result<void> advance(const std::string& sandbox_id, const std::string& service);
  // Of a sandbox that is gone.
  Result<void> forget_sandbox(const std::string& sandbox_id);
  // Everything, also what is damaged.
  Result<void> forget_all();

 private:
  using Numbers = std::map<std::string, std::map<std::string, std::uint64_t>>;  // by sandbox, by service
  Result<void> load();
  Result<void> save(Numbers numbers);

  std::filesystem::path file_;
  bool loaded_ = false;
  Numbers numbers_;
};

}  // namespace sbx::secret
