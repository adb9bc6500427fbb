#include "cli/changes_command.h"

#include <fcntl.h>
#include <unistd.h>

#include <iostream>

#include "base/command.h"
#include "base/file.h"
#include "cli/commands.h"
#include "cli/table.h"
#include "files/confined.h"

namespace sbx::cli {

using nlohmann::json;

namespace {

constexpr std::uint64_t kLargestDiff = 1U << 20U;

// As many bytes as it says there are, or nothing.
std::string read_at(const UniqueFd& fd, std::uint64_t from, std::uint64_t size) {
  std::string text(std::min(size, kLargestDiff), '\0');
  const ssize_t got = ::pread(fd.get(), text.data(), text.size(), static_cast<off_t>(from));
  text.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
  return text;
}

// What is there now: never through a link, since the sandbox may have put it there.
Result<std::string> contents_now(const std::string& workspace, const std::string& path) {
  const auto root = SBX_TRY(open_file(workspace, O_PATH), "opening the workspace");
  const auto fd = files::open_child(root.get(), path);
  if (!fd) return fail_errno("opening " + path, fd.error());
  const auto status = files::status_of(fd->get());
  if (!status || !S_ISREG(status->stx_mode)) return fail(ErrorCode::kInvalid, "not a regular file");
  if (status->stx_size > kLargestDiff) return fail(ErrorCode::kInvalid, "too large to show");
  const auto file = files::reopen(fd->get(), O_RDONLY | O_NONBLOCK);
  if (!file) return fail_errno("opening " + path, file.error());
  return read_at(*file, 0, status->stx_size);
}

Result<std::string> diff_of(const std::string& path, const std::string& before, const std::string& after) {
  const auto folder = SBX_TRY(TemporaryFolder::make("sbx-diff"), "comparing");
  SBX_CHECK(write_file_atomically(folder.path() / "a", before), "comparing");
  SBX_CHECK(write_file_atomically(folder.path() / "b", after), "comparing");
  const auto out = SBX_TRY(open_file(folder.path() / "out", O_RDWR | O_CREAT), "comparing");
  const std::string name = visible(path);
  auto child = SBX_TRY(Command({"diff", "-u", "--label", "a/" + name, "--label", "b/" + name, "--",
                                (folder.path() / "a").native(), (folder.path() / "b").native()})
                           .stdout_to(out.get())
                           .start(),
                       "running diff");
  const auto status = SBX_TRY(child.wait(), "running diff");
  if (status.signal != 0 || status.code > 1) return fail(ErrorCode::kInternal, "diff: " + status.describe());
  return read_file(folder.path() / "out");
}

void print_diff(const json& change, const Result<UniqueFd>& pack) {
  const std::string path = change.value("path", "");
  const std::string kind = change.value("kind", "");
  if (change.value("folder", false)) return;
  const auto say = [&](const std::string& why) {
    std::cout << kind << " " << visible(path) << ": no difference shown (" << why << ")\n";
  };
  std::string before;
  if (kind != "added") {
    const json kept = change.value("before", json());
    if (!kept.is_object() || !pack) return say("what it was before was too large to keep, or no regular file");
    before = read_at(*pack, kept.value("from", 0ULL), kept.value("size", 0ULL));
  }
  std::string after;
  if (kind != "deleted") {
    auto now = contents_now(change.value("workspace", ""), path);
    if (!now) return say(now.error().message);
    after = *std::move(now);
  }
  const auto diff = diff_of(path, before, after);
  if (!diff) return say(diff.error().message);
  std::cout << visible(*diff, "\n\t");
}

}  // namespace

Result<int> changes(const ApiClient& client, const ChangesOptions& options) {
  json answer = SBX_TRY(client.call("GET", sandbox_target(options.name) + "/changes"), "listing changes");
  const auto pack = open_file(answer.value("before_file", ""), O_RDONLY);
  answer.erase("before_file");
  if (options.json) {
    for (auto& change : answer["changes"]) change.erase("before");
    print_json(answer);
    return 0;
  }
  const json list = answer.value("changes", json::array());
  if (options.diff) {
    for (const auto& change : list) print_diff(change, pack);
  } else if (list.empty()) {
    std::cout << "No changes\n";
  } else {
    std::vector<std::vector<std::string>> table = {{"CHANGE", "SIZE", "PATH"}};
    for (const auto& change : list) {
      const bool folder = change.value("folder", false);
      const bool sized = !folder && change.value("kind", "") != "deleted";
      table.push_back({change.value("kind", ""), sized ? format_size(change.value("size", 0ULL)) : "",
                       visible(change.value("workspace", "") + "/" + change.value("path", "") + (folder ? "/" : ""))});
    }
    std::cout << format_table(table);
  }
  for (const auto& report : answer.value("protected", json::array())) {
    std::cerr << (report.value("denied", false) ? "Denied" : "Protected") << ": " << report.value("kind", "") << " "
              << visible(report.value("workspace", "") + "/" + report.value("path", "")) << " ("
              << report.value("count", 0ULL) << "x, last " << report.value("last_at", "") << ")\n";
  }
  if (!answer.value("complete", true)) std::cerr << "WARNING: there is more than is listed\n";
  return 0;
}

}  // namespace sbx::cli
