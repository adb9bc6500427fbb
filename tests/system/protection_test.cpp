// The host's files against root in a sandbox: protected paths, hidden names, hard links; and what `sbx changes` tells.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "instance.h"

namespace sbx::test {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;

// A repository of git's with one commit, made on the host.
void make_repository(const fs::path& folder) {
  const std::string git = "git -C " + folder.string() + " -c user.name=host -c user.email=host@localhost ";
  const auto made = run(Command({"sh", "-c",
                                 git + "init -q -b main && echo one > " + (folder / "tracked").string() + " && " + git +
                                     "add tracked && " + git + "commit -q -m first && " + git +
                                     "config user.name agent && " + git + "config user.email agent@localhost"}));
  ASSERT_EQ(made.status, 0) << made.err;
}

// What a folder holds: path and contents of each file.
std::set<std::string> picture(const fs::path& folder) {
  std::set<std::string> lines;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const bool file = entry.is_regular_file();
    lines.insert(entry.path().string() + (file ? "=" + read_file(entry.path()).value_or("unreadable") : ""));
  }
  return lines;
}

// KIND PATH of every change, in order.
std::vector<std::string> changes_of(const std::string& name) {
  std::vector<std::string> list;
  const auto answer = sbx_json({"changes", name, "--json"});
  EXPECT_EQ(answer.at("complete"), true);
  for (const auto& change : answer.at("changes"))
    list.push_back(change.at("kind").get<std::string>() + " " + change.at("path").get<std::string>());
  return list;
}

// "KIND PATH", or "denied KIND PATH", of every report.
std::set<std::string> reports_of(const Sandbox& sandbox) {
  std::set<std::string> reports;
  const auto protection = sandbox.inspected().at("protection");
  EXPECT_EQ(protection.at("complete"), true);
  for (const auto& report : protection.at("reports")) {
    EXPECT_GE(report.at("count"), 1);
    reports.insert((report.at("denied").get<bool>() ? "denied " : "") + report.at("kind").get<std::string>() + " " +
                   report.at("path").get<std::string>());
  }
  return reports;
}

TEST(Protection, DenyAndHideHoldAgainstRootAndOverARestart) {
  Sandbox sandbox({"--protect-mode", "deny", "--protect", "fixed.txt", "--protect=!.idea", "--hide", ".env"});
  const auto workspace = sandbox.workspace();
  make_repository(workspace);
  ASSERT_TRUE(write_file_atomically(workspace / ".env", "SECRET", 0644));
  ASSERT_TRUE(write_file_atomically(workspace / "fixed.txt", "fixed", 0644));
  ASSERT_TRUE(write_file_atomically(workspace / "plain", "plain", 0644));
  const auto hooks = picture(workspace / ".git/hooks");
  const auto config = read_file(workspace / ".git/config").value();
  const std::string attack = R"(
    ls -a; cat .env; echo x > .env; mkdir .env; ln .env seen; mv .env seen; mv plain .env; ln plain .env; ln -s plain .env
    cat seen; find . -maxdepth 1; stat .env; rm -f .env
    echo x > fixed.txt; echo x >> fixed.txt; truncate -s 0 fixed.txt; rm -f fixed.txt; mv fixed.txt gone
    python3 -c 'import mmap; f = open("fixed.txt", "r+b"); m = mmap.mmap(f.fileno(), 0); m[0:1] = b"X"; m.flush()'
    echo '#!/bin/sh' > .git/hooks/pre-commit; cp /bin/true .git/hooks/post-commit; mkdir .git/hooks/d
    echo x > .git/config; echo x > c; mv c .git/config; cp c .git/config.lock && mv .git/config.lock .git/config
    ln c .git/hooks/c; ln .git/config linked && echo x > linked; ln -s ../../c .git/hooks/post-checkout
    mv .git x && echo x > x/config && mv x .git
    ln -s .git way; echo x > way/config; echo x > way/hooks/pre-push; (cd way/hooks && echo x > update)
    mkdir -p d/hooks; echo x > d/hooks/pre-commit; mkdir -p sub; mv d sub/.git; cp -r d sub/.git; ln -s ../d sub/.git
    mv .git/hooks away; rm -rf .git/hooks; touch -d @1 .git/config; chmod 777 .git/config; chmod -R 777 .git/hooks
    mount -o remount,rw,bind . 2> /dev/null; echo x > .git/config
    mkdir .idea && echo own > .idea/workspace.xml
    true)";
  for (const bool again : {false, true}) {
    if (again) {
      ASSERT_EQ(sbx({"stop", sandbox.name()}).status, 0);
    }
    const auto outcome = sandbox.root(attack);
    ASSERT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_THAT(outcome.out, HasSubstr("fixed.txt"));
    EXPECT_THAT(outcome.out, Not(HasSubstr("SECRET")));
    EXPECT_THAT(outcome.out, Not(HasSubstr(".env")));
    EXPECT_EQ(read_file(workspace / ".env").value_or("gone"), "SECRET");
    EXPECT_EQ(read_file(workspace / "fixed.txt").value_or("gone"), "fixed");
    EXPECT_EQ(read_file(workspace / "plain").value_or("gone"), "plain");
    EXPECT_EQ(read_file(workspace / ".git/config").value_or("gone"), config);
    EXPECT_EQ(picture(workspace / ".git/hooks"), hooks);
    EXPECT_FALSE(fs::exists(workspace / "sub/.git/hooks/pre-commit"));
    EXPECT_FALSE(fs::exists(workspace / ".git/config.lock")) << "git on the host would wait for it";
    EXPECT_EQ(read_file(workspace / ".idea/workspace.xml").value_or("refused"), "own\n");
  }
  // git's everyday work is none of that.
  const auto commit = sandbox.shell(
      "echo two >> tracked && git commit -q -am second && git checkout -q -b topic && "
      "git log --format=%an:%s && ! git config user.name other");
  EXPECT_EQ(commit.status, 0) << commit.err;
  EXPECT_EQ(commit.out, "agent:second\nhost:first\n");

  const auto protection = sandbox.inspected().at("protection");
  EXPECT_EQ(protection.at("mode"), "deny");
  EXPECT_EQ(protection.at("hide").dump(), "[\".env\"]");
  const auto reports = reports_of(sandbox);
  for (const auto* report : {"denied write .git/config", "denied rename .git", "denied create .git/hooks/pre-commit",
                             "denied link .git/hooks/c", "denied remove fixed.txt", "denied attributes .git/config"}) {
    EXPECT_THAT(reports, Contains(report));
  }
  EXPECT_THAT(reports, testing::Each(testing::StartsWith("denied ")));
}

TEST(Protection, ChangesAreToldAndFilesLinkedElsewhereAreReadOnly) {
  Sandbox sandbox;
  const auto workspace = sandbox.workspace();
  make_repository(workspace);
  auto outside = TemporaryFolder::make("sbx-outside").value();
  ASSERT_TRUE(write_file_atomically(outside.path() / "victim", "untouched", 0666));
  fs::create_hard_link(outside.path() / "victim", workspace / "linked");
  ASSERT_TRUE(write_file_atomically(workspace / "edited", "one\ntwo\n", 0644));
  ASSERT_TRUE(write_file_atomically(workspace / "removed", "gone\n", 0644));
  const auto outcome = sandbox.root(R"sh(
    echo three >> edited; rm removed; mkdir made; echo x > made/a; ln made/a made/b; echo y >> made/b
    echo bad > linked; truncate -s 0 linked; chmod 777 linked; ln linked more && echo bad >> more; rm -f more
    echo two >> tracked; echo one > tracked
    touch "$(printf 'na\033[31mme')")sh");
  EXPECT_EQ(read_file(outside.path() / "victim").value_or("gone"), "untouched") << outcome.err;
  EXPECT_EQ(fs::status(outside.path() / "victim").permissions(), fs::perms(0666));
  EXPECT_EQ(read_file(workspace / "made/a").value_or("gone"), "x\ny\n") << outcome.err;
  EXPECT_THAT(changes_of(sandbox.name()),
              testing::UnorderedElementsAre("modified edited", "added made", "added made/a", "added made/b",
                                            "added na\x1b[31mme", "deleted removed"));
  const auto diff = sbx({"changes", sandbox.name(), "--diff"});
  ASSERT_EQ(diff.status, 0) << diff.err;
  EXPECT_THAT(diff.out, HasSubstr("--- a/edited\n+++ b/edited\n@@ -1,2 +1,3 @@\n one\n two\n+three\n"));
  EXPECT_THAT(diff.out, HasSubstr("-gone\n"));
  const auto table = sbx({"changes", sandbox.name()});
  EXPECT_THAT(table.out, HasSubstr("na\\x1b[31mme"));
  EXPECT_THAT(table.out + diff.out + diff.err, Not(HasSubstr("\x1b")));
  EXPECT_EQ(reports_of(sandbox), std::set<std::string>());

  const auto git = sandbox.shell(
      "printf 'echo hi\\n' > .git/hooks/pre-push && git config core.pager less && echo more >> edited && "
      "git add edited && git commit -q -m second && mv .git x && echo '# x' >> x/config && mv x .git && git status -s "
      "&& "
      "mkdir -p fake/hooks sub && echo x > fake/hooks/pre-commit && ln fake/hooks/pre-commit second && ! mv fake "
      "sub/.git");
  ASSERT_EQ(git.status, 0) << git.err;
  EXPECT_FALSE(fs::exists(workspace / "sub/.git"));
  EXPECT_EQ(reports_of(sandbox),
            (std::set<std::string>{"create .git/hooks/pre-push", "write .git/hooks/pre-push", "create .git/config.lock",
                                   "write .git/config.lock", "attributes .git/config.lock", "rename .git/config.lock",
                                   "rename .git/config", "rename .git", "denied rename sub/.git/hooks/pre-commit"}));
  const auto changes = changes_of(sandbox.name());
  EXPECT_THAT(changes, Contains("modified .git"));
  EXPECT_THAT(changes, Not(Contains(HasSubstr(".git/objects/"))));
  EXPECT_THAT(sbx({"changes", sandbox.name()}).err,
              HasSubstr("Protected: create " + workspace.string() + "/.git/hooks/pre-push"));
  // They outlive the machine.
  ASSERT_EQ(sbx({"stop", sandbox.name()}).status, 0);
  EXPECT_EQ(changes_of(sandbox.name()), changes);
}

TEST(Protection, PatternsThatMakeNoSenseAreRefusedAtOnce) {
  auto folder = TemporaryFolder::make("sbx-patterns").value();
  for (const auto& [flag, why] : {std::pair{"--hide=../x", "\"../x\" is not a pattern of paths in a workspace"},
                                  {"--protect=!nothing", "\"!nothing\" takes out nothing"},
                                  {"--protect-mode=maybe", "maybe"}}) {
    const auto refused =
        sbx({"create", flag, "--name", "patterns-that-make-no-sense", "shell", folder.path().string()});
    EXPECT_NE(refused.status, 0) << flag;
    EXPECT_THAT(refused.err, HasSubstr(why));
  }
  EXPECT_NE(sbx({"inspect", "patterns-that-make-no-sense"}).status, 0);
}

}  // namespace
}  // namespace sbx::test
