// `sbx cp`: a tar stream through an exec of tar in the guest. Packing and unpacking on the host is libarchive's work;
// what comes from the guest is hostile: no name leaves the destination, no link is followed, no device is made.
#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <thread>

#include "base/file.h"
#include "cli/attach.h"
#include "cli/commands.h"

namespace sbx::cli {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

struct Side {
  std::string sandbox;  // "": the host
  std::string path;
};

Side parse_side(const std::string& text) {
  const auto colon = text.find(':');
  if (colon == std::string::npos || text.find('/') < colon || colon == 0) return {"", text};
  return {text.substr(0, colon), text.substr(colon + 1)};
}

using ArchivePtr = std::unique_ptr<archive, int (*)(archive*)>;

std::unexpected<Error> fail_archive(archive* handle, const std::string& what) {
  const char* text = archive_error_string(handle);
  return fail(ErrorCode::kInternal, what + ": " + (text != nullptr ? text : "unknown error"));
}

struct Pipe {
  UniqueFd read, write;
};
Result<Pipe> make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno("making a pipe", errno);
  return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

// The tree at `source` as tar, its root called `name`, everything owned by root.
Result<void> pack(const fs::path& source, const std::string& name, bool follow_links, int output) {
  const ArchivePtr tar(archive_write_new(), archive_write_free);
  const ArchivePtr disk(archive_read_disk_new(), archive_read_free);
  archive_write_set_format_pax_restricted(tar.get());
  archive_write_set_bytes_in_last_block(tar.get(), 1);
  if (archive_write_open_fd(tar.get(), output) != ARCHIVE_OK) return fail_archive(tar.get(), "packing");
  if (follow_links)
    archive_read_disk_set_symlink_hybrid(disk.get());
  else
    archive_read_disk_set_symlink_physical(disk.get());
  if (archive_read_disk_open(disk.get(), source.c_str()) != ARCHIVE_OK)
    return fail_archive(disk.get(), "reading " + source.native());
  for (;;) {
    const std::unique_ptr<archive_entry, void (*)(archive_entry*)> entry(archive_entry_new(), archive_entry_free);
    const int code = archive_read_next_header2(disk.get(), entry.get());
    if (code == ARCHIVE_EOF) break;
    if (code < ARCHIVE_WARN) return fail_archive(disk.get(), "reading " + source.native());
    archive_read_disk_descend(disk.get());
    if (archive_entry_filetype(entry.get()) == AE_IFSOCK) continue;
    const std::string path = archive_entry_pathname(entry.get());
    archive_entry_set_pathname(entry.get(), (name + path.substr(source.native().size())).c_str());
    archive_entry_set_uid(entry.get(), 0);
    archive_entry_set_gid(entry.get(), 0);
    archive_entry_set_uname(entry.get(), "root");
    archive_entry_set_gname(entry.get(), "root");
    if (archive_write_header(tar.get(), entry.get()) < ARCHIVE_WARN) return fail_archive(tar.get(), "packing " + path);
    if (archive_entry_filetype(entry.get()) != AE_IFREG || archive_entry_size(entry.get()) == 0) continue;
    const auto file = SBX_TRY(open_file(archive_entry_sourcepath(entry.get()), O_RDONLY), "reading " + path);
    char buffer[65536];
    for (ssize_t got = 0; (got = ::read(file.get(), buffer, sizeof buffer)) > 0;) {
      if (archive_write_data(tar.get(), buffer, static_cast<std::size_t>(got)) < 0)
        return fail_archive(tar.get(), "packing " + path);
    }
  }
  if (archive_write_close(tar.get()) != ARCHIVE_OK) return fail_archive(tar.get(), "packing");
  return {};
}

// `path` with its first component (which must be `root`) replaced; kDenied if it would lead anywhere else.
Result<fs::path> rebase(const std::string& path, const std::string& root, const std::string& name) {
  const fs::path given(path);
  fs::path result(name);
  bool first = true;
  for (const auto& part : given) {
    if (part == ".." || part.has_root_directory())
      return fail(ErrorCode::kDenied, "refused: the sandbox sent the path " + path);
    if (first && root != "." && part != root)
      return fail(ErrorCode::kDenied, "refused: the sandbox sent the path " + path);
    if (!(first && root != ".") && !part.empty() && part != ".") result /= part;
    first = false;
  }
  return result;
}

// Unpacks below the current folder.
Result<void> unpack(int input, const std::string& root, const std::string& name) {
  const ArchivePtr tar(archive_read_new(), archive_read_free);
  const ArchivePtr disk(archive_write_disk_new(), archive_write_free);
  archive_read_support_format_tar(tar.get());
  archive_write_disk_set_options(disk.get(), ARCHIVE_EXTRACT_PERM | ARCHIVE_EXTRACT_TIME |
                                                 ARCHIVE_EXTRACT_SECURE_NODOTDOT | ARCHIVE_EXTRACT_SECURE_SYMLINKS |
                                                 ARCHIVE_EXTRACT_SECURE_NOABSOLUTEPATHS | ARCHIVE_EXTRACT_UNLINK);
  if (archive_read_open_fd(tar.get(), input, 65536) != ARCHIVE_OK) return fail_archive(tar.get(), "unpacking");
  for (;;) {
    archive_entry* entry = nullptr;
    const int code = archive_read_next_header(tar.get(), &entry);
    if (code == ARCHIVE_EOF) break;
    if (code < ARCHIVE_WARN) return fail_archive(tar.get(), "unpacking");
    const auto path = SBX_TRY(rebase(archive_entry_pathname(entry), root, name), "unpacking");
    archive_entry_set_pathname(entry, path.c_str());
    if (const char* target = archive_entry_hardlink(entry); target != nullptr) {
      const auto rebased = SBX_TRY(rebase(target, root, name), "unpacking");
      archive_entry_set_hardlink(entry, rebased.c_str());
    } else if (const char* link = archive_entry_symlink(entry); link != nullptr) {
      const fs::path resolved = (path.parent_path() / link).lexically_normal();
      if (*link != '/' && (resolved.empty() || *resolved.begin() == "..")) {
        return fail(ErrorCode::kDenied,
                    "refused: the link " + path.native() + " -> " + link + " leaves the destination");
      }
    } else if (const auto type = archive_entry_filetype(entry); type != AE_IFREG && type != AE_IFDIR) {
      std::cerr << "skipping " << path.native() << ": neither file, folder nor link\n";
      continue;
    }
    archive_entry_set_mode(entry, archive_entry_mode(entry) & ~static_cast<unsigned>(S_ISUID | S_ISGID));
    if (archive_write_header(disk.get(), entry) < ARCHIVE_WARN)
      return fail_archive(disk.get(), "writing " + path.native());
    const void* data = nullptr;
    std::size_t size = 0;
    la_int64_t offset = 0;
    for (int got = 0; (got = archive_read_data_block(tar.get(), &data, &size, &offset)) != ARCHIVE_EOF;) {
      if (got < ARCHIVE_WARN) return fail_archive(tar.get(), "unpacking " + path.native());
      if (archive_write_data_block(disk.get(), data, size, offset) < ARCHIVE_WARN)
        return fail_archive(disk.get(), "writing " + path.native());
    }
    if (archive_write_finish_entry(disk.get()) < ARCHIVE_WARN)
      return fail_archive(disk.get(), "writing " + path.native());
  }
  return {};
}

struct GuestRun {
  int status = 0;
  std::string error;
};

Result<GuestRun> run_as_root(const ApiClient& client, const std::string& sandbox, const std::vector<std::string>& argv,
                             int input, int output) {
  GuestRun run;
  AttachOptions options;
  options.command = {{"argv", argv}, {"user", "root"}, {"cwd", "/"}};
  options.stdin_fd = input;
  options.sink = [&](int stream, std::string_view data) -> Result<void> {
    if (stream == 1 && output >= 0) return write_all(output, data);
    if (stream == 2 && run.error.size() < 4096) run.error += data;
    return {};
  };
  run.status = SBX_TRY(attach(client, sandbox, std::move(options)), "running tar in the sandbox");
  return run;
}

Result<int> copy_in(const ApiClient& client, const fs::path& host, const Side& guest, bool follow_links) {
  const bool contents = host.filename() == ".";
  std::error_code error;
  const fs::path source = fs::absolute(contents                  ? host.parent_path()
                                       : host.filename().empty() ? host.parent_path()
                                                                 : host)
                              .lexically_normal();
  if (!fs::exists(fs::symlink_status(source, error)))
    return fail(ErrorCode::kNotFound, source.native() + " does not exist");
  // An existing folder takes the source in; anything else is its new name.
  const auto probe =
      SBX_TRY(run_as_root(client, guest.sandbox, {"test", "-d", guest.path}, -1, -1), "looking at the destination");
  const fs::path target = fs::path(guest.path).lexically_normal();
  fs::path folder = target;
  std::string name = contents ? "." : source.filename().native();
  if (probe.status != 0) {
    const fs::path trimmed = target.filename().empty() ? target.parent_path() : target;
    folder = trimmed.parent_path();
    name = trimmed.filename();
  }
  auto pipe = SBX_TRY(make_pipe(), "copying");
  Result<void> packed;
  std::thread packer([&] {
    packed = pack(source, name, follow_links, pipe.write.get());
    pipe.write.reset();
  });
  auto run = run_as_root(client, guest.sandbox, {"tar", "-C", folder.native(), "-xpf", "-"}, pipe.read.get(), -1);
  pipe.read.reset();
  packer.join();
  if (!run) return std::unexpected(run.error());
  if (run->status != 0) return fail(ErrorCode::kInternal, "tar extract failed: " + run->error);
  SBX_CHECK(std::move(packed), "copying");
  return 0;
}

Result<int> copy_out(const ApiClient& client, const Side& guest, const fs::path& host, bool follow_links) {
  const bool contents = guest.path.ends_with("/.");
  const fs::path source =
      fs::path(contents ? guest.path.substr(0, guest.path.size() - 1) : guest.path).lexically_normal();
  const fs::path trimmed = source.filename().empty() ? source.parent_path() : source;
  std::error_code error;
  const fs::path target = fs::absolute(host).lexically_normal();
  const fs::path bare = target.filename().empty() || target.filename() == "." ? target.parent_path() : target;
  const bool into = fs::is_directory(bare, error);
  const std::string root = contents ? "." : trimmed.filename().native();
  const std::string name = contents ? (into ? "." : bare.filename().native()) : into ? root : bare.filename().native();
  const fs::path folder = into ? bare : bare.parent_path();
  if (::chdir(folder.c_str()) != 0) return fail_errno("entering " + folder.native(), errno);
  auto pipe = SBX_TRY(make_pipe(), "copying");
  Result<void> unpacked;
  std::thread unpacker([&] {
    unpacked = unpack(pipe.read.get(), root, name);
    pipe.read.reset();  // a refusal ends the sender
  });
  std::vector<std::string> argv = {"tar", "-C", contents ? trimmed.native() : trimmed.parent_path().native(), "-cf",
                                   "-"};
  if (follow_links) argv.emplace_back("-h");
  argv.insert(argv.end(), {"--", root});
  auto run = run_as_root(client, guest.sandbox, argv, -1, pipe.write.get());
  pipe.write.reset();
  unpacker.join();
  if (!unpacked && unpacked.error().code == ErrorCode::kDenied) return std::unexpected(unpacked.error());
  if (!run) return std::unexpected(run.error());
  if (run->status != 0) return fail(ErrorCode::kNotFound, "copying from the sandbox failed: " + run->error);
  SBX_CHECK(std::move(unpacked), "copying");
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
  return from.sandbox.empty() ? copy_in(client, from.path, to, follow_links)
                              : copy_out(client, from, to.path, follow_links);
}

}  // namespace sbx::cli
