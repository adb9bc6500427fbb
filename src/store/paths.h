// Where an instance of sbx keeps its things. One value per process, computed once from the environment; any thread.
//
//   HOME/store.db  HOME/log/sbxd.log  HOME/images/  HOME/templates/  HOME/sandboxes/UUID/  HOME/run/
//
// HOME is $SBX_HOME (with --app-name NAME: "$SBX_HOME-NAME"), else ~/.local/share/sbx (~/.local/share/sbx-NAME).
// Unix sockets have 107 bytes for their path; where HOME/run would not leave room, `run` is a private folder under
// $XDG_RUNTIME_DIR or /tmp instead, named after the user and a hash of HOME.
#pragma once

#include <filesystem>
#include <string>

#include "base/result.h"

namespace sbx::store {

struct Paths {
  std::filesystem::path home;
  std::filesystem::path run;

  static Result<Paths> from_environment(const std::string& app_name);
  static Paths for_home(const std::filesystem::path& home);

  std::filesystem::path database() const { return home / "store.db"; }
  std::filesystem::path log_folder() const { return home / "log"; }
  std::filesystem::path daemon_log() const { return home / "log" / "sbxd.log"; }
  std::filesystem::path images() const { return home / "images"; }
  std::filesystem::path templates() const { return home / "templates"; }
  std::filesystem::path sandboxes() const { return home / "sandboxes"; }
  std::filesystem::path sandbox(const std::string& id) const { return sandboxes() / id; }
  // The runtime folder of a sandbox: sockets and exit record.
  std::filesystem::path runtime(const std::string& id) const { return run / id.substr(0, 8); }
  std::filesystem::path daemon_socket() const { return run / "sbxd.sock"; }
  std::filesystem::path daemon_lock() const { return home / "sbxd.lock"; }
  std::filesystem::path start_lock() const { return home / "start.lock"; }

  // Makes every folder, 0700; refuses (kDenied) a run folder that belongs to somebody else.
  Result<void> make() const;
};

// flock(2) on a file made for it; released when the returned descriptor is closed. With `wait` false a lock that
// somebody else holds is kConflict.
struct FileLockOptions {
  bool wait = true;
};
Result<class UniqueFdLock> lock_file(const std::filesystem::path& path, FileLockOptions options);

class UniqueFdLock {
 public:
  UniqueFdLock() = default;
  explicit UniqueFdLock(int fd) : fd_(fd) {}
  UniqueFdLock(UniqueFdLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFdLock& operator=(UniqueFdLock&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~UniqueFdLock();

 private:
  int fd_ = -1;
};

}  // namespace sbx::store
