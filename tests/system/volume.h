// A file system of its own for an instance of its own: to cut its power, or to fill it. Needs root and mount(2).
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "base/file.h"

namespace sbx::test {

class Volume {
 public:
  // Mounted, and $SBX_HOME is in it until the end: with the images and templates of the instance that was there, but
  // without its sandboxes. Everything that runs in it is killed at the end. nullptr where it cannot be made.
  static std::unique_ptr<Volume> ext4(const std::string& size);
  static std::unique_ptr<Volume> tmpfs(const std::string& size);
  ~Volume();

  // As if the power went: nothing that has not reached the disk by now will, and every process is gone. Then the file
  // system is mounted again, which replays its journal. ext4 only.
  void cut_power();
  // Takes all the space that is left but `spare` bytes.
  void fill(std::uint64_t spare = 0);
  void make_room();

 private:
  explicit Volume(TemporaryFolder folder);
  bool mount();
  void unmount();
  void use_as_home();
  void kill_everybody();

  TemporaryFolder folder_;
  std::string type_;
  std::string source_;
  std::string options_;
  std::string old_home_;
  bool mounted_ = false;
};

}  // namespace sbx::test
