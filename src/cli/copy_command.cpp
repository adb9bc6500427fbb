// `sbx cp`: a tar stream through an exec of tar in the guest. What comes from the guest is hostile, its error messages
// too: the stream is read by sbx-unpack in a jail that holds the destination folder (src/archive), and text is escaped.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <optional>
#include <thread>

#include "archive/pack.h"
#include "base/file.h"
#include "cli/attach.h"
#include "cli/commands.h"
#include "cli/copy_placement.h"
#include "vm/jail.h"

namespace sbx::cli {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr std::size_t kMostText = 4096;

struct Side {
  std::string sandbox;  // "": the host
  std::string path;
};

Side parse_side(const std::string& text) {
  const auto colon = text.find(':');
  if (colon == std::string::npos || text.find('/') < colon || colon == 0) return {"", text};
  return {text.substr(0, colon), text.substr(colon + 1)};
}

struct Pipe {
  UniqueFd read, write;
};
Result<Pipe> make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno("making a pipe", errno);
  return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

// Names and messages from the guest, fit for a terminal.
std::string printable(std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte == '\n' || (byte >= ' ' && byte < 0x7f))
      result += c;
    else
      result += std::string("\\x") + kHex[byte >> 4U] + kHex[byte & 15U];
  }
  return result;
}

struct GuestRun {
  int status = 0;
  std::string output;  // what was not sent to a descriptor
  std::string error;   // printable
};

Result<GuestRun> run_as_root(const ApiClient& client, const std::string& sandbox, const std::vector<std::string>& argv,
                             int input = -1, int output = -1) {
  GuestRun run;
  AttachOptions options;
  options.command = {{"argv", argv}, {"user", "root"}, {"cwd", "/"}};
  options.stdin_fd = input;
  options.sink = [&](int stream, std::string_view data) -> Result<void> {
    if (stream == 1 && output >= 0) return write_all(output, data);
    auto& text = stream == 1 ? run.output : run.error;
    text += data.substr(0, kMostText - std::min(kMostText, text.size()));
    return {};
  };
  run.status = SBX_TRY(attach(client, sandbox, std::move(options)), "running tar in the sandbox");
  run.error = printable(run.error);
  while (run.error.ends_with('\n')) run.error.pop_back();
  return run;
}

Result<Found> look_at_guest(const ApiClient& client, const Side& guest) {
  const std::string bare = without_trailing_slash(guest.path);
  static const std::string kScript =
      R"(if [ -d "$1" ]; then exit 10; elif [ -e "$1" ] || [ -L "$1" ]; then exit 11; elif [ -d "$2" ]; then exit 12; fi; exit 13)";
  const auto run = SBX_TRY(
      run_as_root(client, guest.sandbox, {"sh", "-c", kScript, "sh", bare, fs::path(bare).parent_path().native()}),
      "looking at the destination");
  switch (run.status) {
    case 10:
      return Found::kFolder;
    case 11:
      return Found::kOther;
    case 12:
      return Found::kNothing;
    case 13:
      return Found::kNoParent;
    default:
      return fail(ErrorCode::kInternal, "cannot look at " + guest.path + " in the sandbox: " + run.error);
  }
}

Found look_at_host(const std::string& path) {
  struct stat status {};
  const std::string bare = without_trailing_slash(path);
  if (::stat(bare.c_str(), &status) == 0) return S_ISDIR(status.st_mode) ? Found::kFolder : Found::kOther;
  if (::lstat(bare.c_str(), &status) == 0) return Found::kOther;
  std::error_code error;
  return fs::is_directory(fs::path(bare).parent_path(), error) ? Found::kNothing : Found::kNoParent;
}

std::string absolute_path(const std::string& path) {
  return path.starts_with('/') ? path : fs::current_path().native() + "/" + path;
}

// Owned by root; in a workspace by whom everything there is, which nobody could change.
Result<void> extract_in_guest(const ApiClient& client, const std::string& sandbox, const std::string& folder,
                              int input) {
  const auto run =
      SBX_TRY(run_as_root(client, sandbox,
                          {"tar", "-C", folder, "--no-same-owner", "--warning=no-unknown-keyword", "-xpf", "-"}, input),
              "copying");
  if (run.status != 0) return fail(ErrorCode::kInternal, "tar extract failed: " + run.error);
  return {};
}

Result<int> stream_in(const ApiClient& client, const Side& guest) {
  if (::isatty(0) != 0) return fail(ErrorCode::kInvalid, "stdin is a terminal; pipe a tar archive into it");
  if (SBX_TRY(look_at_guest(client, guest), "looking at the destination") != Found::kFolder)
    return fail(ErrorCode::kNotFound, guest.path + " is not a folder of the sandbox; an archive is unpacked into one");
  SBX_CHECK(extract_in_guest(client, guest.sandbox, guest.path, 0), "copying");
  return 0;
}

Result<int> copy_in(const ApiClient& client, const std::string& host, const Side& guest, bool follow_links) {
  archive::PackOptions options;
  CopySource source;
  source.contents = host == "." || host.ends_with("/.");
  options.source = without_trailing_slash(absolute_path(host));
  options.follow_link = follow_links || source.contents || host.ends_with('/');
  std::error_code error;
  const auto status =
      options.follow_link ? fs::status(options.source, error) : fs::symlink_status(options.source, error);
  if (!fs::exists(status)) return fail(ErrorCode::kNotFound, options.source.native() + " does not exist");
  source.is_folder = fs::is_directory(status);
  if (!*source.is_folder && (source.contents || host.ends_with('/')))
    return fail(ErrorCode::kInvalid, options.source.native() + " is not a folder");
  source.name = options.source.lexically_normal().filename();
  if (source.name.empty()) source.name = fs::canonical(options.source, error).filename();
  if (source.name.empty()) source.contents = true;  // "/"

  const Found found = SBX_TRY(look_at_guest(client, guest), "looking at the destination");
  const auto place = SBX_TRY(place_copy(guest.path, found, source), "finding the place");
  options.name = place.name.empty() ? "." : place.name;
  options.leave_out_root = place.name.empty();
  auto pipe = SBX_TRY(make_pipe(), "copying");
  Result<archive::Packed> packed;
  std::thread packer([&] {
    packed = archive::pack(options, pipe.write.get());
    pipe.write.reset();
  });
  auto extracted = extract_in_guest(client, guest.sandbox, place.folder, pipe.read.get());
  pipe.read.reset();
  packer.join();
  // A tree that could not be read is why the guest's tar complains, unless the guest's tar is why nobody read on.
  if (!packed && packed.error().code != ErrorCode::kUnavailable) return std::unexpected(packed.error());
  SBX_CHECK(std::move(extracted), "copying");
  if (!packed) return std::unexpected(packed.error());
  for (const auto& path : packed->left_out)
    std::cerr << "left out " << printable(path) << ": neither file, folder nor link\n";
  return 0;
}

// The command line of the guest's tar for `source`, whatever it is there. GNU's format has names as bytes.
Result<std::vector<std::string>> tar_in_guest(const ApiClient& client, const Side& guest, bool contents,
                                              bool follow_link) {
  std::string path = without_trailing_slash(guest.path);
  if (follow_link && !contents) {
    auto run = SBX_TRY(run_as_root(client, guest.sandbox, {"readlink", "-f", "--", path}), "following the link");
    if (run.output.ends_with('\n')) run.output.pop_back();
    if (run.status != 0 || !run.output.starts_with('/'))
      return fail(ErrorCode::kNotFound, path + " leads nowhere in the sandbox");
    path = run.output;
  }
  const fs::path source(path);
  return std::vector<std::string>{
      "tar", "-C", contents ? path : source.parent_path().native(), "--format=gnu", "--sparse", "-cf",
      "-",   "--", contents ? "." : source.filename().native()};
}

Result<void> copied_from_guest(const Side& guest, const GuestRun& run) {
  // 1: a file changed while it was read.
  if (run.status == 1) std::cerr << "WARNING: " << run.error << "\n";
  if (run.status <= 1) return {};
  return fail(ErrorCode::kNotFound, "copying " + guest.path + " from the sandbox failed: " + run.error);
}

Result<int> stream_out(const ApiClient& client, const Side& guest, bool contents, bool follow_link) {
  if (::isatty(1) != 0) return fail(ErrorCode::kInvalid, "stdout is a terminal; redirect the tar archive to a file");
  const auto argv = SBX_TRY(tar_in_guest(client, guest, contents, follow_link), "copying");
  const auto run = SBX_TRY(run_as_root(client, guest.sandbox, argv, -1, 1), "copying");
  SBX_CHECK(copied_from_guest(guest, run), "copying");
  return 0;
}

Result<Subprocess> start_unpacking(const Placement& place, int input, int report) {
  const fs::path program = fs::read_symlink("/proc/self/exe").parent_path() / "sbx-unpack";
  if (::access(program.c_str(), X_OK) != 0)
    return fail(ErrorCode::kNotFound, program.native() + " is missing; build or install sbx again");
  vm::JailSpec jail;
  jail.binds.push_back({program, "/sbx-unpack", vm::BindMode::kReadOnly});
  jail.binds.push_back({fs::canonical(place.folder), "/destination", vm::BindMode::kReadWrite});
  jail.argv = {"/sbx-unpack", "/destination", place.name};
  if (place.folder_only) jail.argv.emplace_back("--folder-only");
  return vm::jailed(jail).stdin_from(input).stdout_to(report).stderr_to(2).start();
}

struct Report {
  std::vector<std::string> notes;
  std::optional<Error> error;
  bool empty = false;  // nothing came
};

// What sbx-unpack says; it may have been taken over by then.
Report read_report(int input) {
  std::string text;
  char piece[4096];
  for (ssize_t got = 0; (got = ::read(input, piece, sizeof piece)) > 0 || (got < 0 && errno == EINTR);) {
    if (got > 0) text.append(piece, std::min<std::size_t>(got, 4 * kMostText - std::min(4 * kMostText, text.size())));
  }
  Report report;
  bool ended = false;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    if (line.starts_with("note ")) {
      report.notes.push_back(printable(line.substr(5)));
    } else if (line.starts_with("done ")) {
      ended = true;
      report.empty = line == "done 0";
    } else if (const auto space = line.find(' ', 6); line.starts_with("error ") && space != std::string::npos) {
      ended = true;
      report.error = Error{error_code_from(line.substr(6, space - 6)), printable(line.substr(space + 1)), {}};
    }
  }
  if (!ended) report.error = Error{ErrorCode::kInternal, "unpacking ended early; is there enough memory?", {}};
  return report;
}

Result<int> copy_out(const ApiClient& client, const Side& guest, const std::string& host, bool follow_links) {
  CopySource source;
  source.contents = guest.path == "/" || guest.path.ends_with("/.");
  source.name = fs::path(without_trailing_slash(guest.path)).filename();
  if (source.name == "..") return fail(ErrorCode::kInvalid, "the source may not end in \"..\"");
  const bool follow = follow_links || guest.path.ends_with('/');
  if (host == "-") return stream_out(client, guest, source.contents, follow);
  const std::string target = absolute_path(host);
  const auto place = SBX_TRY(place_copy(target, look_at_host(target), source), "finding the place");
  const auto argv = SBX_TRY(tar_in_guest(client, guest, source.contents, follow), "copying");
  auto tar = SBX_TRY(make_pipe(), "copying");
  auto report_pipe = SBX_TRY(make_pipe(), "copying");
  auto child = SBX_TRY(start_unpacking(place, tar.read.get(), report_pipe.write.get()), "starting sbx-unpack");
  tar.read.reset();
  report_pipe.write.reset();
  Report report;
  std::thread reader([&] { report = read_report(report_pipe.read.get()); });
  const auto run = run_as_root(client, guest.sandbox, argv, -1, tar.write.get());
  tar.write.reset();
  reader.join();
  (void)child.wait();
  for (const auto& note : report.notes) std::cerr << note << "\n";
  // An archive that ends early has its reason on the other side.
  if (report.error && report.error->code != ErrorCode::kUnavailable) return std::unexpected(*report.error);
  if (!run) return std::unexpected(run.error());
  SBX_CHECK(copied_from_guest(guest, *run), "copying");
  if (report.error) return std::unexpected(*report.error);
  if (report.empty && !source.contents) return fail(ErrorCode::kNotFound, "the sandbox sent nothing");
  return 0;
}

}  // namespace

Result<int> copy(const ApiClient& client, const std::string& source, const std::string& destination,
                 bool follow_links) {
  const Side from = parse_side(source);
  const Side to = parse_side(destination);
  if (from.sandbox.empty() == to.sandbox.empty())
    return fail(ErrorCode::kInvalid, "exactly one side must be SANDBOX:PATH");
  const Side& guest = from.sandbox.empty() ? to : from;
  if (!guest.path.starts_with('/')) return fail(ErrorCode::kInvalid, "container path must be absolute");
  ::signal(SIGPIPE, SIG_IGN);
  if (!from.sandbox.empty()) return copy_out(client, from, to.path, follow_links);
  return source == "-" ? stream_in(client, to) : copy_in(client, from.path, to, follow_links);
}

}  // namespace sbx::cli
