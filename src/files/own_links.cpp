#include "files/own_links.h"

#include <algorithm>

#include "files/confined.h"

namespace sbx::files {
namespace {

std::int64_t birth_of(const struct statx& status) {
  if ((status.stx_mask & STATX_BTIME) == 0) return 0;
  return status.stx_btime.tv_sec * 1'000'000'000 + status.stx_btime.tv_nsec;
}

}  // namespace

std::uint32_t OwnLinks::known(const struct statx& status) {
  const auto found = files_.find({device_of(status), status.stx_ino});
  if (found == files_.end() || found->second.birth != birth_of(status)) return 0;
  // The host has taken some away; a name that is new later is not one of them.
  found->second.links = std::min(found->second.links, status.stx_nlink);
  return found->second.links;
}

bool OwnLinks::cover(const struct statx& status, bool named) {
  const auto own = known(status);
  return status.stx_nlink <= (named ? 1U : 0U) || own >= status.stx_nlink;
}

void OwnLinks::added(const struct statx& before, bool named) {
  if (!cover(before, named)) return;
  const Key key{device_of(before), before.stx_ino};
  if (files_.size() >= limit_ && !files_.contains(key)) return;
  files_[key] = {birth_of(before), before.stx_nlink + 1};
}

void OwnLinks::removed(const struct statx& before) {
  if (known(before) == 0) return;
  const auto found = files_.find({device_of(before), before.stx_ino});
  if (--found->second.links == 0) files_.erase(found);
}

}  // namespace sbx::files
