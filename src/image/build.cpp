#include "image/build.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <sstream>

#include "base/command.h"
#include "base/file.h"
#include "base/unique_fd.h"
#include "image/apt_sources.h"

namespace sbx::image {
namespace {

constexpr std::string_view kWorkPrefix = ".building-";
constexpr const char* kKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg";

std::string timestamp_now() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

// "bookworm" on Debian 12.
std::string host_suite() {
  const auto text = read_file("/etc/os-release").value_or("");
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("VERSION_CODENAME=")) return line.substr(std::strlen("VERSION_CODENAME="));
  }
  return "stable";
}

// What the host's apt was told about dates and proxies holds for the build too.
std::vector<std::string> host_apt_options() {
  std::vector<std::string> options;
  const auto dump = Command({"apt-config", "dump"}).output();
  std::istringstream lines(dump.value_or(""));
  for (std::string line; std::getline(lines, line);) {
    if (!line.ends_with(';')) continue;
    for (const char* wanted : {"Acquire::Check-", "Acquire::http::Proxy", "Acquire::https::Proxy"}) {
      if (line.starts_with(wanted)) {
        options.insert(options.end(), {"--apt-option", line.substr(0, line.size() - 1)});
        break;
      }
    }
  }
  return options;
}

Result<UniqueFd> lock_images(const std::filesystem::path& images_folder, const Progress& progress) {
  auto lock = SBX_TRY(open_file(images_folder / ".lock", O_RDWR | O_CREAT), "opening the image lock");
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) == 0) return lock;
  if (errno == EWOULDBLOCK) progress("waiting for another build");
  while (::flock(lock.get(), LOCK_EX) != 0) {
    if (errno != EINTR) return fail_errno("locking the images folder", errno);
  }
  return lock;
}

void remove_leftovers(const std::filesystem::path& images_folder) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(images_folder, error)) {
    if (!entry.path().filename().string().starts_with(kWorkPrefix)) continue;
    std::error_code ignored;
    std::filesystem::remove_all(entry.path(), ignored);
  }
}

std::string last_lines(const std::filesystem::path& log) {
  const std::string text = read_file(log).value_or("");
  std::size_t start = text.size();
  for (int lines = 0; lines < 12 && start > 0 && start != std::string::npos; ++lines)
    start = text.rfind('\n', start - 1);
  return start == std::string::npos || start == 0 ? text : text.substr(start + 1);
}

// Ends whatever a build left running when it is given up (its own session, so that mmdebstrap's children are reached).
struct SessionGuard {
  pid_t leader = -1;
  ~SessionGuard() {
    if (leader > 0) ::kill(-leader, SIGTERM);
  }
};

// Reads build.sh's stdout to its end: steps go to `progress`, the rest is kept in the log.
void follow(int fd, int log, const Progress& progress) {
  constexpr std::string_view kStep = "sbx-step: ";
  std::string pending;
  char buffer[4096];
  for (;;) {
    const ssize_t got = ::read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return;
    pending.append(buffer, static_cast<std::size_t>(got));
    for (std::size_t end; (end = pending.find('\n')) != std::string::npos; pending.erase(0, end + 1)) {
      const std::string line = pending.substr(0, end);
      if (line.starts_with(kStep)) progress(line.substr(kStep.size()));
      (void)write_all(log, line + "\n");
    }
  }
}

Result<void> run_recipe(const BuildOptions& options, const std::filesystem::path& folder, const Progress& progress) {
  const char* setting = std::getenv("SBX_DEBIAN_MIRROR");
  const std::string mirror = !options.mirror.empty() ? options.mirror : setting != nullptr ? setting : "";
  std::error_code error;
  const std::string keyring = std::filesystem::exists(kKeyring, error) ? kKeyring : "";
  const std::string sources =
      SBX_TRY(sources_for_suite(host_apt_sources(), host_suite(), options.recipe.suite, mirror, keyring),
              "choosing a Debian archive");
  SBX_CHECK(write_file_atomically(folder / "sources.list", sources, 0644), "writing the apt sources");

  const auto log_path = folder / "build.log";
  const auto log = SBX_TRY(open_file(log_path, O_WRONLY | O_CREAT | O_APPEND), "opening the build log");
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno("making a pipe", errno);
  UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);

  auto child = SBX_TRY(Command({"bash", (options.recipe.folder / "build.sh").string()})
                           .add({"--out", folder.string(), "--sources", (folder / "sources.list").string()})
                           .add({"--suite", options.recipe.suite, "--size", std::to_string(options.recipe.disk_bytes)})
                           .add(host_apt_options())
                           .stdout_to(writer.get())
                           .stderr_to(log.get())
                           .new_session()
                           .start(),
                       "starting the image build");
  SessionGuard guard{child.pid()};
  writer.reset();
  follow(reader.get(), log.get(), progress);
  const auto status = SBX_TRY(child.wait(), "waiting for the image build");
  if (!status.success()) {
    return fail(ErrorCode::kUnavailable,
                "the image build failed (" + status.describe() + "); its last words:\n" + last_lines(log_path));
  }
  guard.leader = -1;
  return {};
}

Result<ImageManifest> describe_image(const BuildOptions& options, const std::string& id,
                                     const std::filesystem::path& folder, std::uint64_t build_ms) {
  ImageManifest manifest;
  manifest.id = id;
  manifest.suite = options.recipe.suite;
  manifest.build_ms = build_ms;
  manifest.created_at = timestamp_now();
  std::istringstream version(SBX_TRY(read_file(folder / "kernel-version"), "reading the kernel's version"));
  std::getline(version, manifest.kernel_version);
  std::istringstream modules(SBX_TRY(read_file(folder / "modules.list"), "reading the list of modules"));
  for (std::string name; modules >> name;) manifest.modules.push_back(name);
  std::error_code error;
  manifest.disk_bytes = std::filesystem::file_size(folder / "root.ext4", error);
  if (error) return fail_errno("the build left no root.ext4", error.value());
  if (!std::filesystem::exists(folder / "vmlinux", error)) {
    return fail(ErrorCode::kInternal, "the build left no vmlinux");
  }
  for (const auto& module : manifest.modules) {
    if (!std::filesystem::exists(folder / "modules" / module, error)) {
      return fail(ErrorCode::kInternal, "the build left no modules/" + module);
    }
  }
  manifest.stored_bytes = bytes_on_disk(folder);
  return manifest;
}

}  // namespace

std::uint64_t bytes_on_disk(const std::filesystem::path& path) {
  const auto bytes_of = [](const std::filesystem::path& entry) -> std::uint64_t {
    struct stat status {};
    return ::lstat(entry.c_str(), &status) == 0 ? static_cast<std::uint64_t>(status.st_blocks) * 512 : 0;
  };
  std::uint64_t total = bytes_of(path);
  std::error_code error;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path, error)) total += bytes_of(entry.path());
  return total;
}

Result<ImageManifest> build_image(const BuildOptions& options, const Progress& progress) {
  const auto report = [&](const std::string& step) {
    if (progress) progress(step);
  };
  const std::string id = SBX_TRY(image_id(options.recipe), "naming the image");
  if (auto existing = load_image(options.images_folder, id)) return existing;

  SBX_CHECK(make_folders(options.images_folder), "making the images folder");
  const auto lock = SBX_TRY(lock_images(options.images_folder, report), "locking the images folder");
  if (auto existing = load_image(options.images_folder, id)) return existing;
  remove_leftovers(options.images_folder);

  const auto started = std::chrono::steady_clock::now();
  // Removed with everything in it unless it becomes the image: after the rename its path is empty.
  const auto work = SBX_TRY(TemporaryFolder::make(kWorkPrefix, options.images_folder), "making a work folder");
  const auto folder = work.path() / "image";
  SBX_CHECK(make_folders(folder, 0755), "making a work folder");
  SBX_CHECK(run_recipe(options, folder, report), "building image " + id);

  const auto build_ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - started);
  const auto manifest = SBX_TRY(describe_image(options, id, folder, static_cast<std::uint64_t>(build_ms.count())),
                                "checking the new image");
  SBX_CHECK(write_file_atomically(folder / "manifest.json", to_json(manifest), 0644), "writing the manifest");
  std::error_code error;
  for (const char* rest : {"kernel-version", "modules.list", "sources.list"}) {
    std::filesystem::remove(folder / rest, error);
  }
  // Whatever stands there without a readable manifest is no image.
  std::filesystem::remove_all(options.images_folder / id, error);
  std::filesystem::rename(folder, options.images_folder / id, error);
  if (error) return fail_errno("putting image " + id + " in its place", error.value());
  SBX_CHECK(sync_folder(options.images_folder), "keeping the new image");
  return manifest;
}

}  // namespace sbx::image
