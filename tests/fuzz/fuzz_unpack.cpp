// A tar stream from a hostile sandbox: whatever it is, what lies beside the destination stays as it is. Raw bytes
// rarely have the right checksums, so half of the inputs are a list of members instead, of which an archive is made.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "archive/tar_test_support.h"
#include "archive/unpack.h"
#include "base/file.h"

namespace {

namespace fs = std::filesystem;

// On tmpfs: every input makes and removes files.
struct World {
  sbx::TemporaryFolder folder =
      sbx::TemporaryFolder::make("sbx-fuzz", fs::is_directory("/dev/shm") ? "/dev/shm" : "").value();
  World() {
    fs::create_directory(folder.path() / "target");
    if (!sbx::write_file_atomically(folder.path() / "outside", "mine")) std::abort();
  }
  void check() const {
    if (sbx::read_file(folder.path() / "outside").value_or("") != "mine") std::abort();
    if (fs::hard_link_count(folder.path() / "outside") != 1) std::abort();
    std::size_t entries = 0;
    for ([[maybe_unused]] const auto& entry : fs::directory_iterator(folder.path())) ++entries;
    if (entries != 2) std::abort();
  }
  void clean() const {
    const auto target = folder.path() / "target";
    std::error_code error;
    // As root nothing is too locked to be removed; else folders without permissions are opened first.
    for (auto it = fs::recursive_directory_iterator(target, error); it != fs::recursive_directory_iterator();
         it.increment(error)) {
      if (it->symlink_status(error).type() == fs::file_type::directory) ::chmod(it->path().c_str(), 0700);
    }
    fs::remove_all(target, error);
    fs::create_directory(target, error);
  }
};

std::vector<sbx::archive::Member> members_from(std::string_view bytes) {
  constexpr unsigned kTypes[] = {AE_IFREG, AE_IFDIR, AE_IFLNK, AE_IFIFO, AE_IFCHR, 0};
  // What an attacker would try, for the fuzzer to put together.
  constexpr std::string_view kNames[] = {"a", "b",          "a/b", "a/b/c", "..", "a/..", "a/../../outside",
                                         "/", "../outside", ".",   "./a",   "a/"};
  const auto name = [&] {
    if (bytes.empty()) return std::string("a");
    const auto choice = static_cast<unsigned char>(bytes.front());
    bytes.remove_prefix(1);
    if (choice < std::size(kNames)) return std::string(kNames[choice]);
    const std::string text(bytes.substr(0, choice % 32U));
    bytes.remove_prefix(text.size());
    return text;
  };
  std::vector<sbx::archive::Member> members;
  while (!bytes.empty() && members.size() < 32) {
    const unsigned type = kTypes[static_cast<unsigned char>(bytes.front()) % std::size(kTypes)];
    bytes.remove_prefix(1);
    sbx::archive::Member member{name(), type == 0 ? unsigned{AE_IFREG} : type};
    if (type == 0) member.hard_link = name();
    if (type == AE_IFREG || type == AE_IFLNK) member.content = name();
    members.push_back(std::move(member));
  }
  return members;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const World world;
  if (size < 1) return 0;
  const sbx::UniqueFd input(::memfd_create("tar", MFD_CLOEXEC));
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const bool raw = (data[0] & 4U) != 0;
  (void)sbx::write_all(input.get(), raw ? bytes : std::string_view(sbx::archive::tar_of(members_from(bytes))));
  ::lseek(input.get(), 0, SEEK_SET);
  const auto folder = sbx::open_file(world.folder.path() / "target", O_PATH | O_DIRECTORY).value();
  sbx::archive::UnpackOptions options;
  options.input = input.get();
  options.folder = folder.get();
  options.name = (data[0] & 1U) != 0 ? "" : "name";
  options.folder_only = (data[0] & 2U) != 0;
  (void)sbx::archive::unpack(options);
  world.check();
  world.clean();
  return 0;
}
