// What happens to host files and folders, by inotify(7): each watched inode has a number, each event names one.
// Adding a watch and then looking gives a picture that the coming events keep true. Thread safety: none.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"
#include "files/message.h"

namespace sbx::files {

class HostWatch {
 public:
  struct Event {
    int watch = -1;          // -1: events were lost
    std::uint32_t mask = 0;  // inotify(7)
    std::string_view name;   // of the folder's entry that it is about; empty: the watched inode itself
  };

  static Result<HostWatch> make();

  // The number for the inode behind `path_fd`; the same inode has the same number. ENOSPC when the user's watches
  // (fs.inotify.max_user_watches) are used up.
  Outcome<int> add_folder(int path_fd);
  Outcome<int> add_file(int path_fd);
  void remove(int watch);
  // Every event so far, oldest first. Does not block.
  void drain(const std::function<void(const Event&)>& each);
  // Readable when there are events.
  int fd() const { return fd_.get(); }

 private:
  explicit HostWatch(UniqueFd fd) : fd_(std::move(fd)) {}
  Outcome<int> add(int path_fd, std::uint32_t mask);
  UniqueFd fd_;
};

}  // namespace sbx::files
