#include "files/guard.h"

#include <strings.h>
#include <sys/stat.h>

#include <cerrno>

namespace sbx::files {
namespace {

Patterns::Kind kind_of(mode_t type) { return S_ISREG(type) ? Patterns::Kind::kFile : Patterns::Kind::kOther; }

// As git names the lock of a file (gitrepository-layout(5)).
constexpr std::string_view kLock = ".lock";

bool is_lock(std::string_view path) {
  return path.size() > kLock.size() &&
         ::strncasecmp(path.data() + path.size() - kLock.size(), kLock.data(), kLock.size()) == 0;
}

}  // namespace

bool Guard::protects(std::string_view path) const {
  return rules_.protect.matches(path) ||
         (is_lock(path) && rules_.protect.matches(path.substr(0, path.size() - kLock.size())));
}

// A folder on the way is only a folder, until it is moved (may_move); anything else there leads elsewhere.
bool Guard::is_protected(std::string_view path, mode_t type) const {
  return protects(path) || (!S_ISDIR(type) && rules_.protect.lies_on_way(path, kind_of(type)));
}

int Guard::refuse(unsigned workspace, std::string_view path, std::string_view kind, int error) {
  if (journal_) journal_->protected_change(workspace, path, "denied-" + std::string(kind));
  return error;
}

int Guard::judge(unsigned workspace, std::string_view path, mode_t type, std::string_view kind) {
  if (!is_protected(path, type)) return 0;
  if (rules_.deny) return refuse(workspace, path, kind, EACCES);
  if (journal_) journal_->protected_change(workspace, path, kind);
  return 0;
}

int Guard::may_make(unsigned workspace, std::string_view path, mode_t type) {
  if (hides(path)) return EACCES;
  return judge(workspace, path, type, "create");
}

int Guard::may_remove(unsigned workspace, std::string_view path, mode_t type) {
  if (hides(path)) return ENOENT;
  return judge(workspace, path, type, "remove");
}

int Guard::may_change(unsigned workspace, std::string_view path, mode_t type, std::string_view kind) {
  if (hides(path)) return ESTALE;
  return judge(workspace, path, type, kind);
}

int Guard::may_move(unsigned workspace, std::string_view from, std::string_view to, mode_t type, std::uint32_t links) {
  if (hides(from)) return ENOENT;
  // What is hidden below it would be seen in its new place.
  if (hides(to) || rules_.hide.lies_on_way(from, kind_of(type)) || rules_.hide.lies_on_way(to, kind_of(type))) {
    return EACCES;
  }
  for (const auto path : {from, to}) {
    if (!protects(path) && !rules_.protect.lies_on_way(path, kind_of(type))) continue;
    if (rules_.deny) return refuse(workspace, path, "rename", EACCES);
    if (!S_ISDIR(type) && links > 1) return refuse(workspace, path, "rename", EPERM);
    if (journal_) journal_->protected_change(workspace, path, "rename");
  }
  return 0;
}

int Guard::may_link(unsigned workspace, std::string_view from, std::string_view to, mode_t type) {
  if (hides(from)) return ESTALE;
  if (hides(to)) return EACCES;
  for (const auto path : {from, to}) {
    if (is_protected(path, type)) return refuse(workspace, path, "link", EPERM);
  }
  return 0;
}

bool Guard::asks_what_arrives(std::string_view folder) const {
  return !rules_.deny && (protects(folder) || rules_.protect.lies_on_way(folder, Patterns::Kind::kOther));
}

int Guard::may_arrive(unsigned workspace, std::string_view path, mode_t type, std::uint32_t links) {
  return !S_ISDIR(type) && links > 1 && is_protected(path, type) ? refuse(workspace, path, "rename", EPERM) : 0;
}

}  // namespace sbx::files
