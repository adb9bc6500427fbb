// sbx-unpack: the tar on stdin, sent by a sandbox, into a folder. Started by `sbx cp` in a jail that holds this folder
// and nothing else of the user's.
//
//   sbx-unpack FOLDER NAME [--folder-only]     (NAME "": what is in the archive's root goes into FOLDER itself)
//
// On stdout one line each: "note TEXT", and at last "done MEMBERS" or "error CODE TEXT". Its reader takes nothing of it
// for more than numbers and text.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <cstdio>
#include <string>

#include "archive/lockdown.h"
#include "archive/unpack.h"
#include "base/file.h"
#include "base/sanitizers.h"

#if SBX_ADDRESS_SANITIZER
// The leak check needs /proc, which the jail does not have.
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }
#endif

namespace sbx::archive {
namespace {

constexpr int kMostNotes = 10;

void report(const std::string& line) {
  std::string text = line;
  for (char& c : text) c = c == '\n' ? ' ' : c;
  (void)write_all(1, text + "\n");
}

Result<std::size_t> run(int argc, char** argv) {
  if (argc < 3) return fail(ErrorCode::kInvalid, "usage: sbx-unpack FOLDER NAME [--folder-only]");
  ::umask(0);
#if !SBX_ADDRESS_SANITIZER
  // An archive of millions of members fits; a header that claims gigabytes does not.
  const rlimit memory{512U << 20U, 512U << 20U};
  ::setrlimit(RLIMIT_DATA, &memory);
#endif
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
  const auto folder = SBX_TRY(open_file(argv[1], O_PATH | O_DIRECTORY), "opening the destination");
  SBX_CHECK(lock_down(), "locking down");
  UnpackOptions options;
  options.input = 0;
  options.folder = folder.get();
  options.name = argv[2];
  options.folder_only = argc > 3 && std::string(argv[3]) == "--folder-only";
  int notes = 0;
  options.on_note = [&](const std::string& what) {
    if (++notes <= kMostNotes) report("note " + what);
  };
  auto members = unpack(options);
  if (notes > kMostNotes) report("note left out " + std::to_string(notes - kMostNotes) + " more");
  return members;
}

}  // namespace
}  // namespace sbx::archive

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  const auto members = sbx::archive::run(argc, argv);
  if (members) {
    sbx::archive::report("done " + std::to_string(*members));
    return 0;
  }
  sbx::archive::report("error " + std::string(sbx::to_string(members.error().code)) + " " + members.error().message);
  return 1;
}
