// A hostile guest kernel against the FUSE dispatcher: the input is a series of requests, each an opcode, a node, a body
// length and the body. Well-formed enough to get past the framing, which has its own checks; node ids and handles are
// small numbers so that they often exist. Every third request's slow part is left for later, and the host's side of the
// coherence runs along. The served folder is made anew for every input. Afterwards what is outside it, what is
// protected and what has a name outside must be as it was, and no reply has held what is hidden.
#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include "base/file.h"
#include "files/dispatcher.h"

namespace {

using sbx::files::Dispatcher;
namespace fs = std::filesystem;

[[noreturn]] void broken(const char* what) {
  std::fprintf(stderr, "promise broken: %s\n", what);
  std::abort();
}

std::string message(std::uint32_t opcode, std::uint64_t node, std::string_view body) {
  fuse_in_header header{};
  header.len = static_cast<std::uint32_t>(sizeof(header) + body.size());
  header.opcode = opcode;
  header.unique = 7;
  header.nodeid = node;
  return std::string(reinterpret_cast<const char*>(&header), sizeof(header)).append(body);
}

const fs::path& top() {
  static const auto folder = *sbx::TemporaryFolder::make("sbx-fuzz");
  static const fs::path path = folder.path();
  return path;
}

constexpr std::string_view kHidden = "only the host may read this";

sbx::UniqueFd own_file(const char* name) { return *sbx::open_file(top() / name, O_RDWR | O_CREAT | O_TRUNC, 0600); }

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  // Sizes are the guest's to choose: SIGXFSZ ignored, they fail with EFBIG here.
  const rlimit small{1U << 20U, 1U << 20U};
  ::setrlimit(RLIMIT_FSIZE, &small);
  ::signal(SIGXFSZ, SIG_IGN);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto served = top() / "served";
  const auto outside = top() / "outside";
  fs::remove_all(served);
  fs::create_directories(served / "d");
  if (!fs::exists(outside) && !sbx::write_file_atomically(outside, "untouched")) broken("cannot set up");
  fs::create_symlink("../outside", served / "l");
  const auto linked = top() / "linked";
  if (!fs::exists(linked) && !sbx::write_file_atomically(linked, "linked")) broken("cannot set up");
  fs::create_hard_link(linked, served / "k");
  if (!sbx::write_file_atomically(served / "d/p", "protected", 0644) ||
      !sbx::write_file_atomically(served / "d/h", kHidden, 0644)) {
    broken("cannot set up");
  }

  std::vector<sbx::files::Workspace> workspaces;
  workspaces.push_back(*sbx::files::open_workspace({0, served.string(), false}));
  Dispatcher dispatcher(
      std::move(workspaces),
      {.nodes = {.nodes = 64, .descriptors = 3}, .cache = std::chrono::seconds(600), .open_files = 2, .watches = 8},
      *sbx::files::HostWatch::make(),
      {*sbx::files::Patterns::parse({"d/p"}), *sbx::files::Patterns::parse({"h"}), true},
      sbx::files::Journal(own_file("journal"), own_file("before")));
  const std::uint32_t init[16] = {FUSE_KERNEL_VERSION, FUSE_KERNEL_MINOR_VERSION, 1U << 20U, ~0U};
  (void)dispatcher.handle(message(FUSE_INIT, 0, {reinterpret_cast<const char*>(init), sizeof(init)}));
  (void)dispatcher.handle(message(FUSE_LOOKUP, 1, std::string_view("0\0", 2)));
  for (const auto name : {"d", "l", "k"}) (void)dispatcher.handle(message(FUSE_LOOKUP, 2, std::string(name) + '\0'));
  for (const auto name : {"p", "h"}) (void)dispatcher.handle(message(FUSE_LOOKUP, 3, std::string(name) + '\0'));

  std::string_view input(reinterpret_cast<const char*>(data), size);
  for (int requests = 0; input.size() >= 3 && requests < 64; ++requests) {
    const auto opcode = static_cast<std::uint8_t>(input[0]) % 64U;
    const auto node = static_cast<std::uint8_t>(input[1]) % 16U;
    const std::size_t length = std::min<std::size_t>(static_cast<std::uint8_t>(input[2]), input.size() - 3);
    const auto request = message(opcode, node, input.substr(3, length));
    std::optional<sbx::files::Job> later;
    auto reply = dispatcher.handle(request, requests % 3 == 0 ? &later : nullptr);
    if (!reply) broken("well framed, and yet the session ended");
    std::string done;
    if (later) reply = done = later->run();
    std::string notifications;
    const auto count = dispatcher.notifications(notifications);
    if (count > 4096 || notifications.size() < count * sizeof(fuse_out_header)) broken("the notifications");
    if (!reply->empty()) {
      fuse_out_header header{};
      if (reply->size() < sizeof(header) || reply->size() > sbx::files::kMaxMessage) broken("a reply's size");
      std::memcpy(&header, reply->data(), sizeof(header));
      if (header.len != reply->size() || header.unique != 7 || header.error > 0 || header.error < -4095)
        broken("a reply's header");
      if (reply->find(kHidden) != std::string_view::npos) broken("what is hidden was read");
    }
    input.remove_prefix(3 + length);
  }
  if (dispatcher.nodes().size() > 64 || dispatcher.open_files() > 2 || dispatcher.watches() > 8) broken("a bound");
  const auto text = sbx::read_file(outside);
  if (!text || *text != "untouched" || fs::hard_link_count(outside) != 1) broken("a file outside was reached");
  if (std::distance(fs::directory_iterator(top()), {}) != 5) broken("something was made outside");
  if (sbx::read_file(linked).value_or("") != "linked") broken("a file with a name outside was written");
  if (sbx::read_file(served / "d/p").value_or("") != "protected" || fs::hard_link_count(served / "d/p") != 1) {
    broken("what is protected was changed");
  }
  if (sbx::read_file(served / "d/h").value_or("") != kHidden) broken("what is hidden was changed");
  for (const auto& entry : fs::recursive_directory_iterator(served)) {
    struct stat status {};
    if (::lstat(entry.path().c_str(), &status) != 0) continue;
    if (S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode)) broken("a device node");
    if ((status.st_mode & 06000U) != 0) broken("a setuid or setgid bit");
  }
  return 0;
}
