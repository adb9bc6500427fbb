// Mounts the server on this host, through its kernel's FUSE client, and lets ordinary programs work in it. Needs root
// and /dev/fuse; skipped elsewhere.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/command.h"
#include "base/file.h"
#include "files/dispatcher.h"
#include "files/session.h"
#include "wire/files_port.h"

namespace sbx::files {
namespace {

// Pumps whole messages between /dev/fuse and a stream, as sbx-guest does: notifications by a thread of its own, since
// one may wait for a page whose reply is behind it. Ends when either side does.
void relay(int fuse, int stream, std::atomic<std::uint64_t>& notified) {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::string> waiting;
  bool ended = false;
  std::thread notifications([&] {
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait(lock, [&] { return ended || !waiting.empty(); });
      if (waiting.empty()) return;
      const std::string message = std::move(waiting.front());
      waiting.pop_front();
      lock.unlock();
      [[maybe_unused]] const ssize_t ignored = ::write(fuse, message.data(), message.size());
      ++notified;
      notified.notify_all();
      lock.lock();
    }
  });
  std::thread requests([=] {
    std::vector<char> message(kMaxMessage);
    while (true) {
      const ssize_t size = ::read(fuse, message.data(), message.size());
      if (size < 0 && (errno == EINTR || errno == ENOENT)) continue;
      if (size <= 0 || !write_all(stream, {message.data(), static_cast<std::size_t>(size)})) break;
    }
    ::shutdown(stream, SHUT_RDWR);
  });
  const auto read_exactly = [stream](char* into, std::size_t size) {
    return size == 0 || ::recv(stream, into, size, MSG_WAITALL) == static_cast<ssize_t>(size);
  };
  std::vector<char> message(kMaxMessage);
  fuse_out_header header{};
  while (read_exactly(message.data(), sizeof(header))) {
    std::memcpy(&header, message.data(), sizeof(header));
    if (!read_exactly(message.data() + sizeof(header), header.len - sizeof(header))) break;
    if (header.unique == 0 && header.error == wire::kHostChanged) continue;
    if (header.unique == 0) {
      const std::lock_guard lock(mutex);
      waiting.emplace_back(message.data(), header.len);
      changed.notify_one();
      continue;
    }
    // Fails for requests that were interrupted; the kernel has forgotten them.
    [[maybe_unused]] const ssize_t ignored = ::write(fuse, message.data(), header.len);
  }
  {
    const std::lock_guard lock(mutex);
    ended = true;
    changed.notify_one();
  }
  notifications.join();
  requests.join();
}

// With and without caching.
class MountTest : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    if (::geteuid() != 0 || ::access("/dev/fuse", R_OK | W_OK) != 0) GTEST_SKIP() << "needs root and /dev/fuse";
    ::umask(0022);
    std::filesystem::permissions(folder_.path(), std::filesystem::perms(0755));
    for (const auto* name : {"ws0", "ws1", "mnt"}) std::filesystem::create_directory(folder_.path() / name);
    ASSERT_TRUE(write_file_atomically(folder_.path() / "file", "one file\n", 0644));
    std::vector<Workspace> workspaces;
    workspaces.push_back(*open_workspace({0, (folder_.path() / "ws0").string(), false}));
    workspaces.push_back(*open_workspace({1, (folder_.path() / "ws1").string(), true}));
    workspaces.push_back(*open_workspace({2, (folder_.path() / "file").string(), false}));
    Dispatcher::Limits limits;
    limits.nodes.descriptors = 64;  // so that eviction takes part in everything
    limits.cache = std::chrono::seconds(GetParam());
    dispatcher_.emplace(std::move(workspaces), limits, *HostWatch::make());

    fuse_ = UniqueFd(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
    ASSERT_TRUE(fuse_.valid());
    mountpoint_ = (folder_.path() / "mnt").string();
    const std::string options = "fd=" + std::to_string(fuse_.get()) +
                                ",rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read=1048576";
    if (::mount("sbx", mountpoint_.c_str(), "fuse", MS_NOSUID | MS_NODEV, options.c_str()) != 0) {
      mountpoint_.clear();
      GTEST_SKIP() << "cannot mount: " << std::strerror(errno);
    }
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    server_end_.reset(ends[0]);
    relay_end_.reset(ends[1]);
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    server_control_.reset(ends[0]);
    control_.reset(ends[1]);
    server_ = std::thread([this] {
      const auto result = serve(server_end_.get(), *dispatcher_, server_control_.get());
      EXPECT_TRUE(result) << result.error().describe();
      ::shutdown(server_end_.get(), SHUT_RDWR);
    });
    relay_ = std::thread([this] { relay(fuse_.get(), relay_end_.get(), notified_); });
  }

  void TearDown() override {
    if (!mountpoint_.empty()) ::umount2(mountpoint_.c_str(), MNT_DETACH);
    if (relay_.joinable()) relay_.join();
    if (server_.joinable()) server_.join();
  }

  // What the guest does before it starts a command.
  void barrier() {
    std::uint64_t count = 0;
    ASSERT_TRUE(write_all(control_.get(), "b"));
    ASSERT_EQ(::recv(control_.get(), &count, sizeof(count), MSG_WAITALL), static_cast<ssize_t>(sizeof(count)));
    for (std::uint64_t now = notified_; now < count; now = notified_) notified_.wait(now);
  }

  // As the guest's agent, in workspace 0.
  void run(const std::string& script) {
    barrier();
    const auto output = Command({"setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "sh", "-ec",
                                 "export HOME=$PWD LC_ALL=C; " + script})
                            .working_folder(mountpoint_ + "/0")
                            .output();
    EXPECT_TRUE(output) << script << "\n" << (output ? "" : output.error().describe());
  }
  std::filesystem::path host(std::string_view name) const { return folder_.path() / "ws0" / name; }

  TemporaryFolder folder_ = *TemporaryFolder::make("sbx-files-mount");
  std::string mountpoint_;
  UniqueFd fuse_, server_end_, relay_end_, control_, server_control_;
  std::atomic<std::uint64_t> notified_ = 0;
  std::optional<Dispatcher> dispatcher_;
  std::thread server_, relay_;
};

TEST_P(MountTest, OwnersPermissionsAndLinks) {
  run("test \"$(stat -c %u:%g .)\" = 1000:1000; echo hi > a; chmod 640 a; test \"$(stat -c %a:%u:%g a)\" = "
      "640:1000:1000;"
      "chown 1000:1000 a; ! chown 0 a 2>/dev/null; ln a b; test \"$(stat -c %h b)\" = 2; ln -s a c; test \"$(cat c)\" "
      "= hi;"
      "test \"$(stat -c %i a)\" = \"$(stat -c %i b)\"; chmod 4755 a; test \"$(stat -c %a a)\" = 755;"
      "! mknod d c 1 3 2>/dev/null; mkfifo f; (echo through > f &); test \"$(cat f)\" = through; umask 077; : > g;"
      "test \"$(stat -c %a g)\" = 600");
  EXPECT_EQ(*read_file(host("b")), "hi\n");
}

TEST_P(MountTest, RenameTruncateSparseAndLongNames) {
  run("mkdir d e; echo x > d/f; mv d/f e/g; test \"$(cat e/g)\" = x; mv e d/e; test \"$(cat d/e/g)\" = x;"
      "truncate -s 64M big; test $(stat -c %b big) -lt 64; echo end >> big; tail -c 4 big | grep -q end;"
      "cp --sparse=always big big2; cmp big big2; test $(stat -c %b big2) -lt 64; fallocate -p -o 0 -l 4096 big;"
      "n=$(printf '%0255d' 7); echo long > $n; test \"$(cat $n)\" = long; ! echo no > 0$n 2>/dev/null;"
      "b=$(printf 'a\\377b'); echo bytes > \"$b\"; ls | grep -qa \"$b\"; test \"$(cat \"$b\")\" = bytes; rm big big2");
}

TEST_P(MountTest, UnlinkedFilesStayOpenAndLocksWork) {
  run("exec 3<>f; echo data >&3; rm f; test \"$(cat /proc/self/fd/3)\" = data; : > l;"
      "exec 4>l; flock -n 4; ! flock -n l true; exec 4>&-; flock -n l true;"
      "mkdir d; cd d; rmdir ../d; ! ls x 2>/dev/null");
}

TEST_P(MountTest, HundredsOfFilesOverAFewDescriptors) {
  run("i=0; while [ $i -lt 40 ]; do mkdir -p d$i/x/y; j=0; while [ $j -lt 20 ]; do echo $i.$j > d$i/x/y/$j; j=$((j+1));"
      "done; i=$((i+1)); done; test $(find . -type f | wc -l) = 800; test \"$(cat d7/x/y/9)\" = 7.9;"
      "cat $(find . -type f) | sort -u | wc -l | grep -qx 800; rm -r d*; test -z \"$(ls)\"");
}

TEST_P(MountTest, ManyProcessesAtOnce) {
  run("git init -q o; cd o; git config user.email a@b; git config user.name n; for i in $(seq 100); do echo $i > f$i; "
      "done;"
      "git add .; git commit -qm x; cd ..; for i in 1 2 3 4 5 6; do (git clone -q o c$i && cd c$i && cat f* | wc -l > "
      "../n$i &&"
      "for j in $(seq 50); do echo $j > t; mv t u; ln u v$j; done; rm -r ../c$i) & done; wait;"
      "test \"$(cat n* | sort -u)\" = 100; test \"$(ls -d c* 2>/dev/null)\" = ''; for i in $(seq 200); do echo $i >> "
      "log & done; wait;"
      "test $(wc -l < log) = 200");
}

TEST_P(MountTest, ReadOnlyWorkspaceAndSingleFile) {
  ASSERT_TRUE(write_file_atomically(folder_.path() / "ws1/r", "ro\n", 0666));
  run("test \"$(cat ../1/r)\" = ro; ! sh -c 'echo x > ../1/r' 2>/dev/null; ! mkdir ../1/d 2>/dev/null; ! rm -f ../1/r "
      "2>/dev/null;"
      "test \"$(cat ../2)\" = 'one file'; echo two > ../2; ! mkdir ../3 2>/dev/null; test \"$(ls ..)\" = \"$(printf "
      "'0\\n1\\n2')\";"
      "echo y > y; mv y ../1/y 2>/dev/null && exit 1; ! ln y ../2x 2>/dev/null");
  EXPECT_EQ(*read_file(folder_.path() / "file"), "two\n");
}

TEST_P(MountTest, HostChangesAreSeenAtOnce) {
  run("echo guest > f; cat f >/dev/null; stat f >/dev/null");
  ASSERT_TRUE(write_file_atomically(host("f"), "host, and longer\n", 0644));
  run("test \"$(cat f)\" = 'host, and longer'; test ! -e later");
  ASSERT_TRUE(write_file_atomically(host("later"), "x", 0644));
  run("test -e later");
}

TEST_P(MountTest, Mmap) {
  run("python3 -c '\nimport mmap, os\nf = open(\"m\", \"w+b\"); f.truncate(3 << 20)\nm = mmap.mmap(f.fileno(), 0)\n"
      "m[0:5] = b\"hello\"; m[2000000:2000003] = b\"mid\"; m.flush(); m.close(); f.close()\n"
      "d = open(\"m\", \"rb\").read(); assert d[:5] == b\"hello\" and d[2000000:2000003] == b\"mid\" and len(d) == 3 "
      "<< 20\n"
      "os.setxattr(\"m\", \"user.k\", b\"v\" * 1000); assert os.getxattr(\"m\", \"user.k\") == b\"v\" * 1000\n"
      "assert os.listxattr(\"m\") == [\"user.k\"]; os.removexattr(\"m\", \"user.k\"); assert os.listxattr(\"m\") == "
      "[]\n"
      "d = os.open(\".\", os.O_RDONLY); os.fsync(d)\n'");
  EXPECT_EQ(std::filesystem::file_size(host("m")), 3U << 20U);
}

TEST_P(MountTest, GitMakeSqliteAndNode) {
  run("git init -q repo; cd repo; git config user.email a@b; git config user.name n;"
      "i=0; while [ $i -lt 60 ]; do echo $i > file$i; i=$((i+1)); done; git add .; git commit -qm one; git checkout "
      "-qb side;"
      "echo more >> file1; git mv file2 moved; git commit -qam two; git checkout -q -; git merge -q side; git gc -q;"
      "git fsck --strict; git clone -q . ../clone; test -z \"$(git status --porcelain)\"");
  run("printf 'all: out\\nout: in\\n\\tcat in > out\\n' > Makefile; echo 1 > in; make -s; test \"$(cat out)\" = 1; "
      "make -q;"
      "sleep 0.02; echo 2 > in; make -s; test \"$(cat out)\" = 2");
  run("sqlite3 db 'pragma journal_mode=wal; create table t(x); insert into t values(1);' >/dev/null;"
      "for i in 1 2 3 4; do sqlite3 -cmd '.timeout 100000' db 'insert into t select x+1 from t' & done; wait;"
      "test \"$(sqlite3 db 'select count(*) from t; pragma integrity_check')\" = \"$(printf '16\\nok')\"");
  run("mkdir -p node_modules/m; echo 'exports.x=41' > node_modules/m/index.js; echo \"console.log(require('m').x+1)\" "
      "> a.js;"
      "test \"$(node a.js)\" = 42");
}

INSTANTIATE_TEST_SUITE_P(, MountTest, testing::Values(0, 600),
                         [](const auto& info) { return info.param == 0 ? "Uncached" : "Cached"; });

}  // namespace
}  // namespace sbx::files
