// Real QEMU, jailed: a machine without a kernel is paused in its firmware, saved as a template, cloned, saved and
// restored. What it holds in memory is the firmware's doing, which is enough to see that all descriptors arrive.
#include "vm/virtual_machine.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>
#include <iostream>

#include "base/file.h"
#include "vm/overlay.h"
#include "vm/template.h"

namespace sbx::vm {
namespace {

namespace asio = boost::asio;
namespace fs = std::filesystem;
using nlohmann::json;

bool qemu_missing() {
  return ::access("/usr/bin/qemu-system-x86_64", X_OK) != 0 || ::access("/usr/bin/bwrap", X_OK) != 0;
}

template <typename T>
T run(Awaitable<T> task) {
  asio::io_context context;
  auto future = asio::co_spawn(context, std::move(task), asio::use_future);
  context.run();
  return future.get();
}

#define ASSERT_OK(expr)                                                \
  do {                                                                 \
    auto&& assert_ok_ = (expr);                                        \
    if (!assert_ok_) {                                                 \
      ADD_FAILURE() << #expr << ": " << assert_ok_.error().describe(); \
      co_return;                                                       \
    }                                                                  \
  } while (false)

class Stopwatch {
 public:
  explicit Stopwatch(std::string what) : what_(std::move(what)), begin_(std::chrono::steady_clock::now()) {}
  ~Stopwatch() {
    const auto spent = std::chrono::steady_clock::now() - begin_;
    std::cout << "  " << what_ << ": " << std::chrono::duration_cast<std::chrono::microseconds>(spent).count() / 1000.0
              << " ms\n";
  }

 private:
  std::string what_;
  std::chrono::steady_clock::time_point begin_;
};

class VirtualMachineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (qemu_missing()) GTEST_SKIP() << "needs qemu-system-x86_64 and bwrap";
    const auto root = open_file(base(), O_RDWR | O_CREAT);
    ASSERT_TRUE(root);
    ASSERT_EQ(::ftruncate(root->get(), 64 << 20), 0);
    ASSERT_EQ(::fchmod(root->get(), 0444), 0);
    ASSERT_TRUE(create_overlay(paths_.disk(), {64 << 20, "", DiskFormat::kRaw}));
  }

  fs::path base() const { return folder_.path() / "root.ext4"; }
  fs::path runtime(const std::string& name) {
    const fs::path path = folder_.path() / name;
    fs::create_directory(path);
    return path;
  }
  StartSpec template_spec() {
    StartSpec spec;
    spec.machine.purpose = Purpose::kTemplate;
    spec.machine.memory_mib = 256;
    spec.disks = {{paths_.disk()}, {base(), DiskFormat::kRaw}};
    spec.ram = paths_.ram();
    spec.runtime_folder = runtime("template-run");
    return spec;
  }
  StartSpec clone_spec(const std::string& name) {
    StartSpec spec = template_spec();
    spec.machine.purpose = Purpose::kClone;
    spec.runtime_folder = runtime(name);
    const fs::path disk = spec.runtime_folder / "disk.qcow2";
    EXPECT_TRUE(fs::exists(disk) || create_overlay(disk, {128 << 20, paths_.disk().string(), DiskFormat::kQcow2}));
    spec.disks.insert(spec.disks.begin(), DiskFile{disk});
    return spec;
  }

  Awaitable<void> build_template() {
    auto vm = co_await VirtualMachine::start(template_spec());
    ASSERT_OK(vm);
    // Firmware needs a moment to touch memory; nothing depends on how far it gets.
    asio::steady_timer moment(co_await asio::this_coro::executor, std::chrono::milliseconds(300));
    co_await moment.async_wait(asio::use_awaitable);
    ASSERT_OK(co_await (*vm)->pause());
    {
      const Stopwatch watch("save template state");
      ASSERT_OK(co_await (*vm)->save_template_state(paths_.state()));
    }
    auto status = co_await (*vm)->quit();
    ASSERT_OK(status);
    EXPECT_TRUE(status->success()) << status->describe();
    TemplateManifest manifest;
    manifest.key.memory_mib = 256;
    ASSERT_OK(seal_template(paths_, manifest));
    ASSERT_OK(read_manifest(paths_));
    EXPECT_GT(fs::file_size(paths_.state()), 1000U);
  }

  TemporaryFolder folder_ = TemporaryFolder::make("sbx-vm-test").value();
  TemplatePaths paths_{folder_.path()};
};

// Killed while QEMU still needs the name of its RAM: the next build of the same template clears it away.
TEST_F(VirtualMachineTest, ATemplateBuildThatIsKilledLeavesNoMemoryToTheNextOne) {
  const fs::path in_memory = ram_in_memory(paths_.ram());
  const pid_t builder = ::fork();
  ASSERT_GE(builder, 0);
  if (builder == 0) {
    const auto machine = MachineProcess::start(template_spec());
    for (;;) ::pause();
  }
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!fs::exists(in_memory) && !fs::exists(paths_.ram()) && std::chrono::steady_clock::now() < until)
    ::poll(nullptr, 0, 25);
  ::kill(builder, SIGKILL);
  ASSERT_EQ(::waitpid(builder, nullptr, 0), builder);
  if (fs::exists(paths_.ram())) GTEST_SKIP() << "there is no room to build in memory";
  EXPECT_TRUE(fs::exists(in_memory)) << "nothing was left that could be cleared away";
  {
    auto machine = MachineProcess::start(template_spec());
    ASSERT_TRUE(machine) << machine.error().describe();
    machine->forget_ram_name();
    EXPECT_FALSE(fs::exists(in_memory));
  }
  EXPECT_FALSE(fs::exists(in_memory));
}

TEST_F(VirtualMachineTest, ATemplateIsSavedAndItsClonesRun) {
  run([&]() -> Awaitable<void> {
    co_await build_template();
    if (HasFailure()) co_return;
    for (int i = 0; i < 3; ++i) {
      const Stopwatch total("clone, all in all");
      std::unique_ptr<VirtualMachine> vm;
      {
        const Stopwatch watch("start, until QMP answers");
        auto started = co_await VirtualMachine::start(clone_spec("clone" + std::to_string(i)));
        ASSERT_OK(started);
        vm = std::move(*started);
      }
      {
        const Stopwatch watch("load state");
        ASSERT_OK(co_await vm->load_state(paths_.state()));
      }
      auto status = co_await vm->status();
      ASSERT_OK(status);
      EXPECT_EQ(*status, "paused");
      ASSERT_OK(co_await vm->resume());
      status = co_await vm->status();
      ASSERT_OK(status);
      EXPECT_EQ(*status, "running");
      for (int port = 0; port < 3; ++port) {
        EXPECT_TRUE(connect_port(vm->spec().runtime_folder, port));
      }
      auto pid = vm->qemu_pid();
      ASSERT_OK(pid);
      EXPECT_EQ(read_file("/proc/" + std::to_string(*pid) + "/comm").value_or(""), "qemu-system-x86\n");
    }
  }());
}

TEST_F(VirtualMachineTest, AMemoryImageIsSavedAndLoaded) {
  run([&]() -> Awaitable<void> {
    co_await build_template();
    if (HasFailure()) co_return;
    const fs::path image = folder_.path() / "memory.img";
    {
      auto vm = co_await VirtualMachine::start(clone_spec("one"));
      ASSERT_OK(vm);
      ASSERT_OK(co_await (*vm)->load_state(paths_.state()));
      ASSERT_OK(co_await (*vm)->resume());
      ASSERT_OK(co_await (*vm)->pause());
      {
        const Stopwatch watch("save memory image");
        ASSERT_OK(co_await (*vm)->save_memory_image(image));
      }
      // A saved machine goes on only after a resume.
      ASSERT_OK(co_await (*vm)->resume());
      ASSERT_OK(co_await (*vm)->pause());
      {
        const Stopwatch watch("save memory image, template in the page cache");
        ASSERT_OK(co_await (*vm)->save_memory_image(folder_.path() / "again.img"));
      }
      ASSERT_OK(co_await (*vm)->resume());
      ASSERT_OK(co_await (*vm)->pause());
      {
        const Stopwatch watch("save full stream to a file");
        const auto raw = open_file(folder_.path() / "raw", O_WRONLY | O_CREAT).value();
        ASSERT_OK(co_await (*vm)->save_full_stream(raw.get()));
        auto info = co_await (*vm)->qmp().execute("query-migrate");
        ASSERT_OK(info);
        std::cout << "  " << info->dump() << "\n";
      }
      ASSERT_OK(co_await (*vm)->quit());
    }
    std::cout << "  memory image: " << fs::file_size(image) << " bytes\n";
    EXPECT_LT(fs::file_size(image), 4U << 20U);
    auto vm = co_await VirtualMachine::start(clone_spec("one"));
    ASSERT_OK(vm);
    {
      const Stopwatch watch("load memory image");
      ASSERT_OK(co_await (*vm)->load_memory_image(image));
    }
    ASSERT_OK(co_await (*vm)->resume());
    auto status = co_await (*vm)->status();
    ASSERT_OK(status);
    EXPECT_EQ(*status, "running");
  }());
}

TEST_F(VirtualMachineTest, AnOlderQemuGetsACopyOfTheMemoryAndTheStateByName) {
  run([&]() -> Awaitable<void> {
    co_await build_template();
    if (HasFailure()) co_return;
    StartSpec spec = clone_spec("old");
    spec.machine.qemu_major = 7;  // the way of speaking; the program is what is installed
    auto vm = co_await VirtualMachine::start(std::move(spec));
    ASSERT_OK(vm);
    EXPECT_FALSE(fs::exists(folder_.path() / "old" / "ram"));
    ASSERT_OK(co_await (*vm)->load_state(paths_.state()));
    ASSERT_OK(co_await (*vm)->resume());
    auto status = co_await (*vm)->status();
    ASSERT_OK(status);
    EXPECT_EQ(*status, "running");
  }());
}

TEST_F(VirtualMachineTest, ADestroyedVmHasLetGoOfItsDisk) {
  run([&]() -> Awaitable<void> {
    co_await build_template();
    if (HasFailure()) co_return;
    for (int i = 0; i < 5; ++i) {
      auto vm = co_await VirtualMachine::start(clone_spec("same"));
      ASSERT_OK(vm);
    }
  }());
}

TEST_F(VirtualMachineTest, QemuSeesNothingButWhatItWasGiven) {
  run([&]() -> Awaitable<void> {
    auto vm = co_await VirtualMachine::start(template_spec());
    ASSERT_OK(vm);
    auto pid = (*vm)->qemu_pid();
    ASSERT_OK(pid);
    const std::string proc = "/proc/" + std::to_string(*pid);
    const std::string status = read_file(proc + "/status").value_or("");
    EXPECT_NE(status.find("CapEff:\t0000000000000000"), std::string::npos) << status;
    EXPECT_NE(status.find("CapBnd:\t0000000000000000"), std::string::npos) << status;
    EXPECT_NE(status.find("NoNewPrivs:\t1"), std::string::npos) << status;
    EXPECT_NE(status.find("Seccomp:\t2"), std::string::npos) << status;
    if (::geteuid() == 0) {
      EXPECT_NE(status.find("Uid:\t2"), std::string::npos) << status;
    }
    for (const char* name : {"mnt", "pid", "net", "ipc", "uts"}) {
      EXPECT_NE(fs::read_symlink(proc + "/ns/" + name), fs::read_symlink(std::string("/proc/self/ns/") + name)) << name;
    }
    std::vector<std::string> seen;
    for (const auto& entry : fs::directory_iterator(proc + "/root")) seen.push_back(entry.path().filename());
    EXPECT_EQ(std::count(seen.begin(), seen.end(), "home"), 0);
    EXPECT_EQ(std::count(seen.begin(), seen.end(), "proc"), 0);
    EXPECT_EQ(std::count(seen.begin(), seen.end(), "ram"), 1);
  }());
}

TEST_F(VirtualMachineTest, TheEndOfQemuIsSeen) {
  run([&]() -> Awaitable<void> {
    auto vm = co_await VirtualMachine::start(template_spec());
    ASSERT_OK(vm);
    auto pid = (*vm)->qemu_pid();
    ASSERT_OK(pid);
    ::kill(*pid, SIGKILL);
    auto status = co_await (*vm)->exited();
    ASSERT_OK(status);
    EXPECT_FALSE(status->success());
    auto refused = co_await (*vm)->resume();
    EXPECT_FALSE(refused);
  }());
}

TEST_F(VirtualMachineTest, AVmThatCannotStartSaysWhy) {
  run([&]() -> Awaitable<void> {
    StartSpec spec = template_spec();
    spec.qemu = "/usr/bin/false";
    auto vm = co_await VirtualMachine::start(std::move(spec));
    EXPECT_FALSE(vm);
    co_return;
  }());
  run([&]() -> Awaitable<void> {
    StartSpec spec = template_spec();
    spec.ram = folder_.path() / "ram2";
    spec.machine.memory_mib = 0;
    auto vm = co_await VirtualMachine::start(std::move(spec));
    EXPECT_FALSE(vm);
    if (!vm) std::cout << "  " << vm.error().describe() << "\n";
    co_return;
  }());
}

}  // namespace
}  // namespace sbx::vm
