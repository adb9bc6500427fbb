#include "sandbox/changes.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <map>
#include <memory>
#include <tuple>

#include "base/file.h"
#include "files/confined.h"
#include "files/journal.h"

namespace sbx::sandbox {
namespace {

// Of the journal: what sbx-files writes at most, and some.
constexpr std::size_t kLongest = 16U << 20U;
// Found in folders that the guest made.
constexpr std::size_t kMostFound = 10'000;
constexpr int kDeepest = 64;

bool take_number(std::string_view& line, std::uint64_t& number, int base = 10) {
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), number, base);
  if (error != std::errc() || end == line.data() + line.size() || *end != ' ') return false;
  line.remove_prefix(static_cast<std::size_t>(end - line.data()) + 1);
  return true;
}

bool take_word(std::string_view& line, std::string_view& word) {
  const auto blank = line.find(' ');
  if (blank == std::string_view::npos) return false;
  word = line.substr(0, blank);
  line.remove_prefix(blank + 1);
  return true;
}

// A relative path that stays below where it begins.
bool take_path(std::string_view text, std::string& path) {
  path.clear();
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] <= ' ' || text[i] >= 0x7f) return false;  // would be escaped
    if (text[i] != '%') {
      path += text[i];
      continue;
    }
    unsigned code = 0;
    if (i + 2 >= text.size()) return false;
    const auto [end, error] = std::from_chars(text.data() + i + 1, text.data() + i + 3, code, 16);
    if (error != std::errc() || end != text.data() + i + 3 || code == 0) return false;
    path += static_cast<char>(code);
    i += 2;
  }
  const std::string framed = "/" + path + "/";
  return framed.find("//") == std::string::npos && framed.find("/../") == std::string::npos &&
         framed.find("/./") == std::string::npos;
}

bool take_entry(std::string_view line, JournalEntry& entry) {
  std::uint64_t workspace = 0;
  if (!take_number(line, workspace) || workspace > 1000) return false;
  entry.workspace = static_cast<unsigned>(workspace);
  if (!entry.made) {
    std::pair<std::uint64_t, std::uint64_t> before;
    if (line.starts_with("- - ")) {
      line.remove_prefix(4);
    } else if (take_number(line, before.first) && take_number(line, before.second) &&
               before.second <= files::Journal::Limits().before_each) {
      entry.before = before;
    } else {
      return false;
    }
    std::uint64_t mode = 0;
    if (line.starts_with("- ")) {
      line.remove_prefix(2);
    } else if (take_number(line, mode, 8) && mode <= 0177777) {
      entry.mode = static_cast<unsigned>(mode);
    } else {
      return false;
    }
  }
  return take_path(line, entry.path);
}

bool take_report(std::string_view line, ProtectedChange& report) {
  std::uint64_t last = 0;
  std::uint64_t workspace = 0;
  std::string_view kind;
  if (!take_number(line, report.count) || !take_number(line, last) || !take_word(line, kind) ||
      !take_number(line, workspace) || workspace > 1000) {
    return false;
  }
  constexpr std::string_view kDenied = "denied-";
  report.denied = kind.starts_with(kDenied);
  if (report.denied) kind.remove_prefix(kDenied.size());
  static constexpr std::string_view kKinds[] = {"write", "create", "remove", "rename", "link", "attributes"};
  if (std::ranges::find(kKinds, kind) == std::end(kKinds)) return false;
  report.kind = kind;
  report.last_ms = static_cast<std::int64_t>(last);
  report.workspace = static_cast<unsigned>(workspace);
  return take_path(line, report.path);
}

class Finder {
 public:
  Finder(const std::filesystem::path& sandbox_folder, const std::vector<store::Workspace>& workspaces, Changes& result)
      : result_(result), before_(open_file(before_file(sandbox_folder), O_RDONLY)) {
    for (const auto& workspace : workspaces) {
      roots_.emplace(static_cast<unsigned>(workspace.index), open_file(workspace.on_host(), O_PATH));
    }
  }

  void look_at(const JournalEntry& entry) {
    const auto found = roots_.find(entry.workspace);
    if (found == roots_.end() || !found->second) return;
    const int root = found->second->get();
    // Beneath the root, and through no link.
    const auto fd = entry.path.empty() ? files::reopen(root, O_PATH) : files::open_child(root, entry.path);
    const auto status = fd ? files::status_of(fd->get()) : std::unexpected(fd.error());
    if (!status) {
      if (!entry.made) add(entry, Change::kDeleted, {});
      return;
    }
    if (!entry.made && is_as_before(entry, fd->get(), *status)) return;
    add(entry, entry.made ? Change::kAdded : Change::kModified, *status);
    if (entry.made && S_ISDIR(status->stx_mode)) walk(entry, fd->get(), 0);
  }

 private:
  void add(const JournalEntry& entry, Change::Kind kind, const struct statx& status) {
    auto& change = result_.changes.emplace_back();
    change.entry = entry;
    change.kind = kind;
    if (kind == Change::kDeleted) {
      change.folder = entry.mode && S_ISDIR(*entry.mode);
      change.size = entry.before ? entry.before->second : 0;
    } else {
      change.folder = S_ISDIR(status.stx_mode);
      change.size = change.folder ? 0 : status.stx_size;
    }
  }

  // A file that was changed, and changed back.
  bool is_as_before(const JournalEntry& entry, int path_fd, const struct statx& status) const {
    if (!before_ || !entry.before || !entry.mode || *entry.mode != status.stx_mode || !S_ISREG(status.stx_mode) ||
        entry.before->second != status.stx_size) {
      return false;
    }
    const auto now = files::reopen(path_fd, O_RDONLY | O_NONBLOCK);
    if (!now) return false;
    std::array<char, 64U << 10U> ours{};
    std::array<char, 64U << 10U> theirs{};
    for (std::uint64_t done = 0; done < status.stx_size;) {
      const auto piece = std::min<std::uint64_t>(ours.size(), status.stx_size - done);
      const auto wanted = static_cast<ssize_t>(piece);
      if (::pread(now->get(), ours.data(), piece, static_cast<off_t>(done)) != wanted ||
          ::pread(before_->get(), theirs.data(), piece, static_cast<off_t>(entry.before->first + done)) != wanted ||
          std::memcmp(ours.data(), theirs.data(), piece) != 0) {
        return false;
      }
      done += piece;
    }
    return true;
  }

  void walk(const JournalEntry& folder, int path_fd, int depth) {
    auto fd = files::reopen(path_fd, O_RDONLY | O_DIRECTORY);
    if (!fd) return;
    const std::unique_ptr<DIR, int (*)(DIR*)> list(::fdopendir(fd->get()), ::closedir);
    if (!list) return;
    (void)fd->release();
    while (const dirent* found = ::readdir(list.get())) {
      const std::string name(found->d_name);
      if (name == "." || name == "..") continue;
      if (++found_ > kMostFound || depth >= kDeepest) {
        result_.complete = false;
        return;
      }
      const auto child = files::open_child(path_fd, name);
      const auto status = child ? files::status_of(child->get()) : std::unexpected(child.error());
      if (!status) continue;
      JournalEntry entry = folder;
      entry.path += "/" + name;
      add(entry, Change::kAdded, *status);
      if (S_ISDIR(status->stx_mode)) walk(entry, child->get(), depth + 1);
    }
  }

  Changes& result_;
  Result<UniqueFd> before_;
  std::map<unsigned, Result<UniqueFd>> roots_;
  std::size_t found_ = 0;
};

}  // namespace

Journal parse_journal(std::string_view text) {
  Journal journal;
  while (!text.empty()) {
    const auto end = text.find('\n');
    if (end == std::string_view::npos) break;  // it is being written
    const auto line = text.substr(0, end);
    text.remove_prefix(end + 1);
    const auto rest = line.size() > 2 ? line.substr(2) : std::string_view();
    JournalEntry entry;
    entry.made = line.starts_with("N ");
    ProtectedChange report;
    if ((entry.made || line.starts_with("O ")) && take_entry(rest, entry)) {
      journal.entries.push_back(std::move(entry));
    } else if (line.starts_with("P ") && take_report(rest, report)) {
      journal.reports.push_back(std::move(report));
    } else {
      journal.complete = false;
    }
  }
  return journal;
}

Journal read_journal(const std::filesystem::path& sandbox_folder) {
  return parse_journal(read_file(journal_file(sandbox_folder), kLongest).value_or(""));
}

Changes read_changes(const std::filesystem::path& sandbox_folder, const std::vector<store::Workspace>& workspaces) {
  auto journal = read_journal(sandbox_folder);
  Changes result;
  result.complete = journal.complete;
  result.reports = std::move(journal.reports);
  Finder finder(sandbox_folder, workspaces, result);
  for (const auto& entry : journal.entries) finder.look_at(entry);
  // What was there before and lies in a folder that the guest has moved about is found twice: as what it was counts.
  std::ranges::sort(result.changes, {}, [](const Change& change) {
    return std::tuple<unsigned, std::string_view, bool>(change.entry.workspace, change.entry.path, change.entry.made);
  });
  const auto [first, last] = std::ranges::unique(result.changes, {}, [](const Change& change) {
    return std::pair<unsigned, std::string_view>(change.entry.workspace, change.entry.path);
  });
  result.changes.erase(first, last);
  return result;
}

}  // namespace sbx::sandbox
