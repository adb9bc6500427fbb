// What the dispatcher asks its Guard before it changes anything, and what it tells the journal.
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>

#include "files/dispatcher.h"

namespace sbx::files {
namespace {

constexpr std::string_view kDeleted = " (deleted)";
// As much as is looked at before one rename.
constexpr std::size_t kMostArriving = 1U << 16U;

// Of a larger folder not all.
Outcome<std::vector<std::string>> names_in(int folder) {
  std::error_code error;
  std::vector<std::string> names;
  // The folder itself, whatever its path has come to be.
  std::filesystem::directory_iterator entry(descriptor_path(folder), error);
  const std::filesystem::directory_iterator end;
  for (; !error && entry != end && names.size() <= kMostArriving; entry.increment(error)) {
    names.push_back(entry->path().filename().native());
  }
  if (error) return std::unexpected(error.value());
  return names;
}

}  // namespace

Outcome<std::string> Dispatcher::place_of(const Node& node, int fd) const {
  auto place = nodes_.workspace_of(node).place_of(fd);
  if (!place) return std::unexpected(ESTALE);
  return *std::move(place);
}

Outcome<std::string> Dispatcher::place_in(const Target& parent, const std::string& name) const {
  auto place = place_of(*parent.node, parent.get());
  if (!place) return place;
  return place->empty() ? name : *place + "/" + name;
}

bool Dispatcher::hidden_in(const Target& parent, const std::string& name) const {
  const auto place = place_in(parent, name);
  return !place || guard_.hides(*place);
}

int Dispatcher::check_make(const Target& parent, const std::string& name, mode_t type) {
  if (!guard_.needs_paths()) return 0;
  const auto place = place_in(parent, name);
  return place ? guard_.may_make(index_of(*parent.node), *place, type) : place.error();
}

Outcome<bool> Dispatcher::is_named(const Target& file) {
  const auto place = place_of(*file.node, file.get());
  if (!place) return std::unexpected(place.error());
  return !place->ends_with(kDeleted) || nodes_.find_name(*file.node);
}

int Dispatcher::check_change(const Target& node, std::string_view kind) {
  Change change{node.node, node.get(), "", true};
  auto place = place_of(*node.node, node.get());
  if (!place) return place.error();
  if (place->ends_with(kDeleted) && !node.node->root) {
    change.named = nodes_.find_name(*node.node);
    if (change.named) {
      const auto again = nodes_.descriptor(*node.node);
      place = again ? place_of(*node.node, (*again)->get()) : std::unexpected(again.error());
      if (!place) return place.error();
    }
  }
  change.place = *std::move(place);
  return check_change(change, kind);
}

int Dispatcher::check_change(const Change& change, std::string_view kind) {
  const auto status = status_of(change.fd);
  if (!status) return status.error();
  const bool folder = S_ISDIR(status->stx_mode);
  if (!folder && !guard_.own_links().cover(*status, change.named)) return EPERM;
  if (!change.named || !guard_.needs_paths()) return 0;
  const auto index = index_of(*change.workspace);
  if (const int error = guard_.may_change(index, change.place, status->stx_mode, kind)) return error;
  if (auto* journal = guard_.journal(); journal != nullptr && !folder) journal->changed(index, change.place, change.fd);
  return 0;
}

Outcome<Dispatcher::Entry> Dispatcher::entry_at(const Target& parent, const std::string& name) const {
  Entry entry;
  if (guard_.needs_paths()) {
    auto place = place_in(parent, name);
    if (!place) return std::unexpected(place.error());
    entry.place = *std::move(place);
  }
  auto fd = open_child(parent.get(), name);
  if (!fd && fd.error() == ENOENT) return entry;
  if (!fd) return std::unexpected(fd.error());
  const auto status = status_of(fd->get());
  if (!status) return std::unexpected(status.error());
  entry.fd = std::move(*fd);
  entry.status = *status;
  return entry;
}

int Dispatcher::check_arrival(unsigned workspace, const Entry& folder, const std::string& to) {
  if (!S_ISDIR(folder.status.stx_mode)) return 0;
  std::size_t seen = 0;
  std::vector<std::string> below = {std::string()};  // folders, as what stands behind the path of `folder`
  while (!below.empty()) {
    const std::string within = std::move(below.back());
    below.pop_back();
    const std::string place = to + within;
    if (!guard_.asks_what_arrives(place)) continue;
    const auto fd = open_child(folder.fd.get(), "." + within);
    if (!fd) return fd.error();
    const auto names = names_in(fd->get());
    if (!names) return names.error();
    for (const auto& name : *names) {
      // As between file systems: who moves it copies it then, and every file is judged by itself.
      if (++seen > kMostArriving) return EXDEV;
      const auto entry = open_child(fd->get(), name);
      if (!entry && entry.error() == ENOENT) continue;  // the host has removed it
      const auto status = entry ? status_of(entry->get()) : std::unexpected(entry.error());
      if (!status) return status.error();
      const std::string arrives = place + "/" + name;
      if (const int error = guard_.may_arrive(workspace, arrives, status->stx_mode, status->stx_nlink)) return error;
      if (S_ISDIR(status->stx_mode)) below.push_back(within + "/" + name);
    }
  }
  return 0;
}

void Dispatcher::tell_changed(const Node& in_workspace_of, const Entry& entry) {
  if (auto* journal = guard_.journal()) journal->changed(index_of(in_workspace_of), entry.place, entry.fd.get());
}

void Dispatcher::tell_made(const Target& parent, const std::string& name) {
  auto* journal = guard_.journal();
  if (journal == nullptr) return;
  if (const auto place = place_in(parent, name)) journal->made(index_of(*parent.node), *place);
}

}  // namespace sbx::files
