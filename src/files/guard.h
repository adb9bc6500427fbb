// What the guest may change, what it may see, and what is told of it: the rules of --protect and --hide, the hard links
// it has made, and the journal. Judges paths; the dispatcher finds out which they are, at the moment of each operation,
// from where the host's kernel says that a file is.
//
// Whether to allow is a positive errno, or 0. In the default mode changes of what is protected are allowed and told of;
// two things never are, since later changes could not be told: hard links to or from what is protected, and moving a
// file with several links there, by itself or in a folder.
//
// With a file that is protected NAME.lock beside it is, too: there git writes what it then renames to NAME, so that who
// changes the one in between changes the other.
//
// Thread safety: none.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>

#include "files/journal.h"
#include "files/own_links.h"
#include "files/patterns.h"

namespace sbx::files {

struct Rules {
  Patterns protect;
  Patterns hide;
  bool deny = false;
};

class Guard {
 public:
  Guard(Rules rules, std::optional<Journal> journal) : rules_(std::move(rules)), journal_(std::move(journal)) {}

  bool hides_anything() const { return !rules_.hide.empty(); }
  bool hides(std::string_view path) const { return rules_.hide.matches(path); }
  // Whether anybody wants to know where a change happens.
  bool needs_paths() const { return journal_ || !rules_.protect.empty() || hides_anything(); }

  // An entry of this type is to be made, or removed.
  int may_make(unsigned workspace, std::string_view path, mode_t type);
  int may_remove(unsigned workspace, std::string_view path, mode_t type);
  // The contents or attributes of what has this type are to change.
  int may_change(unsigned workspace, std::string_view path, mode_t type, std::string_view kind);
  // An entry is to be moved; `links`: how many its file has.
  int may_move(unsigned workspace, std::string_view from, std::string_view to, mode_t type, std::uint32_t links);
  int may_link(unsigned workspace, std::string_view from, std::string_view to, mode_t type);
  // A folder is to be moved to this place, or one in it gets there: whether may_arrive is to be asked about what is in
  // it. (Not in mode deny: may_move refuses the folder.)
  bool asks_what_arrives(std::string_view folder) const;
  // Something in a folder that is moved comes to be here.
  int may_arrive(unsigned workspace, std::string_view path, mode_t type, std::uint32_t links);

  OwnLinks& own_links() { return own_links_; }
  Journal* journal() { return journal_ ? &*journal_ : nullptr; }

 private:
  bool protects(std::string_view path) const;
  bool is_protected(std::string_view path, mode_t type) const;
  int judge(unsigned workspace, std::string_view path, mode_t type, std::string_view kind);
  int refuse(unsigned workspace, std::string_view path, std::string_view kind, int error);

  Rules rules_;
  std::optional<Journal> journal_;
  OwnLinks own_links_;
};

}  // namespace sbx::files
