// Real QEMU, jailed: a machine without a kernel is paused in its firmware, saved as a template, cloned, saved and
// restored. What it holds in memory is the firmware's doing, which is enough to see that all descriptors arrive.
#include "vm/virtual_machine.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>
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

// With a real kernel: SBX_TEST_KERNEL (vmlinux), SBX_TEST_ROOT (raw), and SBX_TEST_INITRAMFS whose init mounts /dev/vda
// and answers each line on the port sbx.control with one line of its own, with random bytes in it.
class KernelTest : public VirtualMachineTest {
 protected:
  void SetUp() override {
    for (const char* name : {"SBX_TEST_KERNEL", "SBX_TEST_ROOT", "SBX_TEST_INITRAMFS"}) {
      if (::getenv(name) == nullptr) GTEST_SKIP() << name << " is not set";
    }
    root_ = ::getenv("SBX_TEST_ROOT");
    ASSERT_TRUE(create_overlay(paths_.disk(), {fs::file_size(root_), root_.string(), DiskFormat::kRaw}));
  }
  StartSpec real_template() {
    StartSpec spec = template_spec();
    spec.machine.memory_mib = 2048;
    spec.kernel = ::getenv("SBX_TEST_KERNEL");
    spec.initramfs = ::getenv("SBX_TEST_INITRAMFS");
    spec.disks = {{paths_.disk()}, {root_, DiskFormat::kRaw}};
    console_ = open_file(folder_.path() / "console", O_WRONLY | O_CREAT).value();
    spec.console_fd = console_.get();
    return spec;
  }
  StartSpec real_clone(const std::string& name) {
    StartSpec spec = real_template();
    spec.machine.purpose = Purpose::kClone;
    spec.kernel.clear();
    spec.initramfs.clear();
    spec.console_fd = -1;
    spec.runtime_folder = runtime(name);
    const fs::path disk = spec.runtime_folder / "disk.qcow2";
    EXPECT_TRUE(fs::exists(disk) ||
                create_overlay(disk, {fs::file_size(root_), paths_.disk().string(), DiskFormat::kQcow2}));
    spec.disks.insert(spec.disks.begin(), DiskFile{disk});
    return spec;
  }
  // Sends a line and returns the answer; blocks.
  std::string ask(VirtualMachine& vm, int seconds) {
    const auto port = connect_port(vm.spec().runtime_folder, 0);
    if (!port || !write_all(port->get(), "ping\n")) return "(no port)";
    std::string out;
    while (out.find('\n') == std::string::npos) {
      pollfd state{port->get(), POLLIN, 0};
      if (::poll(&state, 1, seconds * 1000) <= 0) return "(nothing) " + out;
      char chunk[256];
      const ssize_t n = ::read(port->get(), chunk, sizeof chunk);
      if (n <= 0) return "(closed) " + out;
      out.append(chunk, static_cast<std::size_t>(n));
    }
    return out;
  }
  fs::path root_;
  UniqueFd console_;
};

TEST_F(KernelTest, AnswersOnItsPortAfterCloneAndAfterAMemoryImage) {
  run([&]() -> Awaitable<void> {
    {
      auto vm = co_await VirtualMachine::start(real_template());
      ASSERT_OK(vm);
      {
        const Stopwatch watch("cold boot to the first answer");
        EXPECT_EQ(ask(**vm, 60).substr(0, 4), "pong") << read_file(folder_.path() / "console").value_or("");
      }
      ASSERT_OK(co_await (*vm)->pause());
      const Stopwatch watch("save template state");
      ASSERT_OK(co_await (*vm)->save_template_state(paths_.state()));
      ASSERT_OK(co_await (*vm)->quit());
      TemplateManifest manifest;
      ASSERT_OK(seal_template(paths_, manifest));
    }
    struct stat ram {};
    ::stat(paths_.ram().c_str(), &ram);
    std::cout << "  RAM file " << (ram.st_blocks * 512 >> 20) << " MiB, state " << fs::file_size(paths_.state())
              << "\n";
    const fs::path image = folder_.path() / "memory.img";
    std::string previous;
    for (int i = 0; i < 3; ++i) {
      auto vm = std::unique_ptr<VirtualMachine>();
      {
        const Stopwatch watch("clone to the first answer");
        auto started = co_await VirtualMachine::start(real_clone("clone" + std::to_string(i)));
        ASSERT_OK(started);
        vm = std::move(*started);
        ASSERT_OK(co_await vm->load_state(paths_.state()));
        ASSERT_OK(co_await vm->resume());
        const std::string answer = ask(*vm, 20);
        EXPECT_EQ(answer.substr(0, 4), "pong");
      }
      // vmgenid reaches the kernel as an interrupt, so the first bytes may still be the template's (sbx-guest reseeds
      // by itself before it thaws anybody); a little later every clone must have its own.
      std::string answer;
      for (int k = 0; k < 20; ++k) answer = ask(*vm, 20);
      EXPECT_NE(answer, previous) << "every clone has random bytes of its own";
      previous = answer;
      if (i == 2) {
        ASSERT_OK(co_await vm->pause());
        const Stopwatch watch("save memory image");
        ASSERT_OK(co_await vm->save_memory_image(image));
        ASSERT_OK(co_await vm->quit());
      }
    }
    std::cout << "  memory image " << fs::file_size(image) << " bytes\n";
    const Stopwatch watch("memory image to the first answer");
    auto vm = co_await VirtualMachine::start(real_clone("clone2"));
    ASSERT_OK(vm);
    ASSERT_OK(co_await (*vm)->load_memory_image(image));
    ASSERT_OK(co_await (*vm)->resume());
    EXPECT_EQ(ask(**vm, 20).substr(0, 4), "pong");
  }());
}

TEST_F(KernelTest, ASandboxBootsColdOnItsOwnDiskAndIsSavedAndRestored) {
  run([&]() -> Awaitable<void> {
    const fs::path image = folder_.path() / "memory.img";
    StartSpec spec = real_template();
    spec.machine.purpose = Purpose::kBoot;
    spec.ram.clear();
    {
      auto vm = co_await VirtualMachine::start(spec);
      ASSERT_OK(vm);
      EXPECT_EQ(ask(**vm, 60).substr(0, 4), "pong");
      ASSERT_OK(co_await (*vm)->pause());
      const Stopwatch watch("save memory image without a template");
      ASSERT_OK(co_await (*vm)->save_memory_image(image));
      ASSERT_OK(co_await (*vm)->quit());
    }
    std::cout << "  memory image " << fs::file_size(image) << " bytes\n";
    spec.machine.purpose = Purpose::kRestore;
    spec.kernel.clear();
    spec.initramfs.clear();
    const Stopwatch watch("restore to the first answer");
    auto vm = co_await VirtualMachine::start(spec);
    ASSERT_OK(vm);
    ASSERT_OK(co_await (*vm)->load_memory_image(image));
    ASSERT_OK(co_await (*vm)->resume());
    EXPECT_EQ(ask(**vm, 20).substr(0, 4), "pong");
  }());
}

}  // namespace
}  // namespace sbx::vm
