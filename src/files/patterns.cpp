#include "files/patterns.h"

#include <fnmatch.h>
#include <strings.h>

#include <algorithm>
#include <limits>

namespace sbx::files {
namespace {

constexpr std::size_t kLongest = 1024;
constexpr std::size_t kMostComponents = 32;

std::vector<std::string> split(std::string_view path) {
  std::vector<std::string> names;
  while (!path.empty()) {
    const auto slash = path.find('/');
    names.emplace_back(path.substr(0, slash));
    path.remove_prefix(slash == std::string_view::npos ? path.size() : slash + 1);
  }
  return names;
}

// Of ASCII only.
std::string lower(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

}  // namespace

// One walk over a path that keeps the set of all positions which a pattern may have reached (bit i: the first i
// components are used up), so that the cost is pattern times path whatever the pattern.
class PatternMatch {
 public:
  using Set = std::uint64_t;
  static_assert(kMostComponents < std::numeric_limits<Set>::digits);

  explicit PatternMatch(const Patterns::Pattern& pattern) : pattern_(pattern) {}

  // `whole`: all of the pattern matched a beginning of the path. `named`: a component other than "**" matched the
  // path's last name. `way`: that, or "**" took it.
  struct Found {
    bool whole = false;
    bool named = false;
    bool way = false;
  };
  Found of(const std::vector<std::string>& path) const {
    Found found;
    Set at = 1;
    for (const auto& name : path) {
      const Set swallowed = swallowing(at);
      const Set matched = matching(at, name);
      at = swallowed | matched;
      found.named = matched != 0;
      found.way = at != 0;
      if ((at & bit(pattern_.components.size())) != 0) found.whole = true;
      if (!pattern_.anchored) at |= 1;
    }
    return found;
  }

 private:
  static Set bit(std::size_t position) { return Set{1} << position; }

  bool any_depth(std::size_t i) const { return pattern_.components[i].kind == Patterns::Component::kAnyDepth; }

  // Where "**" gets by taking a name.
  Set swallowing(Set at) const {
    Set next = 0;
    for (std::size_t i = 0; i < pattern_.components.size(); ++i) {
      if ((at & bit(i)) == 0 || !any_depth(i)) continue;
      next |= bit(i);
      if (i + 1 == pattern_.components.size()) next |= bit(i + 1);
    }
    return next;
  }

  // Where the others get; "**" may stand for no name at all.
  Set matching(Set at, const std::string& name) const {
    Set next = 0;
    const auto& components = pattern_.components;
    for (std::size_t i = 0; i < components.size(); ++i) {
      if ((at & bit(i)) == 0) continue;
      const std::size_t named = any_depth(i) ? i + 1 : i;
      if (named < components.size() && matches(components[named], name)) next |= bit(named + 1);
    }
    return next;
  }

  static bool matches(const Patterns::Component& component, const std::string& name) {
    if (component.kind == Patterns::Component::kName) return ::strcasecmp(component.text.c_str(), name.c_str()) == 0;
    return ::fnmatch(component.text.c_str(), name.c_str(), FNM_CASEFOLD) == 0;
  }

  const Patterns::Pattern& pattern_;
};

Result<Patterns::Pattern> Patterns::parse_one(std::string_view text) {
  const std::string whole(text);
  Pattern pattern;
  pattern.anchored = text.starts_with('/');
  if (pattern.anchored) text.remove_prefix(1);
  if (text.ends_with('/')) text.remove_suffix(1);
  bool usable =
      !text.empty() && !text.ends_with('/') && text.size() <= kLongest && text.find('\0') == std::string_view::npos;
  for (auto& name : split(text)) {
    usable = usable && !name.empty() && name != "." && name != "..";
    if (name == "**") {
      // At the beginning it means what no leading '/' means; twice what once means.
      if (pattern.components.empty()) {
        pattern.anchored = false;
      } else if (pattern.components.back().kind != Component::kAnyDepth) {
        pattern.components.push_back({"", Component::kAnyDepth});
      }
      continue;
    }
    const auto kind = name.find_first_of("*?[\\") == std::string::npos ? Component::kName : Component::kGlob;
    if (kind == Component::kName) name = lower(std::move(name));
    pattern.components.push_back({std::move(name), kind});
  }
  if (!usable || pattern.components.empty() || pattern.components.size() > kMostComponents) {
    return fail(ErrorCode::kInvalid, "\"" + whole + "\" is not a pattern of paths in a workspace; write NAME, A/B, " +
                                         "/A/B (from the workspace's root), or !PATTERN to take one out");
  }
  return pattern;
}

Result<Patterns> Patterns::parse(const std::vector<std::string>& patterns, Exceptions exceptions) {
  Patterns result;
  for (const auto& text : patterns) {
    const bool out = text.starts_with('!');
    auto pattern = SBX_TRY(parse_one(std::string_view(text).substr(out ? 1 : 0)), "reading a pattern");
    if (!out) {
      result.patterns_.push_back(std::move(pattern));
    } else if (std::erase(result.patterns_, pattern) == 0 && exceptions == Exceptions::kMustMatch) {
      return fail(ErrorCode::kInvalid, "\"" + text + "\" takes out nothing: there is no pattern \"" + text.substr(1) +
                                           "\" before it; docs/security.md lists the default ones");
    }
  }
  result.index();
  return result;
}

void Patterns::index() {
  for (std::size_t i = 0; i < patterns_.size(); ++i) {
    const auto& first = patterns_[i].components.front();
    (first.kind == Component::kName ? by_name_[first.text] : by_glob_).push_back(i);
  }
}

template <typename Wanted>
bool Patterns::any(std::string_view path, Wanted wanted) const {
  if (patterns_.empty()) return false;
  const auto names = split(path);
  const auto among = [&](const std::vector<std::size_t>& candidates) {
    return std::ranges::any_of(
        candidates, [&](std::size_t i) { return wanted(patterns_[i], PatternMatch(patterns_[i]).of(names)); });
  };
  for (const auto& name : names) {
    const auto found = by_name_.find(lower(name));
    if (found != by_name_.end() && among(found->second)) return true;
  }
  return among(by_glob_);
}

bool Patterns::matches(std::string_view path) const {
  return any(path, [](const Pattern&, const PatternMatch::Found& found) { return found.whole; });
}

bool Patterns::lies_on_way(std::string_view path, Kind kind) const {
  return any(path, [kind](const Pattern& pattern, const PatternMatch::Found& found) {
    return pattern.components.size() > 1 && (kind == Kind::kFile ? found.named : found.way);
  });
}

const std::vector<std::string>& default_protected() {
  static const std::vector<std::string> kPatterns = {
      // git: what it runs, and what tells it where to find that.
      ".git/hooks", ".git/config", ".git/config.worktree", ".git/info/attributes", ".git/commondir", ".git/gitdir",
      ".git/modules/**/hooks", ".git/modules/**/config", ".git/modules/**/config.worktree", ".git/modules/**/commondir",
      ".git/modules/**/info/attributes", ".git/worktrees/**/config.worktree", ".git/worktrees/*/modules/**/hooks",
      ".git/worktrees/*/modules/**/config", ".git/worktrees/*/modules/**/commondir", ".git/worktrees/*/commondir",
      ".git/worktrees/*/gitdir", ".gitmodules", ".gitconfig", ".husky", ".pre-commit-config.yaml",
      ".pre-commit-config.yml", "lefthook.yml", ".lefthook.yml",
      // Shells and tool versions that are taken up on entering a folder.
      ".envrc", ".direnv", ".mise.toml", "mise.toml", ".mise/config.toml", ".config/mise.toml",
      // Editors.
      ".vscode/tasks.json", ".vscode/launch.json", ".vscode/settings.json", ".vscode/mcp.json", "*.code-workspace",
      ".idea", ".run", ".zed", ".devcontainer", ".devcontainer.json", ".nvim.lua", ".nvimrc", ".exrc", ".vimrc",
      ".lvimrc", ".dir-locals.el",
      // Continuous integration.
      ".github/workflows", ".github/actions", ".gitea/workflows", ".forgejo/workflows", ".gitlab-ci.yml", ".circleci",
      ".buildkite", ".travis.yml", "Jenkinsfile", "azure-pipelines.yml", "bitbucket-pipelines.yml", "appveyor.yml",
      ".drone.yml", ".woodpecker", ".woodpecker.yml",
      // Package managers and build tools: their settings, not what they build.
      ".npmrc", ".yarnrc", ".yarnrc.yml", ".yarn/releases", ".yarn/plugins", ".pnpmfile.cjs", ".pypirc", "pip.conf",
      ".cargo/config", ".cargo/config.toml", ".bundle/config", ".mvn/jvm.config", ".mvn/extensions.xml", ".bazelrc",
      // Agents on the host.
      ".claude/settings.json", ".claude/settings.local.json", ".claude/hooks", ".mcp.json", ".cursor", ".codex",
      ".gemini"};
  return kPatterns;
}

}  // namespace sbx::files
