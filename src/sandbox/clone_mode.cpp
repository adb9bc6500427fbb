#include "sandbox/clone_mode.h"

#include <nlohmann/json.hpp>

#include "sandbox/workspaces.h"

namespace sbx::sandbox {
namespace {

namespace fs = std::filesystem;

// $1: the clone, $2: "new" or "again". The agent must be able to get there: the host's path may lead through folders
// that are root's here. /tmp is in memory in a sandbox, so that a place there is a mount, made again after a boot.
constexpr const char* kPlaceScript = R"sh(
set -eu
if [ "$2" = new ] && [ -e "$1" ] && [ -n "$(ls -A "$1")" ]; then exit 70; fi
mkdir -p "$1"
folder=$(dirname "$1")
while [ "$folder" != / ]; do
  chmod a+x "$folder"
  folder=$(dirname "$folder")
done
case $1 in
  /tmp/*)
    [ "$2" = again ] || mkdir -p /var/lib/sbx-clone
    mountpoint -q "$1" || mount --bind /var/lib/sbx-clone "$1"
    ;;
esac
[ "$2" = again ] || chown agent:agent "$1"
)sh";

// $1: the working tree's git folder, $2: the common one, $3: the clone, $4 and $5: name and e-mail address of the user.
//
// The host's configuration is read, never used: no hook, filter or alias of it is carried over. The remote `host` is
// the read-only source, so that what is committed on the host later can be fetched.
constexpr const char* kCloneScript = R"sh(
set -u
git_folder=$1 common=$2 target=$3 name=$4 email=$5
command -v git >/dev/null || exit 64
scratch=$(mktemp -d) || exit 69
trap 'rm -rf "$scratch"' EXIT
# Not the image's either: a filter of it (LFS) may be one that has to work and cannot here.
export GIT_CONFIG_GLOBAL="$scratch/config" GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0
git config --global safe.directory '*'
git config --global protocol.file.allow always
git config --global core.hooksPath /dev/null

# core.worktree of a submodule is a path of the host's.
repository() { folder=$1; shift; git --git-dir="$folder" --work-tree="$scratch" "$@"; }
source_config() { git config --file "$common/config" "$@" 2>/dev/null; }

commit=$(repository "$git_folder" rev-parse --quiet --verify 'HEAD^{commit}') || exit 65
branch=$(repository "$git_folder" symbolic-ref --quiet --short HEAD) || branch=

host=host
while source_config --get "remote.$host.url" >/dev/null; do host="$host-source"; done
git clone --quiet --no-checkout --no-tags --origin "$host" "$common" "$target" || exit 66
cd "$target" || exit 66
git fetch --quiet "$host" 'refs/tags/*:refs/tags/*' || exit 66

# A linked worktree has a HEAD of its own.
made=$(git symbolic-ref --quiet HEAD) || made=
if [ -n "$branch" ]; then
  git update-ref "refs/heads/$branch" "$commit" && git symbolic-ref HEAD "refs/heads/$branch" || exit 67
else
  git update-ref --no-deref HEAD "$commit" || exit 67
fi
if [ -n "$made" ] && [ "$made" != "refs/heads/$branch" ]; then
  git update-ref -d "$made"
  git config --remove-section "branch.${made#refs/heads/}"
fi
if [ -n "$branch" ]; then
  git config "branch.$branch.remote" "$host"
  git config "branch.$branch.merge" "refs/heads/$branch"
fi

# Remotes that are somewhere else: a path of the host is none here, and a password in a URL stays on the host.
source_config --name-only --get-regexp '^remote\..*\.url$' | while read -r key; do
  remote=${key#remote.}
  remote=${remote%.url}
  url=$(source_config --get "$key")
  case $url in
    file:*) continue ;;
    http://* | https://*) url=$(printf '%s' "$url" | sed 's#^\(https\{0,1\}://\)[^/@]*@#\1#') ;;
    *://*) ;;
    */*:*) continue ;;
    *:*) ;;
    *) continue ;;
  esac
  git config "remote.$remote.url" "$url" || continue
  git config "remote.$remote.fetch" "+refs/heads/*:refs/remotes/$remote/*"
  git fetch --quiet "$host" "+refs/remotes/$remote/*:refs/remotes/$remote/*" "^refs/remotes/$remote/HEAD"
  head=$(repository "$common" symbolic-ref --quiet "refs/remotes/$remote/HEAD") &&
    git symbolic-ref "refs/remotes/$remote/HEAD" "$head"
done
if [ -n "$branch" ]; then
  upstream=$(source_config --get "branch.$branch.remote")
  merge=$(source_config --get "branch.$branch.merge")
  if [ -n "$upstream" ] && [ -n "$merge" ] && git config --get "remote.$upstream.url" >/dev/null; then
    git config "branch.$branch.remote" "$upstream"
    git config "branch.$branch.merge" "$merge"
  fi
fi
value=$(source_config --get user.name) && name=$value
value=$(source_config --get user.email) && email=$value
[ -z "$name" ] || git config user.name "$name"
[ -z "$email" ] || git config user.email "$email"

git reset --quiet --hard || exit 68

# $1: a working tree, $2: the git folder of its original. What the host has of its submodules is not fetched again.
submodules() {
  [ -f "$1/.gitmodules" ] || return 0
  git config --file "$1/.gitmodules" --name-only --get-regexp '^submodule\..*\.path$' | while read -r key; do
    module=${key#submodule.}
    module=${module%.path}
    [ -d "$2/modules/$module/objects" ] || continue
    path=$(git config --file "$1/.gitmodules" --get "$key")
    git -C "$1" submodule --quiet init -- "$path" || continue
    url=$(git -C "$1" config --get "submodule.$module.url")
    git -C "$1" config "submodule.$module.url" "$2/modules/$module"
    if git -C "$1" submodule --quiet update -- "$path"; then
      git -C "$1/$path" remote set-url origin "$url"
      (submodules "$1/$path" "$2/modules/$module")
    fi
    git -C "$1" config "submodule.$module.url" "$url"
  done
}
submodules "$target" "$git_folder"
exit 0
)sh";

std::string in_sandbox(const CloneSource& source, const fs::path& folder) {
  const fs::path common = source.common_is_inside() ? fs::path(kCloneSource) / ".git" : fs::path(kCloneCommon);
  const auto below = folder.lexically_relative(source.common);
  return below == "." ? common.native() : (common / below).native();
}

Result<void> add_source(std::vector<store::Workspace>& workspaces, const fs::path& folder, const char* target,
                        const fs::path& home) {
  const nlohmann::json entry = {{"path", folder.native()}, {"target", "/clone"}, {"readonly", true}};
  auto workspace = SBX_TRY(check_workspace(entry, home), "checking the repository");
  workspace.path = target;
  workspace.index = workspaces.empty() ? 0 : workspaces.back().index + 1;
  workspaces.push_back(std::move(workspace));
  return {};
}

}  // namespace

Result<ClonePlan> plan_clone(std::vector<store::Workspace>& workspaces, const fs::path& home) {
  if (workspaces.empty()) return fail(ErrorCode::kInvalid, "--clone requires the path of a Git repository");
  const store::Workspace wanted = workspaces.front();
  if (wanted.file)
    return fail(ErrorCode::kInvalid, "--clone requires a Git repository, but " + wanted.on_host() + " is a file");
  if (wanted.readonly)
    return fail(ErrorCode::kInvalid, "a clone is the sandbox's own and cannot be read-only; leave out --clone or :ro");
  const auto source = SBX_TRY(find_clone_source(wanted.on_host()), "looking for the repository");
  ClonePlan plan;
  // A place of its own in the sandbox, and not only another spelling of the folder's?
  std::error_code error;
  const bool placed = !wanted.source.empty() && fs::weakly_canonical(wanted.path, error) != wanted.source;
  plan.target = placed ? wanted.path : source.root.native();
  SBX_TRY(check_target(plan.target), "checking the place of the clone");
  std::vector<store::Workspace> all;
  SBX_CHECK(add_source(all, source.root, kCloneSource, home), "mounting the repository");
  for (auto workspace = workspaces.begin() + 1; workspace != workspaces.end(); ++workspace) {
    all.push_back(*workspace);
    all.back().index = static_cast<int>(all.size()) - 1;
  }
  // What is mounted there would be what is cloned to.
  SBX_CHECK(check_hides_none(plan.target, std::vector<store::Workspace>(workspaces.begin() + 1, workspaces.end())),
            "checking the clone's place");
  if (!source.common_is_inside())
    SBX_CHECK(add_source(all, source.common, kCloneCommon, home), "mounting the repository");
  workspaces = std::move(all);
  plan.git = in_sandbox(source, source.git);
  plan.common = in_sandbox(source, source.common);
  return plan;
}

std::vector<std::string> clone_place_command(const ClonePlan& plan) {
  return {"/bin/sh", "-c", kPlaceScript, "clone", plan.target, "new"};
}

std::optional<std::vector<std::string>> clone_place_again_command(const std::string& target) {
  if (!target.starts_with("/tmp/")) return std::nullopt;
  return std::vector<std::string>{"/bin/sh", "-c", kPlaceScript, "clone", target, "again"};
}

std::vector<std::string> clone_command(const ClonePlan& plan) {
  return {"/bin/sh",          "-c", kCloneScript, "clone", plan.git, plan.common, plan.target, plan.identity.name,
          plan.identity.email};
}

Result<void> clone_outcome(int exit_status, const ClonePlan& plan) {
  switch (exit_status) {
    case 0:
      return {};
    case 64:
      return fail(ErrorCode::kInvalid, "--clone needs git in the sandbox's image, which has none");
    case 65:
      return fail(ErrorCode::kInvalid, "the repository has no commits yet; commit something first, then clone it");
    case 66:
      return fail(
          ErrorCode::kInvalid,
          "git could not clone the repository in the sandbox; 'git fsck' on the host tells whether it is whole");
    case 67:
      return fail(ErrorCode::kInvalid, "what is checked out could not be found in the clone; check out a branch first");
    case 68:
      return fail(ErrorCode::kInvalid, "git could not check the clone out in the sandbox");
    case 70:
      return fail(ErrorCode::kConflict, plan.target +
                                            " is there in the sandbox's image already; say where to clone to "
                                            "with SRC:DST");
    default:
      return fail(ErrorCode::kInternal, "the clone was not made (exit status " + std::to_string(exit_status) + ")");
  }
}

}  // namespace sbx::sandbox
