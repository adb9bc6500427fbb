// --protect, --hide and hard links against a hostile guest kernel.
#include <unistd.h>

#include <algorithm>

#include "files/fuse_client_test_support.h"

namespace sbx::files {
namespace {

namespace fs = std::filesystem;

Rules rules(const std::vector<std::string>& protect, const std::vector<std::string>& hide = {}, bool deny = true) {
  return {*Patterns::parse(protect), *Patterns::parse(hide), deny};
}

struct Guarded : FuseClient {
  explicit Guarded(Rules r, Dispatcher::Limits limits = {})
      : FuseClient(limits, FUSE_KERNEL_MINOR_VERSION, std::move(r)) {}
  std::string journal() { return *read_file(folder() / "journal"); }
  void make_git() {
    fs::create_directories(host(".git/hooks"));
    EXPECT_TRUE(write_file_atomically(host(".git/config"), "[core]"));
    EXPECT_TRUE(write_file_atomically(host(".git/hooks/pre-commit"), "#!/bin/sh"));
  }
  int truncate(NodeId node) {
    fuse_setattr_in in{};
    in.valid = FATTR_SIZE;
    return setattr(node, in).error;
  }
  int unlink(NodeId folder, std::string_view name) { return ask(FUSE_UNLINK, folder, name_of(name)).error; }
  std::vector<std::string> names(NodeId folder, std::uint32_t opcode) {
    std::vector<std::string> found;
    const auto listing = read(folder, 0, 1U << 16U, opcode);
    const std::size_t head = opcode == FUSE_READDIRPLUS ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
    for (std::size_t at = 0; at < listing.payload.size();) {
      const auto entry = listing.as<fuse_dirent>(at + head - FUSE_NAME_OFFSET);
      found.push_back(listing.payload.substr(at + head, entry.namelen));
      at += FUSE_REC_ALIGN(head + entry.namelen);
    }
    std::ranges::sort(found);
    return found;
  }
};

TEST(Protection, DenyRefusesEveryWayToChangeAFile) {
  Guarded guest(rules(default_protected()));
  guest.make_git();
  const auto git = guest.lookup(guest.ws0(), ".git").node();
  const auto config = guest.lookup(git, "config").node();
  const auto hooks = guest.lookup(git, "hooks").node();
  const auto other = guest.create(guest.ws0(), "other").node();
  EXPECT_EQ(guest.write(config, 0, "x").error, EACCES);
  EXPECT_EQ(guest.truncate(config), EACCES);
  fuse_setattr_in mode{};
  mode.valid = FATTR_MODE;
  mode.mode = 0777;
  EXPECT_EQ(guest.setattr(config, mode).error, EACCES);
  const std::uint32_t value[2] = {1, 0};
  EXPECT_EQ(guest.ask(FUSE_SETXATTR, config, bytes_of(value) + name_of("user.x") + "v").error, EACCES);
  EXPECT_EQ(guest.ask(FUSE_REMOVEXATTR, config, name_of("user.x")).error, EACCES);
  EXPECT_EQ(guest.ask(FUSE_FALLOCATE, config, bytes_of(fuse_fallocate_in{0, 0, 100, 0, 0})).error, EACCES);
  EXPECT_EQ(guest.ask(FUSE_COPY_FILE_RANGE, other, bytes_of(fuse_copy_file_range_in{0, 0, config, 0, 0, 1, 0})).error,
            EACCES);
  EXPECT_EQ(guest.create(git, "config", 0644, O_WRONLY | O_TRUNC).error, EACCES);
  EXPECT_EQ(guest.unlink(git, "config"), EACCES);
  EXPECT_EQ(guest.create(hooks, "post-commit").error, EACCES);
  EXPECT_EQ(guest.mkdir(hooks, "d").error, EACCES);
  EXPECT_EQ(guest.mknod(hooks, "n", S_IFREG).error, EACCES);
  EXPECT_EQ(guest.ask(FUSE_SYMLINK, hooks, name_of("l") + name_of("t")).error, EACCES);
  EXPECT_EQ(guest.ask(FUSE_RMDIR, git, name_of("hooks")).error, EACCES);
  EXPECT_EQ(*read_file(guest.host(".git/config")), "[core]");
  EXPECT_EQ(guest.read(config, 0, 100).payload, "[core]");
  EXPECT_NE(guest.journal().find("denied-write 0 .git/config\n"), std::string::npos) << guest.journal();
  EXPECT_EQ(guest.journal().find("O 0 0 6 .git/config"), std::string::npos) << guest.journal();
  // What is not protected is none of its business.
  EXPECT_EQ(guest.create(git, "index").error, 0);
}

TEST(Protection, GitsWriteThenRenameIsCaught) {
  Guarded guest(rules(default_protected()));
  guest.make_git();
  const auto git = guest.lookup(guest.ws0(), ".git").node();
  EXPECT_EQ(guest.create(git, "config.lock").error, EACCES);
  EXPECT_EQ(guest.create(git, "config.new").error, 0);
  EXPECT_EQ(guest.rename(git, "config.new", git, "config").error, EACCES);
  EXPECT_EQ(guest.rename(git, "config.new", git, "config.lock").error, EACCES);
  EXPECT_EQ(guest.rename(git, "config", git, "away").error, EACCES);
  EXPECT_EQ(guest.rename(git, "config.new", git, "config", RENAME_EXCHANGE).error, EACCES);
}

// `git config` on the host: what it has written to the lock becomes the configuration.
TEST(Protection, TheLockOfAProtectedFileIsProtectedWithIt) {
  for (const bool deny : {true, false}) {
    Guarded guest(rules(default_protected(), {}, deny));
    guest.make_git();
    ASSERT_TRUE(write_file_atomically(guest.host(".git/config.lock"), "[host]"));
    ASSERT_TRUE(write_file_atomically(guest.host(".git/index.lock"), ""));
    const auto git = guest.lookup(guest.ws0(), ".git").node();
    const auto lock = guest.lookup(git, "config.lock").node();
    const auto evil = guest.create(guest.ws0(), "evil").node();
    // A second name would outlive the host's rename.
    EXPECT_EQ(guest.link(lock, guest.ws0(), "second").error, EPERM);
    EXPECT_EQ(guest.link(evil, git, "Config.LOCK").error, EPERM);
    EXPECT_EQ(guest.write(lock, 0, "[evil]").error, deny ? EACCES : 0);
    EXPECT_EQ(guest.rename(guest.ws0(), "evil", git, "config.lock").error, deny ? EACCES : 0);
    EXPECT_EQ(guest.unlink(git, "config.lock"), deny ? EACCES : 0);
    EXPECT_EQ(guest.ask(FUSE_SYMLINK, git, name_of("config.lock") + name_of("../evil")).error, deny ? EACCES : 0);
    EXPECT_EQ(guest.write(guest.lookup(git, "index.lock").node(), 0, "x").error, 0) << "that of no protected file";
    for (const auto* kind : {"write", "rename", "remove", "create"}) {
      EXPECT_NE(guest.journal().find((deny ? " denied-" : " ") + std::string(kind) + " 0 .git/config.lock\n"),
                std::string::npos)
          << kind << "\n"
          << guest.journal();
    }
    if (deny) {
      EXPECT_EQ(*read_file(guest.host(".git/config.lock")), "[host]");
    }
  }
  // And is not where its file is not.
  auto patterns = default_protected();
  patterns.push_back("!.git/config");
  Guarded guest(rules(patterns));
  guest.make_git();
  EXPECT_EQ(guest.create(guest.lookup(guest.ws0(), ".git").node(), "config.lock").error, 0);
}

TEST(Protection, AFolderOnTheWayCannotBeMovedAwayOrInto) {
  Guarded guest(rules(default_protected()));
  guest.make_git();
  EXPECT_EQ(guest.rename(guest.ws0(), ".git", guest.ws0(), "x").error, EACCES);
  const auto fake = guest.mkdir(guest.ws0(), "fake").node();
  const auto hooks = guest.mkdir(fake, "hooks").node();
  EXPECT_EQ(guest.create(hooks, "pre-commit").error, 0);
  const auto sub = guest.mkdir(guest.ws0(), "sub").node();
  EXPECT_EQ(guest.rename(guest.ws0(), "fake", sub, ".git").error, EACCES);
  EXPECT_EQ(guest.rename(guest.ws0(), ".git", guest.ws0(), "fake", RENAME_EXCHANGE).error, EACCES);
  const auto own = guest.mkdir(sub, ".git").node();
  EXPECT_EQ(guest.rename(fake, "hooks", own, "hooks").error, EACCES);
  // A .git that is a file or a link leads elsewhere.
  const auto other = guest.mkdir(guest.ws0(), "other").node();
  EXPECT_EQ(guest.create(other, ".git").error, EACCES);
  EXPECT_EQ(guest.ask(FUSE_SYMLINK, other, name_of(".git") + name_of("../fake")).error, EACCES);
}

TEST(Protection, HardLinksToAndFromAreRefusedEvenWhereWritesAreOnlyReported) {
  for (const bool deny : {true, false}) {
    Guarded guest(rules(default_protected(), {}, deny));
    guest.make_git();
    const auto git = guest.lookup(guest.ws0(), ".git").node();
    const auto hooks = guest.lookup(git, "hooks").node();
    const auto config = guest.lookup(git, "config").node();
    const auto file = guest.create(guest.ws0(), "f").node();
    EXPECT_EQ(guest.link(config, guest.ws0(), "c").error, EPERM);
    EXPECT_EQ(guest.link(file, hooks, "post-commit").error, EPERM);
    // Nor by a second name that is then moved there.
    EXPECT_EQ(guest.link(file, guest.ws0(), "g").error, 0);
    EXPECT_NE(guest.rename(guest.ws0(), "g", hooks, "post-commit").error, 0);
  }
}

// By its other name a file could be written later without a word.
TEST(Protection, AFolderTakesNoFileWithSeveralNamesToAProtectedPlace) {
  Guarded guest(rules(default_protected(), {}, false));
  const auto fake = guest.mkdir(guest.ws0(), "fake").node();
  const auto hooks = guest.mkdir(fake, "hooks").node();
  const auto hook = guest.create(hooks, "pre-commit").node();
  EXPECT_EQ(guest.link(hook, guest.ws0(), "second").error, 0);
  const auto other = guest.mkdir(guest.ws0(), "other").node();
  EXPECT_EQ(guest.rename(guest.ws0(), "fake", guest.ws0(), ".git").error, EPERM);
  EXPECT_EQ(guest.rename(guest.ws0(), "fake", other, ".GIT").error, EPERM);
  const auto git = guest.mkdir(other, ".git").node();
  EXPECT_EQ(guest.rename(fake, "hooks", git, "hooks").error, EPERM);
  EXPECT_EQ(guest.rename(guest.ws0(), "fake", other, ".git", RENAME_EXCHANGE).error, EPERM);
  EXPECT_EQ(guest.rename(other, ".git", guest.ws0(), "fake", RENAME_EXCHANGE).error, EPERM);
  EXPECT_NE(guest.journal().find("denied-rename 0 .git/hooks/pre-commit\n"), std::string::npos) << guest.journal();
  // Where nothing of it is protected it may go, and there, too, once the other name is gone.
  EXPECT_EQ(guest.rename(guest.ws0(), "fake", other, "x").error, 0);
  EXPECT_EQ(guest.unlink(guest.ws0(), "second"), 0);
  EXPECT_EQ(guest.rename(other, "x", guest.ws0(), ".git").error, 0);
  EXPECT_EQ(guest.write(hook, 0, "x").error, 0);
  EXPECT_NE(guest.journal().find(" write 0 .git/hooks/pre-commit\n"), std::string::npos) << guest.journal();
}

// git's objects are often hard links (of a clone on the same disk), and none of them is protected.
TEST(Protection, ARepositoryWithLinkedObjectsMovesAndABoundedNumberOfFilesIsLookedAt) {
  Guarded guest(rules({".git/hooks", "kept"}, {}, false));
  guest.make_git();
  fs::create_directories(guest.host(".git/objects/ab"));
  ASSERT_TRUE(write_file_atomically(guest.folder() / "outside/object", "x"));
  fs::create_hard_link(guest.folder() / "outside/object", guest.host(".git/objects/ab/cd"));
  EXPECT_EQ(guest.rename(guest.ws0(), ".git", guest.ws0(), "x").error, 0);
  EXPECT_EQ(guest.rename(guest.ws0(), "x", guest.ws0(), ".git").error, 0);
  fs::create_directories(guest.host("many/deep"));
  for (int i = 0; i < (1 << 16); ++i) {
    UniqueFd(::open(guest.host("many/deep/" + std::to_string(i)).c_str(), O_CREAT | O_WRONLY, 0600));
  }
  EXPECT_EQ(guest.rename(guest.ws0(), "many", guest.ws0(), "kept").error, EXDEV);
  EXPECT_EQ(guest.rename(guest.ws0(), "many", guest.ws0(), "free").error, 0);
}

TEST(Protection, ReportsAreCountedAndTheWriteHappens) {
  Guarded guest(rules(default_protected(), {}, false));
  guest.make_git();
  const auto git = guest.lookup(guest.ws0(), ".git").node();
  const auto config = guest.lookup(git, "config").node();
  EXPECT_EQ(guest.write(config, 0, "x").error, 0);
  EXPECT_EQ(guest.write(config, 0, "y").error, 0);
  EXPECT_EQ(guest.rename(guest.ws0(), ".git", guest.ws0(), "x").error, 0);
  const auto text = guest.journal();
  const auto at = text.find(" write 0 .git/config\n");
  ASSERT_NE(at, std::string::npos) << text;
  EXPECT_EQ(text.substr(at - 24, 10), "0000000002") << text;
  EXPECT_NE(text.find("rename 0 .git\n"), std::string::npos) << text;
}

TEST(Protection, APlaceIsWhereTheHostHasItNow) {
  Guarded guest(rules({"safe/config"}));
  const auto folder = guest.mkdir(guest.ws0(), "d").node();
  const auto file = guest.create(folder, "config").node();
  EXPECT_EQ(guest.write(file, 0, "x").error, 0);
  fs::rename(guest.host("d"), guest.host("safe"));
  EXPECT_EQ(guest.write(file, 0, "x").error, EACCES);
  EXPECT_EQ(guest.unlink(folder, "config"), EACCES);
}

TEST(Protection, WhatIsHiddenIsNotThere) {
  Guarded guest(rules({}, {".env", "/keys/private"}));
  ASSERT_TRUE(write_file_atomically(guest.host(".env"), "SECRET"));
  ASSERT_TRUE(write_file_atomically(guest.host("seen"), "seen"));
  fs::create_directories(guest.host("keys/private"));
  for (const auto opcode : {FUSE_READDIR, FUSE_READDIRPLUS}) {
    EXPECT_EQ(guest.names(guest.ws0(), opcode), (std::vector<std::string>{".", "..", "keys", "seen"}));
  }
  EXPECT_EQ(guest.lookup(guest.ws0(), ".env").error, ENOENT);
  EXPECT_EQ(guest.create(guest.ws0(), ".env").error, EACCES);
  EXPECT_EQ(guest.mkdir(guest.ws0(), ".env").error, EACCES);
  EXPECT_EQ(guest.mknod(guest.ws0(), ".env", S_IFREG).error, EACCES);
  EXPECT_EQ(guest.ask(FUSE_SYMLINK, guest.ws0(), name_of(".env") + name_of("t")).error, EACCES);
  EXPECT_EQ(guest.unlink(guest.ws0(), ".env"), ENOENT);
  EXPECT_EQ(guest.rename(guest.ws0(), ".env", guest.ws0(), "x").error, ENOENT);
  EXPECT_EQ(guest.rename(guest.ws0(), "seen", guest.ws0(), ".env").error, EACCES);
  EXPECT_EQ(guest.rename(guest.ws0(), "seen", guest.ws0(), ".env", RENAME_EXCHANGE).error, EACCES);
  EXPECT_EQ(guest.link(guest.lookup(guest.ws0(), "seen").node(), guest.ws0(), ".env").error, EACCES);
  // Nor by moving the folder that it is in.
  EXPECT_EQ(guest.rename(guest.ws0(), "keys", guest.ws0(), "k").error, EACCES);
  EXPECT_EQ(*read_file(guest.host(".env")), "SECRET");
}

TEST(Protection, ANodeThatTheHostHidesIsOutOfReach) {
  Guarded guest(rules({}, {".env", "secret"}));
  ASSERT_TRUE(write_file_atomically(guest.host("env"), "SECRET"));
  fs::create_directories(guest.host("d/e"));
  const auto file = guest.lookup(guest.ws0(), "env").node();
  const auto folder = guest.lookup(guest.ws0(), "d").node();
  const auto inner = guest.lookup(folder, "e").node();
  EXPECT_EQ(guest.read(file, 0, 10).payload, "SECRET");
  fs::rename(guest.host("env"), guest.host(".env"));
  fs::rename(guest.host("d"), guest.host("secret"));
  EXPECT_EQ(guest.read(file, 0, 10).error, ESTALE);
  EXPECT_EQ(guest.getattr(file).error, ESTALE);
  EXPECT_EQ(guest.link(file, guest.ws0(), "again").error, ESTALE);
  EXPECT_EQ(guest.list(inner).error, ESTALE);
  EXPECT_EQ(guest.create(inner, "f").error, ESTALE);
}

TEST(Protection, TheHostsChangesOfWhatIsHiddenAreNotTold) {
  Dispatcher::Limits limits;
  limits.cache = std::chrono::seconds(600);
  Guarded guest(rules({}, {".env"}), limits);
  EXPECT_EQ(guest.list(guest.ws0()).error, 0);
  EXPECT_EQ(guest.lookup(guest.ws0(), ".env").error, ENOENT);
  ASSERT_TRUE(write_file_atomically(guest.host(".env"), "SECRET"));
  ASSERT_TRUE(write_file_atomically(guest.host("seen"), "seen"));
  std::string told;
  guest.dispatcher().notifications(told);
  EXPECT_NE(told.find(name_of("0/seen")), std::string::npos);
  EXPECT_EQ(told.find(name_of("0/.env")), std::string::npos);
}

TEST(Protection, AFileThatTheHostHasLinkedElsewhereIsReadOnly) {
  Guarded guest(rules({}));
  const auto outside = guest.folder() / "outside/victim";
  ASSERT_TRUE(write_file_atomically(outside, "untouched", 0600));
  fs::create_hard_link(outside, guest.host("inside"));
  const auto file = guest.lookup(guest.ws0(), "inside").node();
  const auto all_refused = [&] {
    EXPECT_EQ(guest.write(file, 0, "x").error, EPERM);
    EXPECT_EQ(guest.truncate(file), EPERM);
    fuse_setattr_in mode{};
    mode.valid = FATTR_MODE;
    mode.mode = 0777;
    EXPECT_EQ(guest.setattr(file, mode).error, EPERM);
    EXPECT_EQ(guest.ask(FUSE_FALLOCATE, file, bytes_of(fuse_fallocate_in{0, 0, 100, 0, 0})).error, EPERM);
  };
  all_refused();
  EXPECT_EQ(guest.read(file, 0, 100).payload, "untouched");
  // More names do not help, nor does taking them away while the node lives.
  EXPECT_EQ(guest.link(file, guest.ws0(), "more (deleted)").error, 0);
  all_refused();
  EXPECT_EQ(guest.unlink(guest.ws0(), "inside"), 0);
  all_refused();
  EXPECT_EQ(guest.unlink(guest.ws0(), "more (deleted)"), 0);
  all_refused();
  // Nor a name for what has only the one outside left.
  (void)guest.link(file, guest.ws0(), "again");
  all_refused();
  EXPECT_EQ(*read_file(outside), "untouched");
}

TEST(Protection, AFileWhoseInnerNameIsGoneGetsNoWritableOneByALink) {
  for (const bool by_host : {true, false}) {
    Guarded guest(rules({}));
    const auto outside = guest.folder() / "outside/victim";
    ASSERT_TRUE(write_file_atomically(outside, "untouched"));
    fs::create_hard_link(outside, guest.host("x"));
    const auto file = guest.lookup(guest.ws0(), "x").node();
    if (by_host) {
      fs::remove(guest.host("x"));
    } else {
      EXPECT_EQ(guest.unlink(guest.ws0(), "x"), 0);
    }
    (void)guest.link(file, guest.ws0(), "y");
    EXPECT_EQ(guest.write(file, 0, "taken").error, EPERM);
    EXPECT_EQ(*read_file(outside), "untouched");
  }
}

TEST(Protection, RepositoriesBelowGitsFolderArePartOfTheDefault) {
  const Patterns patterns = *Patterns::parse(default_protected());
  for (const char* path :
       {".git/modules/lib/commondir", ".git/modules/a/modules/b/config.worktree", ".git/modules/lib/info/attributes",
        ".git/worktrees/w/modules/lib/config", ".git/worktrees/w/modules/lib/hooks",
        ".git/worktrees/w/modules/lib/commondir", ".git/worktrees/w/modules/lib/config.worktree"}) {
    EXPECT_TRUE(patterns.matches(path)) << path;
  }
}

TEST(Protection, AFileWhoseNameTheHostRemovesIsNotWrittenThroughItsOtherName) {
  Guarded guest(rules({}));
  ASSERT_TRUE(write_file_atomically(guest.folder() / "outside/victim", "untouched"));
  fs::create_hard_link(guest.folder() / "outside/victim", guest.host("inside"));
  const auto file = guest.lookup(guest.ws0(), "inside").node();
  fs::remove(guest.host("inside"));
  EXPECT_EQ(guest.write(file, 0, "x").error, EPERM);
  EXPECT_EQ(*read_file(guest.folder() / "outside/victim"), "untouched");
}

// The name by which the server holds a file goes, one that the guest has met as well is left.
TEST(Protection, AFileIsWritableByTheNameThatIsLeftOfTwo) {
  for (const bool told : {true, false}) {
    Guarded guest(rules({}));
    ASSERT_TRUE(write_file_atomically(guest.host("p"), "x"));
    fs::create_hard_link(guest.host("p"), guest.host("q"));
    const auto file = guest.lookup(guest.ws0(), "p").node();
    EXPECT_EQ(guest.lookup(guest.ws0(), "q").node(), file);
    EXPECT_EQ(guest.lookup(guest.ws0(), "p").node(), file);
    EXPECT_EQ(guest.write(file, 0, "y").error, EPERM);
    fs::remove(guest.host("p"));
    std::string ignored;
    if (told) guest.dispatcher().notifications(ignored);
    EXPECT_EQ(guest.write(file, 0, "z").error, 0);
    EXPECT_EQ(*read_file(guest.host("q")), "z");
  }
}

TEST(Protection, ARenamedLinkDoesNotTakeTheOtherNameWithIt) {
  Guarded guest(rules({}));
  const auto file = guest.create(guest.ws0(), "a").node();
  EXPECT_EQ(guest.link(file, guest.ws0(), "b").error, 0);
  EXPECT_EQ(guest.rename(guest.ws0(), "a", guest.ws0(), "c").error, 0);
  EXPECT_EQ(guest.unlink(guest.ws0(), "c"), 0);
  EXPECT_EQ(guest.write(file, 0, "x").error, 0);
  EXPECT_EQ(*read_file(guest.host("b")), "x");
}

TEST(Protection, LinksThatTheGuestMadeAreItsOwn) {
  Guarded guest(rules({}));
  const auto file = guest.create(guest.ws0(), "a").node();
  EXPECT_EQ(guest.link(file, guest.ws0(), "b").error, 0);
  EXPECT_EQ(guest.link(file, guest.ws0(), "c").error, 0);
  EXPECT_EQ(guest.write(file, 0, "x").error, 0);
  EXPECT_EQ(guest.unlink(guest.ws0(), "a"), 0);
  EXPECT_EQ(guest.write(file, 0, "x").error, 0);
  EXPECT_EQ(guest.unlink(guest.ws0(), "b"), 0);
  EXPECT_EQ(guest.lookup(guest.ws0(), "c").node(), file);
  EXPECT_EQ(guest.write(file, 0, "x").error, 0);
  // One that the host adds is not.
  fs::create_hard_link(guest.host("c"), guest.folder() / "outside/c");
  EXPECT_EQ(guest.write(file, 0, "x").error, EPERM);
  fs::remove(guest.folder() / "outside/c");
  EXPECT_EQ(guest.write(file, 0, "x").error, 0);
  EXPECT_EQ(guest.unlink(guest.ws0(), "c"), 0);
  EXPECT_EQ(guest.write(file, 0, "x").error, 0);  // nobody else can see it
}

TEST(Protection, ALinkThatTheHostTakesAwayIsNotMadeUpForByAnother) {
  Guarded guest(rules({}));
  const auto file = guest.create(guest.ws0(), "a").node();
  EXPECT_EQ(guest.link(file, guest.ws0(), "b").error, 0);
  fs::remove(guest.host("b"));
  EXPECT_EQ(guest.write(file, 0, "x").error, 0);
  fs::create_hard_link(guest.host("a"), guest.folder() / "outside/victim");
  EXPECT_EQ(guest.write(file, 0, "y").error, EPERM);
}

TEST(Protection, TheJournalTellsWhatChanged) {
  Guarded guest(rules({}));
  ASSERT_TRUE(write_file_atomically(guest.host("edited"), "before"));
  ASSERT_TRUE(write_file_atomically(guest.host("removed"), "gone"));
  ASSERT_TRUE(write_file_atomically(guest.host("moved"), "moved"));
  EXPECT_EQ(guest.write(guest.lookup(guest.ws0(), "edited").node(), 0, "after").error, 0);
  EXPECT_EQ(guest.unlink(guest.ws0(), "removed"), 0);
  EXPECT_EQ(guest.rename(guest.ws0(), "moved", guest.ws0(), "here").error, 0);
  const auto folder = guest.mkdir(guest.ws0(), "new").node();
  EXPECT_EQ(guest.create(folder, "inner").error, 0);
  EXPECT_EQ(guest.journal(),
            "O 0 0 6 100600 edited\nO 0 6 4 100600 removed\nO 0 10 5 100600 moved\nN 0 here\nN 0 new\n");
  EXPECT_EQ(*read_file(guest.folder() / "before"), "beforegonemoved");
}

}  // namespace
}  // namespace sbx::files
