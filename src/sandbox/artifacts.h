// The immutable things sandboxes are made from: the root image, and the template booted from it. Made at most once
// each, however many creates ask at the same time (and however many daemons share HOME). One event loop; slow work goes
// to the pool.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "image/manifest.h"
#include "sandbox/async.h"
#include "store/paths.h"
#include "vm/accelerator.h"

namespace sbx::sandbox {

// Called on the event loop with one line for a person.
using Progress = std::function<void(const std::string& line)>;

struct TemplateSummary {
  std::string id;
  std::string image_id;
  std::string accelerator;
  std::int64_t cpus = 0;
  std::int64_t memory_mib = 0;
  std::string created_at;
  std::uint64_t stored_bytes = 0;
};

struct TemplateChoice {
  std::string id;
  std::string image_id;
  std::string accelerator;
  std::int64_t cpus = 1;
  std::int64_t memory_mib = 2048;
  bool operator==(const TemplateChoice&) const = default;
};

class Artifacts {
 public:
  // `programs` is the folder of sbx-keeper and sbx-guest.
  Artifacts(store::Paths paths, std::filesystem::path programs, boost::asio::any_io_executor executor,
            boost::asio::thread_pool& pool);

  // The image called `wanted` (an id or its beginning); "" is the image of this version's recipe, else the newest there
  // is; if there is none, it is built (minutes).
  Awaitable<Result<image::ImageManifest>> image(std::string wanted, Progress progress);
  Awaitable<Result<image::ImageManifest>> build_image(Progress progress);
  // The template for a sandbox of this size (0: the default of the accelerator), booted and saved if it is not there.
  Awaitable<Result<TemplateChoice>> template_for(std::string wanted_image, std::int64_t cpus, std::int64_t memory_mib,
                                                 Progress progress);
  // The same, if nothing has to be made or found out for it.
  std::optional<TemplateChoice> ready_template(const std::string& wanted_image, std::int64_t cpus,
                                               std::int64_t memory_mib) const;
  Awaitable<vm::AcceleratorVerdict> accelerator(std::string image_id);
  std::vector<TemplateSummary> templates() const;
  // The caller has made sure that no sandbox uses it.
  Result<void> remove_template(const std::string& id);
  std::filesystem::path keeper_program() const { return programs_ / "sbx-keeper"; }

 private:
  Awaitable<Result<void>> build_template(TemplateChoice choice, Progress progress);
  std::string everything_of(const TemplateChoice& choice) const;
  std::shared_ptr<AsyncMutex> lock_of(const std::string& what);

  store::Paths paths_;
  std::filesystem::path programs_;
  boost::asio::any_io_executor executor_;
  boost::asio::thread_pool& pool_;
  std::map<std::string, std::shared_ptr<AsyncMutex>> locks_;
  std::map<std::string, std::string> ids_;  // of templates, by everything that makes them
  std::shared_ptr<vm::AcceleratorVerdict> verdict_;
};

}  // namespace sbx::sandbox
