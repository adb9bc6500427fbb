#include "sandbox/artifacts.h"

#include <signal.h>
#include <sys/stat.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/file.h"
#include "image/build.h"
#include "keeper/template_key.h"
#include "sandbox/json_fields.h"
#include "sandbox/keeper_process.h"
#include "sandbox/launch_spec.h"
#include "vm/template.h"

namespace sbx::sandbox {
namespace asio = boost::asio;
namespace fs = std::filesystem;
namespace {

constexpr auto kTemplateDeadline = std::chrono::minutes(10);

// Folders are read-only in parts once sealed; as their owner we may still remove them.
Result<void> remove_tree(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) return fail(ErrorCode::kInternal, "removing " + path.native() + ": " + error.message());
  return {};
}

Result<image::ImageManifest> find_image(const fs::path& folder, const std::string& wanted) {
  auto images = SBX_TRY(image::list_images(folder), "listing the images");
  if (wanted.empty()) {
    if (auto recipe = image::find_recipe(); recipe) {
      const auto id = image::image_id(*recipe);
      for (const auto& entry : images) {
        if (id && entry.id == *id) return entry;
      }
    }
    if (images.empty()) return fail(ErrorCode::kNotFound, "there is no image yet; make one with: sbx image build");
    return images.back();
  }
  for (const auto& entry : images) {
    if (entry.id.starts_with(wanted)) return entry;
  }
  return fail(ErrorCode::kNotFound, "image '" + wanted + "' not found; see: sbx image ls");
}

std::string stamp_of(const fs::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return path.native();
  return path.native() + ":" + std::to_string(info.st_size) + ":" + std::to_string(info.st_mtim.tv_sec) + "." +
         std::to_string(info.st_mtim.tv_nsec);
}

TemplateChoice sized(const std::string& image_id, vm::Accelerator accelerator, std::int64_t cpus,
                     std::int64_t memory_mib) {
  const bool kvm = accelerator == vm::Accelerator::kKvm;
  TemplateChoice choice;
  choice.image_id = image_id;
  choice.accelerator = std::string(vm::to_string(accelerator));
  choice.cpus = cpus != 0 ? cpus : kvm ? std::clamp<std::int64_t>(std::thread::hardware_concurrency(), 1, 4) : 1;
  choice.memory_mib = memory_mib != 0 ? memory_mib : kvm ? 4096 : 2048;
  return choice;
}

}  // namespace

Artifacts::Artifacts(store::Paths paths, fs::path programs, asio::any_io_executor executor, asio::thread_pool& pool)
    : paths_(std::move(paths)), programs_(std::move(programs)), executor_(std::move(executor)), pool_(pool) {}

std::shared_ptr<AsyncMutex> Artifacts::lock_of(const std::string& what) {
  auto& lock = locks_[what];
  if (!lock) lock = std::make_shared<AsyncMutex>(executor_);
  return lock;
}

Awaitable<Result<image::ImageManifest>> Artifacts::build_image(Progress progress) {
  const auto executor = executor_;
  const auto folder = paths_.images();
  auto work = [executor, folder, progress]() -> Result<image::ImageManifest> {
    image::BuildOptions options;
    options.recipe = SBX_TRY(image::find_recipe(), "finding the image's recipe");
    options.images_folder = folder;
    return image::build_image(
        options, [&](const std::string& step) { asio::post(executor, [progress, step] { progress(step); }); });
  };
  co_return co_await run_blocking(pool_, std::move(work));
}

Awaitable<Result<image::ImageManifest>> Artifacts::image(std::string wanted, Progress progress) {
  auto found = find_image(paths_.images(), wanted);
  if (found || !wanted.empty() || found.error().code != ErrorCode::kNotFound) co_return found;
  progress("No image yet: building it (once, takes minutes)");
  co_return co_await build_image(std::move(progress));
}

Awaitable<vm::AcceleratorVerdict> Artifacts::accelerator(std::string image_id) {
  auto guard = co_await lock_of("accelerator")->lock();
  if (verdict_) co_return *verdict_;
  const auto kernel = image_id.empty() ? fs::path() : paths_.images() / image_id / "vmlinux";
  const auto cache = paths_.home / "accelerator.json";
  auto work = [kernel, cache]() {
    vm::AcceleratorHost host;
    if (!kernel.empty())
      host.canary = vm::canary_with(kernel);
    else
      host.canary = []() -> Result<std::string> {
        return fail(ErrorCode::kUnavailable, "there is no image to try it with");
      };
    return vm::probe_accelerator(host, kernel.empty() ? fs::path() : cache);
  };
  auto verdict = co_await run_blocking(pool_, std::move(work));
  if (!image_id.empty()) verdict_ = std::make_shared<vm::AcceleratorVerdict>(verdict);
  co_return verdict;
}

// What ids_ goes by: all that decides a template's id, cheaply enough for every creation.
std::string Artifacts::everything_of(const TemplateChoice& choice) const {
  return stamp_of(programs_ / "sbx-guest") + stamp_of("/usr/bin/qemu-system-x86_64") + choice.image_id +
         choice.accelerator + std::to_string(choice.cpus) + "x" + std::to_string(choice.memory_mib);
}

std::optional<TemplateChoice> Artifacts::ready_template(const std::string& wanted_image, std::int64_t cpus,
                                                        std::int64_t memory_mib) const {
  if (!verdict_) return std::nullopt;
  const auto image = find_image(paths_.images(), wanted_image);
  if (!image) return std::nullopt;
  auto choice = sized(image->id, verdict_->accelerator, cpus, memory_mib);
  const auto known = ids_.find(everything_of(choice));
  if (known == ids_.end() || known->second.empty()) return std::nullopt;
  choice.id = known->second;
  if (!fs::exists(paths_.templates() / choice.id / "manifest.json")) return std::nullopt;
  return choice;
}

Awaitable<Result<TemplateChoice>> Artifacts::template_for(std::string wanted_image, std::int64_t cpus,
                                                          std::int64_t memory_mib, Progress progress) {
  SBX_CO_TRY(auto image, co_await this->image(std::move(wanted_image), progress), "finding an image");
  const auto verdict = co_await accelerator(image.id);
  TemplateChoice choice = sized(image.id, verdict.accelerator, cpus, memory_mib);

  const fs::path image_folder = paths_.images() / image.id;
  const fs::path guest = programs_ / "sbx-guest";
  auto& known = ids_[everything_of(choice)];
  if (known.empty()) {
    auto make_key = [image_folder, guest, verdict, choice]() {
      return keeper::template_key(image_folder, guest, verdict.accelerator, static_cast<int>(choice.cpus),
                                  static_cast<int>(choice.memory_mib));
    };
    SBX_CO_TRY(const auto key, co_await run_blocking(pool_, std::move(make_key)),
               "working out the template's identity");
    known = vm::template_id(key);
  }
  choice.id = known;

  auto guard = co_await lock_of("template " + choice.id)->lock();
  if (fs::exists(paths_.templates() / choice.id / "manifest.json")) co_return choice;
  SBX_CO_CHECK(co_await build_template(choice, std::move(progress)), "preparing the template");
  co_return choice;
}

Awaitable<Result<void>> Artifacts::build_template(TemplateChoice choice, Progress progress) {
  const fs::path lock_path = paths_.templates() / ("." + choice.id + ".lock");
  auto take_lock = [lock_path] { return store::lock_file(lock_path, {.wait = true}); };
  SBX_CO_TRY(auto lock, co_await run_blocking(pool_, std::move(take_lock)),
             "waiting for another builder of the template");
  const fs::path final_folder = paths_.templates() / choice.id;
  if (fs::exists(final_folder / "manifest.json")) co_return Result<void>{};
  progress("Preparing the template for " + std::to_string(choice.cpus) + " CPU(s) and " +
           std::to_string(choice.memory_mib) + " MiB: booting it once (about half a minute without KVM)");

  TemplateSpec spec;
  spec.folders.template_folder = paths_.templates() / ("." + choice.id + ".building");
  spec.folders.sandbox = spec.folders.template_folder;
  spec.folders.runtime = paths_.run / ("t-" + choice.id.substr(0, 6));
  spec.folders.image = paths_.images() / choice.image_id;
  spec.cpus = choice.cpus;
  spec.memory_mib = choice.memory_mib;
  spec.accelerator = choice.accelerator;
  spec.guest_binary = programs_ / "sbx-guest";
  for (const auto& folder : {spec.folders.template_folder, spec.folders.runtime}) {
    SBX_CO_CHECK(remove_tree(folder), "clearing the rest of an earlier build");
    SBX_CO_CHECK(make_folders(folder, 0700), "making " + folder.native());
  }
  const fs::path log = paths_.log_folder() / ("template-" + choice.id.substr(0, 8) + ".log");
  SBX_CO_TRY(auto keeper, spawn_keeper(keeper_program(), template_spec(spec), -1, log),
             "starting the template's keeper");
  auto ready = co_await wait_until_ready(std::move(keeper.output), kTemplateDeadline, log);
  if (!ready) kill_process(keeper.pidfd.get(), SIGTERM);
  // The keeper ends by itself when the template is saved; its end is what makes the files complete.
  asio::posix::stream_descriptor ended(executor_, keeper.pidfd.get());
  asio::steady_timer impatience(executor_, std::chrono::seconds(60));
  const int pidfd = keeper.pidfd.release();  // the descriptor object owns it now
  impatience.async_wait([pidfd](boost::system::error_code error) {
    if (!error) kill_process(pidfd, SIGKILL);
  });
  boost::system::error_code ignored;
  co_await ended.async_wait(asio::posix::stream_descriptor::wait_read,
                            asio::redirect_error(asio::use_awaitable, ignored));
  impatience.cancel();
  reap_keeper(keeper.pid);
  (void)remove_tree(spec.folders.runtime);
  if (ready && !fs::exists(spec.folders.template_folder / "manifest.json")) {
    ready = fail(ErrorCode::kInternal, "the template's keeper ended without a template; see " + log.native());
  }
  if (!ready) {
    (void)remove_tree(spec.folders.template_folder);
    co_return std::unexpected(ready.error());
  }
  std::error_code error;
  fs::rename(spec.folders.template_folder, final_folder, error);
  if (error) co_return fail(ErrorCode::kInternal, "putting the template in place: " + error.message());
  SBX_CO_CHECK(sync_folder(paths_.templates()), "putting the template in place");
  progress("Template ready");
  co_return Result<void>{};
}

std::vector<TemplateSummary> Artifacts::templates() const {
  std::vector<TemplateSummary> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(paths_.templates(), error)) {
    auto manifest = vm::read_manifest(vm::TemplatePaths(entry.path()));
    if (entry.path().filename().native().starts_with('.') || !manifest) continue;
    TemplateSummary summary;
    summary.id = entry.path().filename();
    summary.image_id = manifest->key.root_image;
    summary.accelerator = vm::to_string(manifest->key.accelerator);
    summary.cpus = manifest->key.cpus;
    summary.memory_mib = manifest->key.memory_mib;
    summary.created_at = manifest->created_at;
    summary.stored_bytes = image::bytes_on_disk(entry.path());
    found.push_back(std::move(summary));
  }
  std::ranges::sort(found, {}, &TemplateSummary::created_at);
  return found;
}

Result<void> Artifacts::remove_template(const std::string& id) {
  const fs::path folder = paths_.templates() / id;
  if (id.empty() || id.find('/') != std::string::npos || id.starts_with('.') || !fs::exists(folder)) {
    return fail(ErrorCode::kNotFound, "template '" + id + "' not found; see: sbx template ls");
  }
  // Out of sight first, so that nobody clones half a template.
  std::error_code error;
  const fs::path trash = paths_.templates() / ("." + id + ".removing");
  fs::rename(folder, trash, error);
  if (error) return fail(ErrorCode::kInternal, "removing the template: " + error.message());
  return remove_tree(trash);
}

}  // namespace sbx::sandbox
