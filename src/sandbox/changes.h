// What a sandbox has changed in its workspaces: the journal that its sbx-files keeps (files/journal.h) held against
// what is there now. The journal's bytes and the workspaces' contents are the guest's making: parsed strictly, and
// looked at without following links. Thread safety: any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/sandbox_store.h"

namespace sbx::sandbox {

inline std::filesystem::path journal_file(const std::filesystem::path& sandbox_folder) {
  return sandbox_folder / "changes";
}
inline std::filesystem::path before_file(const std::filesystem::path& sandbox_folder) {
  return sandbox_folder / "changes.before";
}

struct JournalEntry {
  unsigned workspace = 0;  // its index
  std::string path;        // relative; any bytes
  bool made = false;
  // What it was before, if that is known: where its contents are in before_file(), and its st_mode.
  std::optional<std::pair<std::uint64_t, std::uint64_t>> before;
  std::optional<unsigned> mode;
};

struct ProtectedChange {
  unsigned workspace = 0;
  std::string path;
  std::string kind;  // write, create, remove, rename, link, attributes
  bool denied = false;
  std::uint64_t count = 0;
  std::int64_t last_ms = 0;
};

struct Journal {
  std::vector<JournalEntry> entries;
  std::vector<ProtectedChange> reports;
  bool complete = true;  // nothing was left out, nor is anything not understood
};
Journal parse_journal(std::string_view text);

struct Change {
  enum Kind { kAdded, kModified, kDeleted };
  JournalEntry entry;
  Kind kind = kModified;
  bool folder = false;
  std::uint64_t size = 0;  // now; of what is deleted: before, if known
};

struct Changes {
  std::vector<Change> changes;  // by workspace and path; not what is again as it was
  std::vector<ProtectedChange> reports;
  bool complete = true;
};
// Empty if there is no journal yet. Nothing is told of workspaces that have been unmounted since.
Journal read_journal(const std::filesystem::path& sandbox_folder);
Changes read_changes(const std::filesystem::path& sandbox_folder, const std::vector<store::Workspace>& workspaces);

}  // namespace sbx::sandbox
