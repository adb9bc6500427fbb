// The command that makes a clone, run as it is by the shell and git of this machine.
#include "sandbox/clone_mode.h"

#include <gtest/gtest.h>

#include "base/command.h"
#include "base/file.h"

namespace sbx::sandbox {
namespace {

namespace fs = std::filesystem;

class CloneCommand : public ::testing::Test {
 protected:
  // With a system configuration like that of an image.
  Result<std::string> run(std::vector<std::string> argv) {
    std::vector<std::string> all = {"/usr/bin/env", "GIT_CONFIG_GLOBAL=/dev/null",
                                    "GIT_CONFIG_SYSTEM=" + (top_ / "system").native()};
    all.insert(all.end(), argv.begin(), argv.end());
    return Command(std::move(all)).working_folder(top_).output();
  }
  std::string host(const std::string& script) {
    const auto said = run({"/bin/sh", "-euc",
                           "git() { command git -c user.name=T -c user.email=t@example.com "
                           "-c init.defaultBranch=main \"$@\"; }; " +
                               script});
    EXPECT_TRUE(said) << said.error().describe();
    return said.value_or("");
  }
  Result<std::string> clone() {
    ClonePlan plan;
    plan.target = top_ / "clone";
    plan.git = plan.common = top_ / "repo/.git";
    return run(clone_command(plan));
  }

  TemporaryFolder folder_ = TemporaryFolder::make("sbx-clone").value();
  fs::path top_ = fs::canonical(folder_.path());
};

TEST_F(CloneCommand, LeavesLfsFilesThePointersThatAreCommittedWhateverFiltersAreConfigured) {
  host(R"(
    : >system
    git init -q repo; cd repo
    printf '*.bin filter=lfs diff=lfs merge=lfs -text\n' >.gitattributes
    printf 'version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 5\n' 1 >big.bin; cp big.bin ../pointer
    git add .; git commit -qm first)");
  // As `git lfs install` has it on a machine, and here nothing can run it.
  host(R"(
    for file in system repo/.git/config; do
      git config --file $file filter.lfs.required true
      git config --file $file filter.lfs.clean 'no-such-git-lfs clean -- %f'
      git config --file $file filter.lfs.smudge 'no-such-git-lfs smudge -- %f'
      git config --file $file filter.lfs.process 'no-such-git-lfs filter-process'
    done)");
  const auto made = clone();
  ASSERT_TRUE(made) << made.error().describe();
  host("cmp pointer clone/big.bin");
  host(": >system");
  EXPECT_EQ(host("git -C clone status --short; git -C clone config --get-regexp '^filter' || true"), "");
}

TEST_F(CloneCommand, CopiesTheObjectsOnceAndNeedsTheHostsNoMore) {
  host(R"(
    : >system
    git init -q repo; cd repo; git config core.bigFileThreshold 1m
    for i in 1 2 3; do head -c 4000000 /dev/urandom >data; git add data; git commit -qm "$i"; done
    git rm -q data; git commit -qm last; git branch gone HEAD~1; git tag kept; git repack -qad; rm -f data)");
  const auto made = clone();
  ASSERT_TRUE(made) << made.error().describe();
  // (The same blocks, where both are on one file system.)
  EXPECT_LT(std::stoi(host("du -sk clone | cut -f1")), 12'000 * 11 / 10);
  EXPECT_EQ(host("git -C clone count-objects -v | grep -c ^alternate || true"), "0\n");
  host("mv repo away; git -C clone fsck --full; git -C clone rev-list --objects --all >objects; test -s objects");
}

}  // namespace
}  // namespace sbx::sandbox
