// Patterns of paths in a workspace, as --protect and --hide take them (much like a line of .gitignore).
//
// A pattern is one or more components, each a glob(7) of one name, or "**" for any number of them. It matches at any
// depth, or with a leading '/' only from the workspace's root, and then everything beneath, too. Case does not count
// (that of ASCII), since it may not to the host. A path is relative to the workspace, without a leading '/'.
//
// "!PATTERN" takes that very pattern out of those before it. (It excepts no path from another pattern: what is excepted
// in one place could be moved there, changed, and moved back.)
//
// A pattern of several components, .git/hooks say, makes its beginnings special as well: a .git that is renamed can be
// changed under the other name, and a .git that is a file or a symlink leads elsewhere. See lies_on_way().
//
// Thread safety: any thread (const).
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"

namespace sbx::files {

class Patterns {
 public:
  // What "!PATTERN" is without that pattern before it: an error, or nothing. The latter where the default ones may have
  // changed since the list was written.
  enum class Exceptions { kMustMatch, kMayBeStale };
  // kInvalid for a pattern that is empty, too long, or has "." or ".." or an empty component.
  static Result<Patterns> parse(const std::vector<std::string>& patterns,
                                Exceptions exceptions = Exceptions::kMustMatch);

  bool empty() const { return patterns_.empty(); }
  // The path, or a folder that it is in, matches.
  bool matches(std::string_view path) const;
  // What lies below `path` may match by a component that this path has used up. A regular file has nothing below it,
  // but may tell where to look instead; that counts only where a pattern names the file, not where "**" takes it.
  enum class Kind { kFile, kOther };
  bool lies_on_way(std::string_view path, Kind kind) const;

 private:
  struct Component {
    std::string text;
    enum Kind { kName, kGlob, kAnyDepth } kind;
    bool operator==(const Component&) const = default;
  };
  struct Pattern {
    bool anchored = false;
    std::vector<Component> components;
    bool operator==(const Pattern&) const = default;
  };
  friend class PatternMatch;
  static Result<Pattern> parse_one(std::string_view text);
  void index();
  // Whether `wanted` holds for one of the patterns that this path may match.
  template <typename Wanted>
  bool any(std::string_view path, Wanted wanted) const;

  std::vector<Pattern> patterns_;
  // Which patterns begin with this name, in lower case, and which with a glob: most paths match none by far.
  std::unordered_map<std::string, std::vector<std::size_t>> by_name_;
  std::vector<std::size_t> by_glob_;
};

// What the host runs, or lets decide what it runs, when its user works in the folder.
const std::vector<std::string>& default_protected();

}  // namespace sbx::files
