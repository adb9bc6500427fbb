// What a sandbox may leave in its workspace, to have another repository of the user's mounted into the next sandbox: a
// `.git` file and the git folder that it may point to. Whatever they hold, that other repository is not found.
//
// The first two bytes choose well-known pointers for `.git` and `commondir`; the rest is the contents of the files,
// separated by bytes of 0xff.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "base/file.h"
#include "sandbox/clone_source.h"

namespace {

namespace fs = std::filesystem;

void put(const fs::path& path, std::string_view text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::trunc) << text;
}

struct Ground {
  sbx::TemporaryFolder folder = sbx::TemporaryFolder::make("sbx-fuzz-clone").value();
  fs::path top = fs::canonical(folder.path());
  fs::path other = top / "private";

  Ground() {
    for (const fs::path& git : {other / ".git", top / "ws/g"}) {
      put(git / "HEAD", "ref: refs/heads/main\n");
      fs::create_directories(git / "objects");
      fs::create_directories(git / "refs");
    }
    const fs::path linked = other / ".git/worktrees/w";
    put(linked / "HEAD", "ref: refs/heads/w\n");
    put(linked / "commondir", "../..\n");
    put(linked / "gitdir", (top / "elsewhere/.git").native() + "\n");
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Ground ground;
  if (size < 2) return 0;
  std::string_view rest(reinterpret_cast<const char*>(data) + 2, size - 2);
  const auto next = [&rest] {
    const auto end = rest.find('\xff');
    const auto piece = rest.substr(0, end);
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
    return std::string(piece);
  };
  const char* const pointers[] = {"gitdir: g\n", "gitdir: ../private/.git\n", "gitdir: ../private/.git/worktrees/w\n"};
  const char* const commons[] = {"../../private/.git\n", ".\n", "../g\n"};
  const fs::path ws = ground.top / "ws";
  put(ws / ".git", data[0] < 3 ? pointers[data[0]] : next());
  put(ws / "g/config", next());
  put(ws / "g/gitdir", next());
  if (data[1] == 255)
    fs::remove(ws / "g/commondir");
  else
    put(ws / "g/commondir", data[1] < 3 ? commons[data[1]] : next());
  const auto found = sbx::sandbox::find_clone_source(ws);
  if (found && (found->root != ws || found->git.native().starts_with(ground.other.native()) ||
                found->common.native().starts_with(ground.other.native())))
    __builtin_trap();
  return 0;
}
