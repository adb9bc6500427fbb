// Is the workspace a file system that programs need not know about? posix_check.py says what a local ext4 does and what
// the workspace does; real tools work in it.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <map>
#include <sstream>

#include "instance.h"

namespace sbx::test {
namespace {

namespace fs = std::filesystem;

using Lines = std::map<std::string, std::string>;

Lines behaviour(const Sandbox& sandbox, const std::string& folder, const std::string& user) {
  const auto script = read_file(SBX_TESTS "/posix_check.py").value();
  const auto outcome = sbx({"exec", "-u", user, sandbox.name(), "bash", "-c",
                            "mkdir " + folder + " && python3 - " + folder + " && rmdir " + folder},
                           script);
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  Lines lines;
  std::istringstream text(outcome.out);
  for (std::string line; std::getline(text, line);) lines[line.substr(0, line.find(':'))] = line;
  return lines;
}

// What differs by design; everything else must be the same line.
const std::map<std::string, std::string> kByDesign = {
    {"modes, chmod 1755", "modes, chmod 1755: 0o100755"},  // no special bits on files
};

TEST(WorkspacePosix, BehavesAsALocalFileSystemDoes) {
  Sandbox sandbox;
  const auto local = behaviour(sandbox, "/home/agent/check", "agent");
  const auto workspace = behaviour(sandbox, (sandbox.workspace() / "check").string(), "agent");
  EXPECT_GT(local.size(), 100U);
  for (const auto& [name, expected] : local) {
    const auto found = workspace.find(name);
    ASSERT_NE(found, workspace.end()) << name << " is missing on the workspace";
    const auto different = kByDesign.find(name);
    EXPECT_EQ(found->second, different == kByDesign.end() ? expected : different->second)
        << "a local file system says: " << expected;
  }
  EXPECT_EQ(workspace.size(), local.size());
}

TEST(WorkspacePosix, GitMakeSqliteAndNodeWorkInIt) {
  Sandbox sandbox;
  const auto outcome = sandbox.shell(R"(set -e
git init -q repo; cd repo
cat > main.c <<'C'
#include <stdio.h>
int main(void) { puts("built"); return 0; }
C
printf 'prog: main.o\n\tcc -o $@ $^\n' > Makefile
make -s; ./prog; make -q
printf 'prog\n*.o\n' > .gitignore
git add . ; git -c user.email=a@b -c user.name=n commit -qm first
git switch -qc side; git mv main.c other.c; git -c user.email=a@b -c user.name=n commit -qm moved
git switch -q main; git merge -q side; git gc -q; git fsck --no-progress; git status --porcelain
git worktree add -q ../tree side~1; ls ../tree/main.c
cd ..
sqlite3 db 'pragma journal_mode=wal; create table t(a)'
for i in 1 2 3 4; do
  (for j in $(seq 10); do sqlite3 -cmd '.timeout 60000' db 'insert into t values(1)'; done) &
done
wait
sqlite3 db 'select sum(a) from t; pragma integrity_check'
mkdir -p app/lib; cd app
cat > lib/package.json <<'J'
{"name": "greeter", "version": "1.0.0", "main": "index.js", "bin": {"greet": "greet.js"}}
J
echo 'module.exports = (name) => `hello ${name}`;' > lib/index.js
printf '#!/usr/bin/env node\nconsole.log(require("./index.js")("bin"));\n' > lib/greet.js
cat > package.json <<'J'
{"name": "app", "version": "1.0.0", "dependencies": {"greeter": "file:./lib"}, "scripts": {"test": "node --test && greet"}}
J
cat > app.test.js <<'J'
const test = require("node:test"); const assert = require("node:assert"); const fs = require("node:fs");
test("uses its dependency", () => assert.strictEqual(require("greeter")("node"), "hello node"));
test("sees changes", (t, done) => {
  const watcher = fs.watch(".", () => { watcher.close(); done(); });
  fs.writeFileSync("changed", "x");
});
J
npm install --offline --no-audit --silent
npm test --silent | grep -e '^# pass' -e '^# fail' -e '^hello' -e 'pass ' -e 'fail ' | tr -d '#ℹ ' | sort
)");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "built\n../tree/main.c\nwal\n40\nok\nfail0\nhellobin\npass2\n") << outcome.err;
  // And it is all there on this side, as this user's.
  EXPECT_TRUE(fs::exists(sandbox.workspace() / "repo/prog"));
  EXPECT_EQ(fs::read_symlink(sandbox.workspace() / "app/node_modules/.bin/greet"), "../greeter/greet.js");
  for (const auto& entry : fs::recursive_directory_iterator(sandbox.workspace())) {
    struct stat info {};
    ASSERT_EQ(::lstat(entry.path().c_str(), &info), 0);
    ASSERT_EQ(info.st_uid, ::getuid()) << entry.path();
  }
}

TEST(Workspaces, SeveralAtOnceEachWithItsOwnRights) {
  auto second = TemporaryFolder::make("sbx-second").value();
  auto readonly = TemporaryFolder::make("sbx-readonly").value();
  auto other = TemporaryFolder::make("sbx-other").value();
  const auto file = other.path() / "one.conf";
  ASSERT_TRUE(write_file_atomically(file, "just this", 0644));
  ASSERT_TRUE(write_file_atomically(other.path() / "neighbour", "not this", 0644));
  ASSERT_TRUE(write_file_atomically(readonly.path() / "kept", "kept", 0644));
  Sandbox sandbox({}, "", {second.path(), readonly.path().string() + ":ro", file.string() + ":ro"});
  const auto outcome = sandbox.shell("pwd; echo hi > " + (second.path() / "new").string() + "; cat " + file.string() +
                                     " " + (readonly.path() / "kept").string() + "; ls " + other.path().string());
  EXPECT_EQ(outcome.out, sandbox.workspace().string() + "\njust thiskeptone.conf\n") << outcome.err;
  EXPECT_EQ(read_file(second.path() / "new").value_or("missing"), "hi\n");
  const auto refused = sandbox.root(
      "echo bad > " + file.string() + "; echo bad > " + (readonly.path() / "kept").string() +
      "; mount -o remount,rw,bind " + readonly.path().string() + "; rm -f " + (readonly.path() / "kept").string() +
      "; ln " + (readonly.path() / "kept").string() + " " + (readonly.path() / "link").string());
  EXPECT_NE(refused.status, 0);
  EXPECT_EQ(read_file(file).value_or("missing"), "just this");
  EXPECT_EQ(read_file(readonly.path() / "kept").value_or("missing"), "kept");
  EXPECT_FALSE(fs::exists(readonly.path() / "link"));
  // Between workspaces as between file systems.
  EXPECT_EQ(sandbox.shell("touch a; ln a " + (second.path() / "a").string() + " 2>&1 | grep -o 'cross-device link'")
                .out.size(),
            18U);
  EXPECT_EQ(
      sandbox.shell("echo moved > b; mv b " + second.path().string() + "; cat " + (second.path() / "b").string()).out,
      "moved\n");
  const auto listed = sandbox.listed();
  EXPECT_EQ(listed["workspaces"].size(), 4U);
  EXPECT_EQ(listed["readonly_workspaces"].size(), 2U);
}

TEST(Workspaces, ASandboxWithoutOneHasAHome) {
  const std::string name = "mountless-" + std::to_string(::getpid());
  ASSERT_EQ(sbx({"create", "--name", name, "shell"}).status, 0);
  const auto outcome = sbx({"exec", name, "bash", "-c", "pwd; echo x > file; cat file"});
  const auto entry = sbx_json({"inspect", name, "--json"});
  (void)sbx({"rm", "-f", name});
  EXPECT_EQ(outcome.out, "/home/agent\nx\n");
  EXPECT_FALSE(entry.contains("workspace"));
}

}  // namespace
}  // namespace sbx::test
