// What the guest has changed, and what of that is protected: a file of the sandbox's that outlives the server, written
// by sbx-files and read by sbxd (sandbox/changes.h). Lines of ASCII; a path's other bytes, blanks and '%' are %XX:
//
//   N WORKSPACE PATH             made where nothing was
//   O WORKSPACE FROM SIZE MODE PATH   was there before: its contents then are SIZE bytes at FROM of the other file, or
//                                - -; MODE is st_mode in octal, or -
//   P COUNT MS KIND WORKSPACE PATH   a protected path: how often, when last (COUNT and MS have a fixed width, and are
//                                    overwritten in place); KIND is what was done, "denied-" in front if refused
//   X changes, X reports         there was no more room: the list of these is incomplete
//   X lost                       the disk was full, or the like
//
// Each path is told once, at its first change: what has become of it is seen by looking. Nothing is told of what lies
// in a folder that the guest has made, or moved to where it is. Of git's objects, which are many and none of them
// anything to look at, only their folder is told.
// Thread safety: none.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_set>

#include "base/unique_fd.h"

namespace sbx::files {

class Journal {
 public:
  struct Limits {
    std::size_t bytes = 8U << 20U;  // of changes
    std::size_t paths = 1U << 16U;
    std::size_t reports = 1000;
    std::size_t report_bytes = 4U << 20U;
    std::size_t before_each = 1U << 20U;
    std::size_t before_all = 64U << 20U;
  };

  // Goes on with what is in `file` already (both are open to read and write; `before` may be none).
  Journal(UniqueFd file, UniqueFd before, Limits limits);
  Journal(UniqueFd file, UniqueFd before) : Journal(std::move(file), std::move(before), Limits{}) {}

  void made(unsigned workspace, std::string_view path);
  // Whether a change there need not be told of any more.
  bool knows(unsigned workspace, std::string_view path) const;
  // `path_fd`: the file as it was, for its contents; -1 or another than a regular file's: none are kept.
  void changed(unsigned workspace, std::string_view path, int path_fd);
  void protected_change(unsigned workspace, std::string_view path, std::string_view kind);

 private:
  void load();
  bool append(std::string_view line);
  bool write_line(std::string_view line);
  bool add_change(const std::string& key, const std::string& line);
  // "FROM SIZE MODE"
  std::string describe_before(int path_fd);
  // "FROM SIZE" of the contents, or "- -" if the file is too large, unreadable or no file.
  std::string keep_before(int path_fd, const struct statx& status);

  struct Report {
    std::size_t at = 0;  // of its line
    std::uint64_t count = 0;
  };

  UniqueFd file_;
  UniqueFd before_;
  Limits limits_;
  std::size_t size_ = 0;
  std::size_t before_size_ = 0;
  std::size_t report_bytes_ = 0;
  bool full_ = false;
  bool reports_full_ = false;
  bool lost_ = false;                      // something could not be written
  std::unordered_set<std::string> known_;  // "WORKSPACE PATH"
  std::unordered_set<std::string> made_;
  std::map<std::string, Report> reports_;  // "KIND WORKSPACE PATH"
};

}  // namespace sbx::files
