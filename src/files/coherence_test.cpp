#include <algorithm>
#include <fstream>
#include <set>
#include <thread>

#include "files/fuse_client_test_support.h"
#include "wire/files_port.h"

namespace sbx::files {
namespace {

constexpr std::uint64_t kLifetime = 600;

struct Notification {
  int code = 0;
  NodeId node = 0;   // the inode, or the entry's folder
  std::string name;  // an entry's
  bool pages = false;
  bool operator==(const Notification&) const = default;
};

void PrintTo(const Notification& notification, std::ostream* out) {
  *out << notification.code << ":" << notification.node << ":" << notification.name << (notification.pages ? "*" : "");
}

class CoherenceTest : public testing::Test {
 protected:
  std::vector<Notification> notifications() {
    std::string messages;
    const auto count = client_.dispatcher().notifications(messages);
    std::vector<Notification> all;
    for (std::string_view rest = messages; !rest.empty();) {
      fuse_out_header header{};
      std::memcpy(&header, rest.data(), sizeof(header));
      EXPECT_EQ(header.unique, 0U);
      const Answer body{0, std::string(rest.substr(sizeof(header), header.len - sizeof(header)))};
      if (header.error == wire::kHostChanged) {
        changes_.emplace_back(body.payload.c_str());
      } else if (header.error == FUSE_NOTIFY_INVAL_ENTRY) {
        const auto out = body.as<fuse_notify_inval_entry_out>();
        EXPECT_EQ(body.payload.size(), sizeof(out) + out.namelen + 1);
        all.push_back({header.error, out.parent, body.payload.substr(sizeof(out), out.namelen), false});
      } else {
        const auto out = body.as<fuse_notify_inval_inode_out>();
        all.push_back({header.error, out.ino, "", out.off == 0});
      }
      rest.remove_prefix(header.len);
    }
    EXPECT_EQ(all.size(), count);
    return all;
  }
  bool told(const std::vector<Notification>& all, const Notification& one) {
    return std::find(all.begin(), all.end(), one) != all.end();
  }
  static Notification entry(NodeId folder, std::string_view name) {
    return {FUSE_NOTIFY_INVAL_ENTRY, folder, std::string(name), false};
  }
  static Notification contents(NodeId node) { return {FUSE_NOTIFY_INVAL_INODE, node, "", true}; }
  static Notification attributes(NodeId node) { return {FUSE_NOTIFY_INVAL_INODE, node, "", false}; }
  void write_host(std::string_view name, std::string_view text) {
    UniqueFd file(::open(client_.host(name).c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644));
    ASSERT_TRUE(write_all(file.get(), text));
  }

  FuseClient client_{Dispatcher::Limits{.nodes = {}, .cache = std::chrono::seconds(kLifetime)}, 41};
  NodeId root_ = client_.ws0();
  std::vector<std::string> changes_;  // that programs which watch are told of, by notifications() so far
};

TEST_F(CoherenceTest, NamesAttributesAndMissingNamesGetALongLife) {
  write_host("f", "text");
  (void)notifications();
  const auto file = client_.lookup(root_, "f").as<fuse_entry_out>();
  EXPECT_EQ(file.entry_valid, kLifetime);
  EXPECT_EQ(file.attr_valid, kLifetime);
  const auto missing = client_.lookup(root_, "missing");
  ASSERT_EQ(missing.error, 0);
  EXPECT_EQ(missing.node(), 0U);
  EXPECT_EQ(missing.as<fuse_entry_out>().entry_valid, kLifetime);
  EXPECT_EQ(client_.getattr(root_).as<fuse_attr_out>().attr_valid, kLifetime);
  EXPECT_TRUE(notifications().empty());
}

TEST_F(CoherenceTest, AWriteOnTheHostDropsTheContents) {
  write_host("f", "text");
  const auto file = client_.lookup(root_, "f").node();
  write_host("f", "other");
  const auto all = notifications();
  EXPECT_TRUE(told(all, contents(file))) << testing::PrintToString(all);
  // The guest may still be making the inode: its folder's lock comes first.
  ASSERT_GE(all.size(), 2U);
  EXPECT_EQ(all.front().code, FUSE_NOTIFY_INVAL_ENTRY);
  EXPECT_EQ(all.front().node, root_);
  EXPECT_TRUE(notifications().empty());
}

TEST_F(CoherenceTest, AnInodeThatTheGuestUsesNeedsNoLock) {
  write_host("f", "text");
  (void)notifications();
  const auto file = client_.lookup(root_, "f").node();
  client_.getattr(file);
  write_host("f", "other");
  EXPECT_EQ(notifications(), std::vector{contents(file)});
}

TEST_F(CoherenceTest, CreationDropsTheMissingName) {
  client_.lookup(root_, "f");
  write_host("f", "");
  EXPECT_TRUE(told(notifications(), entry(root_, "f")));
}

TEST_F(CoherenceTest, DeletionAndReplacementDropTheName) {
  write_host("f", "");
  write_host("g", "");
  client_.lookup(root_, "f");
  client_.lookup(root_, "g");
  (void)notifications();
  std::filesystem::remove(client_.host("f"));
  ASSERT_TRUE(write_file_atomically(client_.host("g"), "new"));
  const auto all = notifications();
  EXPECT_TRUE(told(all, entry(root_, "f")));
  EXPECT_TRUE(told(all, entry(root_, "g")));
}

TEST_F(CoherenceTest, WatchersAreToldOfTheHostsChangesAndNotOfTheGuests) {
  std::filesystem::create_directories(client_.host("d"));
  write_host("d/f", "text");
  write_host("d/unseen", "text");
  const auto folder = client_.lookup(root_, "d").node();
  const auto file = client_.lookup(folder, "f").node();
  (void)notifications();
  changes_.clear();
  write_host("d/f", "other");
  write_host("d/unseen", "other");
  write_host("d/new", "");
  (void)notifications();
  std::ranges::sort(changes_);
  EXPECT_EQ(changes_, (std::vector<std::string>{"0/d/f", "0/d/new", "0/d/unseen"}));
  changes_.clear();
  std::filesystem::remove(client_.host("d/new"));
  (void)notifications();
  EXPECT_EQ(changes_, std::vector<std::string>{"0/d/new"});
  for (int i = 0; i < 10; ++i) {  // what it did a second ago is no longer taken for its own
    changes_.clear();
    client_.write(file, 0, "guest");
    client_.create(folder, "mine");
    client_.ask(FUSE_UNLINK, folder, name_of("mine"));
    (void)notifications();
    if (changes_.empty()) break;
  }
  EXPECT_EQ(changes_, std::vector<std::string>{});
}

TEST_F(CoherenceTest, AFolderThatStaysInItsPlaceIsNeverDropped) {
  std::filesystem::create_directories(client_.host("d"));
  const auto folder = client_.lookup(root_, "d").node();
  std::filesystem::permissions(client_.host("d"), std::filesystem::perms(0700));
  write_host("d/x", "");
  for (const auto& each : notifications()) EXPECT_NE(each, entry(root_, "d"));
  EXPECT_EQ(client_.getattr(folder).error, 0);
}

TEST_F(CoherenceTest, TheGuestsOwnNamesAreNotTakenForTheHosts) {
  for (const auto* name : {"f", "d", "h", "symlink"}) client_.lookup(root_, name);  // as missing
  const auto created = client_.create(root_, "f");
  const auto made = client_.mkdir(root_, "d").node();
  client_.lookup(made, "g");
  EXPECT_EQ(client_.rename(root_, "f", made, "g").error, 0);
  client_.mknod(root_, "h", S_IFREG | 0644);
  client_.ask(FUSE_SYMLINK, root_, name_of("symlink") + name_of("target"));
  for (const auto& each : notifications()) {
    if (each.code != FUSE_NOTIFY_INVAL_ENTRY) continue;
    EXPECT_EQ(each.name[0], '\1') << each.name;
  }
  const auto node = created.node();
  client_.getattr(node);
  fuse_setattr_in in{};
  in.valid = FATTR_MODE;
  in.mode = 0600;
  client_.setattr(node, in);
  EXPECT_EQ(client_.ask(FUSE_UNLINK, made, name_of("g")).error, 0);
  for (const auto& each : notifications()) EXPECT_NE(each.code, FUSE_NOTIFY_INVAL_ENTRY) << each.name;
}

TEST_F(CoherenceTest, AListingIsDroppedWhenItsFolderChanges) {
  client_.list(root_);
  EXPECT_TRUE(notifications().empty());
  write_host("f", "");
  EXPECT_TRUE(told(notifications(), contents(root_)));
  write_host("g", "");
  EXPECT_FALSE(told(notifications(), contents(root_)));  // nothing of it can be cached
}

TEST_F(CoherenceTest, FilesWithSeveralLinksAreNeverBelieved) {
  write_host("f", "text");
  std::filesystem::create_directories(client_.host("d"));
  std::filesystem::create_hard_link(client_.host("f"), client_.host("d/hard"));
  const auto file = client_.lookup(root_, "f");
  EXPECT_EQ(file.as<fuse_entry_out>().attr_valid, 0U);
  // And yet a write through the other name, in a folder that nobody looked at, is noticed.
  write_host("d/hard", "other");
  EXPECT_TRUE(told(notifications(), contents(file.node())));
}

TEST_F(CoherenceTest, BothNamesOfAFileAreDroppedWhenTheyGo) {
  write_host("f", "text");
  std::filesystem::create_hard_link(client_.host("f"), client_.host("g"));
  client_.lookup(root_, "f");
  client_.lookup(root_, "g");
  std::filesystem::remove(client_.host("f"));
  EXPECT_TRUE(told(notifications(), entry(root_, "f")));
  std::filesystem::remove(client_.host("g"));
  EXPECT_TRUE(told(notifications(), entry(root_, "g")));
}

TEST_F(CoherenceTest, AFileThatWasRenamedAwayAndBackWasMaybeWrittenInBetween) {
  write_host("f", "text");
  const auto file = client_.lookup(root_, "f").node();
  client_.getattr(file);
  std::filesystem::rename(client_.host("f"), client_.host("other"));
  write_host("other", "TEXT");
  std::filesystem::rename(client_.host("other"), client_.host("f"));
  EXPECT_TRUE(told(notifications(), contents(file)));
}

TEST_F(CoherenceTest, AFileThatLostItsNameIsStillWatched) {
  write_host("f", "text");
  const auto file = client_.lookup(root_, "f").node();
  std::filesystem::create_directories(client_.host("d"));
  std::filesystem::rename(client_.host("f"), client_.host("d/f"));
  EXPECT_TRUE(told(notifications(), entry(root_, "f")));
  EXPECT_EQ(client_.getattr(file).as<fuse_attr_out>().attr_valid, 0U);
  write_host("d/f", "later");
  EXPECT_TRUE(told(notifications(), contents(file)));
}

TEST_F(CoherenceTest, NewFoldersAreWatchedBeforeTheyAreLookedAt) {
  // The host fills a folder as fast as it can while the guest looks into it: every name that the guest was told is
  // missing, and that exists in the end, must have been taken back.
  std::jthread host([&] {
    for (int i = 0; i < 300; ++i) {
      std::filesystem::create_directories(client_.host("d" + std::to_string(i)));
      write_host("d" + std::to_string(i) + "/f", "");
    }
  });
  std::set<NodeId> missing;
  std::vector<Notification> all;
  const auto take = [&] {
    for (auto& each : notifications()) {
      if (each.name == "f") missing.erase(each.node);
    }
  };
  for (int i = 0; i < 300;) {
    const auto folder = client_.lookup(root_, "d" + std::to_string(i));
    if (folder.error == 0 && folder.node() != 0) {
      const auto file = client_.lookup(folder.node(), "f");
      if (file.error == 0 && file.node() == 0) missing.insert(folder.node());
      ++i;
    }
    take();
  }
  host.join();
  take();
  EXPECT_TRUE(missing.empty());
}

TEST_F(CoherenceTest, LostEventsInvalidateEverything) {
  write_host("f", "text");
  write_host("gone", "text");
  std::filesystem::create_directories(client_.host("d"));
  const auto file = client_.lookup(root_, "f").node();
  const auto folder = client_.lookup(root_, "d").node();
  client_.lookup(root_, "gone");
  client_.lookup(folder, "missing");
  std::size_t limit = 0;
  std::ifstream("/proc/sys/fs/inotify/max_queued_events") >> limit;
  for (std::size_t i = 0; i < limit / 2 + 10; ++i) {  // alternating, since equal ones are merged
    ::chmod(client_.host("f").c_str(), 0600);
    ::chmod(client_.host("gone").c_str(), 0600);
  }
  std::filesystem::remove(client_.host("gone"));
  write_host("d/missing", "");
  const auto all = notifications();
  EXPECT_TRUE(told(all, contents(file)));
  EXPECT_TRUE(told(all, contents(folder)));
  EXPECT_TRUE(told(all, entry(root_, "gone")));
  EXPECT_TRUE(told(all, entry(folder, "missing")));
  EXPECT_FALSE(told(all, entry(root_, "d")));
}

TEST_F(CoherenceTest, ForgottenFoldersAreNotWatched) {
  EXPECT_EQ(client_.dispatcher().watches(), 2U);
  const auto folder = client_.mkdir(root_, "d").node();
  EXPECT_EQ(client_.dispatcher().watches(), 3U);
  client_.forget(folder, 1);
  EXPECT_EQ(client_.dispatcher().watches(), 2U);
}

TEST(Coherence, WithoutWatchesNothingIsBelieved) {
  FuseClient client({.nodes = {}, .cache = std::chrono::seconds(kLifetime), .watches = 1}, 41);
  const auto folder = client.mkdir(client.ws0(), "d");  // the root has the only watch
  EXPECT_EQ(folder.as<fuse_entry_out>().entry_valid, kLifetime);
  EXPECT_EQ(folder.as<fuse_entry_out>().attr_valid, 0U);
  const auto file = client.create(folder.node(), "f").as<fuse_entry_out>();
  EXPECT_EQ(file.entry_valid, 0U);
  EXPECT_EQ(file.attr_valid, 0U);
  EXPECT_EQ(client.lookup(folder.node(), "missing").error, ENOENT);
}

TEST(Coherence, KernelsThatKeepMissingNamesAreNotTold) {
  FuseClient client({.nodes = {}, .cache = std::chrono::seconds(kLifetime)}, 45);
  EXPECT_EQ(client.lookup(client.ws0(), "missing").error, ENOENT);
  EXPECT_GT(client.mkdir(client.ws0(), "d").as<fuse_entry_out>().entry_valid, 0U);
}

TEST(Coherence, TheNamesThatAreMissingAreBounded) {
  FuseClient client({.nodes = {}, .cache = std::chrono::seconds(kLifetime)}, 41);
  std::size_t remembered = 0;
  for (int i = 0; i < (1 << 16) + 100; ++i) remembered += client.lookup(client.ws0(), std::to_string(i)).error == 0;
  EXPECT_EQ(remembered, std::size_t{1} << 16U);
}

}  // namespace
}  // namespace sbx::files
