// Clone mode with real repositories: what comes into the sandbox, and what comes back.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "instance.h"
#include "processes.h"

namespace sbx::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

class CloneMode : public ::testing::Test {
 protected:
  ~CloneMode() override {
    for (const auto& name : made_) (void)sbx({"rm", "--force", name});
  }
  // A script of the user's on the host, in the folder of the test.
  Outcome host(const std::string& script) {
    return run(Command({"/bin/bash", "-euc",
                        "export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=\"$0/gitconfig\"; cd \"$0\"; " + script,
                        top().string()}));
  }
  std::string on_host(const std::string& script) {
    const auto outcome = host(script);
    EXPECT_EQ(outcome.status, 0) << script << "\n" << outcome.out << outcome.err;
    return outcome.out;
  }
  // The user's sbx: with the user's git configuration.
  Outcome user_sbx(const std::vector<std::string>& arguments) {
    std::vector<std::string> argv = {"/usr/bin/env", "GIT_CONFIG_NOSYSTEM=1",
                                     "GIT_CONFIG_GLOBAL=" + (top() / "gitconfig").string()};
    const auto line = command_line(arguments);
    argv.insert(argv.end(), line.begin(), line.end());
    return run(Command(argv));
  }
  std::string create(const std::string& path, const std::string& place = "",
                     const std::vector<std::string>& more = {}) {
    static int next = 0;
    const std::string name = "c" + std::to_string(::getpid()) + "-" + std::to_string(next++);
    std::vector<std::string> arguments = {"create", "--clone", "--auto-stop", "off",
                                          "--name", name,      "shell",       (top() / path).string() + place};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const auto outcome = user_sbx(arguments);
    EXPECT_EQ(outcome.status, 0) << outcome.out << outcome.err;
    created_ = outcome.out + outcome.err;
    made_.push_back(name);
    return name;
  }
  static std::string in(const std::string& sandbox, const std::string& script) {
    const auto outcome = sbx({"exec", sandbox, "bash", "-c", script});
    return outcome.out + outcome.err;
  }
  fs::path top() const { return top_; }

  TemporaryFolder folder_ = TemporaryFolder::make("sbx-clone").value();
  fs::path top_ = fs::canonical(folder_.path());
  std::vector<std::string> made_;
  std::string created_;  // what the last creation said

  void SetUp() override {
    on_host(R"(
      git config --global user.name 'A User'; git config --global user.email user@example.com
      git config --global init.defaultBranch main; git config --global protocol.file.allow always
      git init -q lib; echo library >lib/file; git -C lib add .; git -C lib commit -qm library
      git init -q repo; cd repo
      echo one >file; echo secret >.env; echo .env >.gitignore; printf '*.bin filter=lfs diff=lfs merge=lfs -text\n' >.gitattributes
      printf 'version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 5\n' 1 >big.bin
      git submodule --quiet add "$OLDPWD/lib" mod
      git add .; git commit -qm first; git tag v1; git branch other
      git remote add origin https://user:password@example.com/x.git; git remote add local ../lib
      git update-ref refs/remotes/origin/main HEAD; git branch -q --set-upstream-to=origin/main
      git worktree add -q ../tree -b tree; git -C ../tree submodule --quiet update --init)");
  }
};

TEST_F(CloneMode, CommitsComeBackThroughARemote) {
  on_host("cd repo; echo more >>file; echo new >untracked");
  const std::string name = create("repo");
  EXPECT_THAT(created_, HasSubstr("✓ Git repository detected: " + (top() / "repo").string()));
  EXPECT_THAT(created_, HasSubstr("1 changed file and 1 untracked file in"));

  // The clone is the sandbox's own, at the same path; the source is there to be read.
  const std::string clone = (top() / "repo").string();
  EXPECT_EQ(in(name, "pwd; git status --short --branch; cat file mod/file big.bin | head -3"),
            clone + "\n## main...origin/main\none\nlibrary\nversion https://git-lfs.github.com/spec/v1\n");
  EXPECT_EQ(in(name, "cat /run/sandbox/source/file /run/sandbox/source/untracked"), "one\nmore\nnew\n");
  EXPECT_THAT(in(name, "touch /run/sandbox/source/x; sudo touch /run/sandbox/source/.git/x"),
              HasSubstr("Read-only file system"));
  const auto remotes = in(name, "git remote -v; git tag; git branch -r; git config user.email; ls -A");
  EXPECT_THAT(remotes, HasSubstr("https://example.com/x.git (fetch)"));
  EXPECT_THAT(remotes, Not(HasSubstr("password")));
  EXPECT_THAT(remotes, Not(HasSubstr("local")));
  EXPECT_THAT(remotes, HasSubstr("v1\n"));
  EXPECT_THAT(remotes, HasSubstr("host/other"));
  EXPECT_THAT(remotes, HasSubstr("user@example.com\n"));
  EXPECT_THAT(remotes, Not(HasSubstr(".env")));

  // One branch is fetched; the other one and the tag are not, and warned of.
  EXPECT_EQ(in(name, "git switch -qc work; echo two >file; git commit -qam work; git tag forged; git gc -q"), "");
  EXPECT_EQ(on_host("cd repo; git fetch -q sandbox-" + name + "; git log -1 --format=%s refs/remotes/sandbox-" + name +
                    "/work; git log -1 --format=%an refs/sandboxes/" + name + "/work; git tag"),
            "work\nA User\nv1\n");
  EXPECT_EQ(on_host("git -C repo config fetch.fsckObjects"), "true\n");
  // What the host commits can be had in the sandbox.
  on_host("cd repo; git commit -qam 'on the host'");
  EXPECT_EQ(in(name, "git fetch -q host; git log -1 --format=%s host/main"), "on the host\n");

  // `run` finds it again, from anywhere in the repository.
  const auto again = user_sbx({"run", "-d", "--clone", "shell", (top() / "repo/mod/..").string()});
  EXPECT_EQ(again.out, sbx_json({"inspect", name, "--json"})["id"].get<std::string>() + "\n") << again.err;
  // On the disk, though the path is one that is in memory in a sandbox.
  EXPECT_EQ(sbx({"stop", name}).status, 0);
  EXPECT_EQ(sbx({"exec", name, "true"}).status, 0);
  EXPECT_EQ(in(name, "pwd; git switch -q work; echo three >file; git commit -qam later; echo >uncommitted"),
            clone + "\n");
  const auto removed = user_sbx({"rm", "--force", name});
  EXPECT_EQ(removed.status, 0) << removed.err;
  EXPECT_THAT(removed.err,
              HasSubstr("refs/heads/work of sandbox '" + name + "' has commits that are not on this host"));
  EXPECT_THAT(removed.err, Not(HasSubstr("refs/heads/main of")));
  EXPECT_THAT(removed.err, HasSubstr("1 changed file in the clone of sandbox '" + name + "' is not committed"));
  // What was fetched outlives the sandbox; its remote does not.
  EXPECT_EQ(on_host("cd repo; git remote; git branch saved refs/sandboxes/" + name +
                    "/work; git log -1 --format=%s saved; git branch -r; git config fetch.fsckObjects || echo unset"),
            "local\norigin\nwork\n  origin/main\nunset\n");
}

TEST_F(CloneMode, TakesLinkedWorktreesAndSubmodules) {
  on_host("cd tree; echo tree >file; git commit -qam tree; cd ../repo/mod; git checkout -q --detach");
  const std::string tree = create("tree");
  EXPECT_EQ(in(tree, "git status --short --branch; cat file mod/file; git branch"),
            "## tree...host/tree\ntree\nlibrary\n* tree\n");
  EXPECT_EQ(in(tree, "echo sandbox >file; git commit -qam sandbox"), "");
  EXPECT_EQ(on_host("cd tree; git fetch -q sandbox-" + tree + "; git log -1 --format=%s sandbox-" + tree + "/tree"),
            "sandbox\n");
  const std::string module = create("repo/mod", ":/work/module", {(top() / "lib").string() + ":ro"});
  EXPECT_EQ(in(module, "pwd; cat file; git log --format=%s; git switch -qc fix; git commit -q --allow-empty -m fix"),
            "/work/module\nlibrary\nlibrary\n");
  EXPECT_EQ(
      on_host("cd repo/mod; git fetch -q sandbox-" + module + "; git log -1 --format=%s sandbox-" + module + "/fix"),
      "fix\n");
}

// In memory, and so empty after a boot, is what a sandbox has at /tmp; the clone is not.
TEST_F(CloneMode, IsThereAfterAColdBootOrSaidToBeGone) {
  const std::string name = create("repo");
  ASSERT_TRUE(top_.native().starts_with("/tmp/")) << "it would be on the disk anyway: " << top_;
  EXPECT_EQ(in(name, "git switch -qc work; echo two >file; git commit -qam work; echo >uncommitted; touch /tmp/gone"),
            "");
  EXPECT_EQ(sbx({"stop", name}).status, 0);
  const auto cold = sbx({"run", "-d", "--cold", "--name", name});
  EXPECT_EQ(cold.status, 0) << cold.err;
  EXPECT_EQ(cold.err.find("WARNING"), std::string::npos) << cold.err;
  EXPECT_EQ(in(name,
               "pwd; git status --short --branch; git log -1 --format=%s; cat file mod/file; ls /tmp/gone; "
               "git fetch -q host && echo fetched"),
            (top() / "repo").string() +
                "\n## work\n?? uncommitted\nwork\ntwo\nlibrary\nfetched\nls: cannot access '/tmp/gone': No such file "
                "or directory\n");
  EXPECT_EQ(on_host("cd repo; git fetch -q sandbox-" + name + "; git log -1 --format=%s sandbox-" + name + "/work"),
            "work\n");
  // Root there can do away with it.
  const auto removed = sbx({"exec", "-w", "/", "-u", "root", name, "sh", "-c",
                            "umount " + (top() / "repo").string() + "; rm -rf /var/lib/sbx-clone"});
  EXPECT_EQ(removed.status, 0) << removed.err;
  EXPECT_EQ(sbx({"stop", name}).status, 0);
  const auto started = sbx({"run", "-d", "--name", name});
  EXPECT_THAT(started.err, HasSubstr("WARNING: the clone could not be put into its place, " + top().string()));
}

TEST_F(CloneMode, TakesTheRoomOfTheObjectsOnceAndOutlivesAGcOfTheHosts) {
  on_host(R"(
    git init -q packs; cd packs; git config core.bigFileThreshold 1m; git config core.compression 0
    for i in 1 2 3; do head -c 20971520 /dev/urandom >data; git add data; git commit -qm "$i"; done
    git switch -qc gone; git commit -q --allow-empty -m gone; git switch -q main; git rm -q data; git commit -qm small
    git repack -qad; git prune)");
  const std::string name = create("packs");
  // Of the whole sandbox, whatever was there for a moment only.
  EXPECT_EQ(sbx({"exec", name, "sync"}).status, 0);
  const auto id = sbx_json({"inspect", name, "--json"})["id"].get<std::string>();
  struct stat disk {};
  ASSERT_EQ(::stat((home() / "sandboxes" / id / "disk.qcow2").c_str(), &disk), 0);
  EXPECT_GT(disk.st_blocks * 512, 60L << 20U) << "it is what is measured";
  EXPECT_LT(disk.st_blocks * 512, 85L << 20U);
  on_host("cd packs; git branch -qD gone; git reflog expire --expire=now --all; git gc -q --prune=now");
  EXPECT_EQ(in(name, "git log -1 --format=%s host/gone; git rev-list --objects --all | wc -l; git fsck 2>&1 | head -3"),
            "gone\n12\n");
}

TEST_F(CloneMode, ARemoteOfTheUsersWithTheSameNameIsLeftAlone) {
  const std::string name = "r" + std::to_string(::getpid());
  on_host("git -C repo remote add sandbox-" + name + " https://example.com/mine.git");
  made_.push_back(name);
  const auto made = user_sbx({"create", "--clone", "--name", name, "shell", (top() / "repo").string()});
  EXPECT_EQ(made.status, 0) << made.err;
  EXPECT_THAT(made.err, HasSubstr("has a remote \"sandbox-" + name + "\" that is not this sandbox's"));
  EXPECT_EQ(user_sbx({"rm", "--force", name}).status, 0);
  EXPECT_EQ(on_host("git -C repo remote get-url sandbox-" + name), "https://example.com/mine.git\n");
}

TEST_F(CloneMode, ACreationThatIsKilledIsWholeOrLeavesNothing) {
  on_host("cd repo; head -c 20000000 /dev/urandom >data; git add data; git commit -qm data");
  const std::string name = "k" + std::to_string(::getpid());
  made_.push_back(name);
  auto said = open_file(top() / "said", O_CREAT | O_RDWR).value();
  auto child = Command(command_line({"create", "--clone", "--auto-stop", "off", "--name", name, "shell",
                                     (top() / "repo").string()}))
                   .stdout_to(said.get())
                   .stderr_to(said.get())
                   .start()
                   .value();
  const auto says = [&] { return read_file(top() / "said").value_or(""); };
  ASSERT_TRUE(eventually([&] { return says().find("Cloning into") != std::string::npos; })) << says();
  ASSERT_TRUE(kill_now(daemon_pid()));
  EXPECT_TRUE(child.wait().has_value());
  const auto left = sbx({"ls", "-q"}).out;
  if (left.find(name) != std::string::npos) {
    EXPECT_EQ(in(name, "git status --short"), "");
  }
}

TEST_F(CloneMode, RefusesWhatItCannotClone) {
  on_host("git init -q empty; mkdir none");
  const auto fails = [&](const std::vector<std::string>& arguments, const std::string& why) {
    const auto outcome = user_sbx(arguments);
    EXPECT_EQ(outcome.status, 1) << outcome.out;
    EXPECT_THAT(outcome.err, HasSubstr(why));
  };
  fails({"create", "--clone", "shell"}, "--clone requires the path");
  fails({"run", "--clone", "shell"}, "--clone requires the path");
  fails({"create", "--clone", "shell", (top() / "none").string()},
        "--clone requires a Git repository, but " + (top() / "none").string() + " is not in a Git repository");
  fails({"create", "--clone", "shell", (top() / "empty").string()}, "has no commits yet");
  fails({"create", "--clone", "shell", (top() / "repo").string() + ":ro"}, "cannot be read-only");
  EXPECT_EQ(host("git -C repo config --get-regexp 'remote.sandbox'").out, "") << "nothing was left behind";
}

// The sandbox's repository is the attacker's.
TEST_F(CloneMode, AHostileRepositoryIsFetchedAndNothingElse) {
  const std::string name = create("repo");
  // Hooks and configuration of it would run on the host; its objects name files outside; its refs, other folders.
  in(name, R"sh(
    cat >.git/hooks/post-upload-pack <<'X'
#!/bin/sh
touch hooked
X
    chmod +x .git/hooks/*; git config core.fsmonitor "touch $PWD/hooked"; git config core.sshCommand "touch $PWD/hooked"
    blob=$(echo evil | git hash-object -w --stdin)
    tree=$(printf '100644 blob %s\t..\n' $blob | git mktree 2>/dev/null) || tree=$(
      printf "100644 ..\0$(echo $blob | sed 's/../\\x&/g')" | git hash-object -w --stdin -t tree --literally)
    commit=$(git commit-tree -m evil $tree)
    git update-ref refs/heads/evil $commit)sh");
  EXPECT_THAT(in(name, "git ls-tree evil"), HasSubstr(".."));
  const auto fetched = host("cd repo; git fetch sandbox-" + name);
  EXPECT_NE(fetched.status, 0);
  EXPECT_THAT(fetched.err, HasSubstr("hasDotdot"));
  EXPECT_EQ(on_host("cd repo; git for-each-ref --format='%(refname)' 'refs/remotes/sandbox-*' refs/sandboxes; ls -A | "
                    "grep -c hooked || true"),
            "0\n");
  // Words of the sandbox's on the user's terminal.
  EXPECT_EQ(in(name,
               "git update-ref -d refs/heads/evil; sudo sh -c 'printf \"#!/bin/sh\\nprintf \\\"\\\\033]0;owned\\\" "
               ">&2; exit 1\\n\" >/usr/local/bin/git; chmod +x /usr/local/bin/git'"),
            "");
  const auto garbled = host("cd repo; git fetch sandbox-" + name);
  EXPECT_NE(garbled.status, 0);
  EXPECT_EQ(garbled.err.find('\x1b'), std::string::npos);
  EXPECT_THAT(garbled.err, HasSubstr("\\x1b]0;owned"));
  EXPECT_EQ(in(name,
               "sudo sh -c 'printf \"#!/bin/sh\\nprintf \\\"0012ERR \\\\033]0;packet\\\"; exit 1\\n\" "
               ">/usr/local/bin/git'"),
            "");
  const auto told = host("cd repo; git fetch sandbox-" + name);
  EXPECT_NE(told.status, 0);
  EXPECT_EQ(told.err.find('\x1b'), std::string::npos);
  EXPECT_THAT(told.err, HasSubstr("remote error: ?]0;packet"));
  const auto removed = user_sbx({"rm", "--force", name});
  EXPECT_EQ(removed.status, 0) << "whatever the sandbox answers";
  EXPECT_THAT(removed.err, HasSubstr("could not be asked"));
}

TEST_F(CloneMode, TakesALargeHistoryOnce) {
  if (!full()) GTEST_SKIP() << "SBX_FULL=1 clones 1 GB of history";
  // Big files go to a pack at once, and nothing is compressed: neither is what is tested.
  on_host(R"(
    git init -q large; cd large; git config core.bigFileThreshold 1m; git config core.compression 0
    for i in $(seq 16); do head -c 67108864 /dev/urandom >data; git add data; git commit -qm "$i"; done)");
  const std::string name = create("large");
  EXPECT_EQ(in(name,
               "git rev-list --count HEAD; git rev-list --objects --all | wc -l; git count-objects -v | grep -c "
               "'^alternate'"),
            "16\n48\n0\n");
  const auto size = std::stoll(in(name, "du -sm .git | cut -f1"));
  EXPECT_LT(size, 1100) << "MB in the clone";
}

}  // namespace
}  // namespace sbx::test
