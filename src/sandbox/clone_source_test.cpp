#include "sandbox/clone_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/command.h"
#include "base/file.h"
#include "sandbox/create_request.h"

namespace sbx::sandbox {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class CloneSourceTest : public ::testing::Test {
 protected:
  // In the shell, with git as a user has it.
  void run(const std::string& script) {
    const auto done = Command({"/bin/sh", "-euc",
                               "export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1; cd \"$0\"; "
                               "git() { command git -c user.name=T -c user.email=t@example.com "
                               "-c protocol.file.allow=always -c init.defaultBranch=main \"$@\"; }; " +
                                   script,
                               top_.native()})
                          .output();
    ASSERT_TRUE(done) << done.error().describe();
  }
  std::string refusal(const std::string& path) {
    const auto found = find_clone_source(top_ / path);
    return found ? "found " + found->common.native() : found.error().message;
  }

  TemporaryFolder folder_ = TemporaryFolder::make("sbx-clone").value();
  fs::path top_ = fs::canonical(folder_.path());
};

TEST_F(CloneSourceTest, FindsTheRepositoryAroundAFolder) {
  run("git init -q repo; mkdir repo/sub");
  const auto found = find_clone_source(top_ / "repo/sub");
  ASSERT_TRUE(found) << found.error().describe();
  EXPECT_EQ(found->root, top_ / "repo");
  EXPECT_EQ(found->git, top_ / "repo/.git");
  EXPECT_TRUE(found->common_is_inside());
}

TEST_F(CloneSourceTest, FindsWhatLinkedWorktreesAndSubmodulesBelongTo) {
  run("git init -q lib; git -C lib commit -q --allow-empty -m l;"
      "git init -q repo; git -C repo commit -q --allow-empty -m r;"
      "git -C repo worktree add -q ../tree; git -C repo submodule --quiet add ../lib mod");
  const auto tree = find_clone_source(top_ / "tree");
  ASSERT_TRUE(tree) << tree.error().describe();
  EXPECT_EQ(tree->git, top_ / "repo/.git/worktrees/tree");
  EXPECT_EQ(tree->common, top_ / "repo/.git");
  const auto module = find_clone_source(top_ / "repo/mod");
  ASSERT_TRUE(module) << module.error().describe();
  EXPECT_EQ(module->root, top_ / "repo/mod");
  EXPECT_EQ(module->common, top_ / "repo/.git/modules/mod");
}

TEST_F(CloneSourceTest, BelievesNoPointerThatIsNotReturned) {
  // What a sandbox with a direct mount could leave behind: .git files and links that name a repository of the user's.
  run("git init -q private; git -C private commit -q --allow-empty -m p; git -C private worktree add -q ../tree;"
      "mkdir a b c d; echo \"gitdir: $0/private/.git\" >a/.git; ln -s ../private/.git b/.git;"
      "echo \"gitdir: $0/private/.git/worktrees/tree\" >c/.git;"
      "mkdir -p d/fake/worktrees/x; echo \"$0/private/.git\" >d/fake/worktrees/x/commondir;"
      "echo \"$0/d/.git\" >d/fake/worktrees/x/gitdir; echo ref: refs/heads/main >d/fake/worktrees/x/HEAD;"
      "echo \"gitdir: fake/worktrees/x\" >d/.git");
  EXPECT_THAT(refusal("a"), HasSubstr("does not say that"));
  EXPECT_THAT(refusal("b"), HasSubstr("symbolic link"));
  EXPECT_THAT(refusal("c"), HasSubstr("does not say that"));
  EXPECT_THAT(refusal("d"), HasSubstr("does not say that"));
}

TEST_F(CloneSourceTest, NeitherWaitsNorReadsWithoutEnd) {
  run("git init -q lib; mkdir fifo long; mkfifo lib/.git/commondir; echo gitdir: ../lib/.git >fifo/.git;"
      "{ printf 'gitdir: '; head -c 1000000 /dev/zero | tr '\\0' x; } >long/.git; mkdir device; mkfifo device/.git");
  EXPECT_THAT(refusal("fifo"), HasSubstr("not a regular file"));
  EXPECT_THAT(refusal("long"), HasSubstr("where there is no repository"));
  EXPECT_THAT(refusal("device"), HasSubstr("not a Git repository"));
}

TEST_F(CloneSourceTest, SaysWhatIsInTheWay) {
  run("mkdir none; git init -q --bare bare; git init -q lib; git -C lib commit -q --allow-empty -m l;"
      "git clone -q --shared lib borrower; git init -q --separate-git-dir elsewhere separate; mkdir gone;"
      "echo gitdir: ../nowhere >gone/.git");
  EXPECT_THAT(refusal("none"), HasSubstr("--clone requires a Git repository, but"));
  EXPECT_THAT(refusal("bare"), HasSubstr("without a working tree"));
  EXPECT_THAT(refusal("borrower"), HasSubstr("borrows objects"));
  EXPECT_THAT(refusal("separate"), HasSubstr("config core.worktree"));
  EXPECT_THAT(refusal("gone"), HasSubstr("where there is no repository"));
  run("git -C separate config core.worktree \"$0/separate\"");
  EXPECT_THAT(refusal("separate"), HasSubstr("found"));
}

TEST_F(CloneSourceTest, ARequestForACloneMountsTheRepositoryBesideIt) {
  run("git init -q repo; mkdir repo/sub other; git -C repo commit -q --allow-empty -m r;"
      "git -C repo worktree add -q ../tree");
  const auto parse = [&](nlohmann::json workspaces, nlohmann::json clone = nlohmann::json::object()) {
    return parse_create_request({{"workspaces", std::move(workspaces)}, {"clone", std::move(clone)}}, "/nowhere");
  };
  const std::string repo = top_ / "repo";
  const std::string tree = top_ / "tree";
  const std::string other = top_ / "other";
  const auto plain = parse({repo + "/sub", other}, {{"user_name", "N"}});
  ASSERT_TRUE(plain) << plain.error().describe();
  EXPECT_EQ(plain->clone->target, repo);
  EXPECT_EQ(plain->clone->git, "/run/sandbox/source/.git");
  EXPECT_EQ(plain->clone->identity.name, "N");
  ASSERT_EQ(plain->workspaces.size(), 2U);
  EXPECT_EQ(plain->workspaces[0].path, kCloneSource);
  EXPECT_EQ(plain->workspaces[0].on_host(), repo);
  EXPECT_TRUE(plain->workspaces[0].readonly);
  EXPECT_FALSE(plain->workspaces[1].readonly);

  nlohmann::json moved = {{"path", tree}, {"target", "/work/tree"}};
  const auto linked = parse({moved, other});
  ASSERT_TRUE(linked) << linked.error().describe();
  EXPECT_EQ(linked->clone->target, "/work/tree");
  EXPECT_EQ(linked->clone->git, "/run/sandbox/git/worktrees/tree");
  EXPECT_EQ(linked->clone->common, "/run/sandbox/git");
  ASSERT_EQ(linked->workspaces.size(), 3U);
  EXPECT_EQ(linked->workspaces[2].on_host(), repo + "/.git");
  EXPECT_TRUE(linked->workspaces[2].readonly);
  EXPECT_EQ(linked->workspaces[2].index, 2);

  EXPECT_FALSE(parse(nlohmann::json::array()));
  EXPECT_FALSE(parse({other}));
  EXPECT_FALSE(parse({repo}, {{"depth", 1}})) << "what is not known";
  EXPECT_FALSE(parse({repo, repo + "/sub"})) << "a workspace where the clone is to be";
  EXPECT_FALSE(parse_create_request({{"workspaces", {repo}}, {"clone", nlohmann::json::object()}}, repo + "/.git/sbx"))
      << "sbx's own state is not to be cloned";
}

}  // namespace
}  // namespace sbx::sandbox
