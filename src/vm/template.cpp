#include "vm/template.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/command.h"
#include "base/file.h"

namespace sbx::vm {
namespace {

using nlohmann::json;

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) { EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr); }
  void add(std::string_view bytes) { EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()); }
  std::string hex() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned size = 0;
    EVP_DigestFinal_ex(context_.get(), digest.data(), &size);
    std::string out;
    for (unsigned i = 0; i < size; ++i) {
      constexpr char kDigits[] = "0123456789abcdef";
      out.push_back(kDigits[digest[i] >> 4U]);
      out.push_back(kDigits[digest[i] & 15U]);
    }
    return out;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

json key_to_json(const TemplateKey& key) {
  json out = json::object();
  out["kernel"] = key.kernel;
  out["root_image"] = key.root_image;
  out["guest_binary"] = key.guest_binary;
  out["command_line"] = key.command_line;
  out["qemu_version"] = key.qemu_version;
  out["warm_up"] = key.warm_up;
  out["cpu_model"] = key.cpu_model;
  out["accelerator"] = to_string(key.accelerator);
  out["cpus"] = key.cpus;
  out["memory_mib"] = key.memory_mib;
  return out;
}

Result<TemplateManifest> manifest_from(const json& document) {
  try {
    const json& k = document.at("key");
    TemplateManifest out;
    out.key.kernel = k.at("kernel").get<std::string>();
    out.key.root_image = k.at("root_image").get<std::string>();
    out.key.guest_binary = k.at("guest_binary").get<std::string>();
    out.key.command_line = k.at("command_line").get<std::string>();
    out.key.qemu_version = k.at("qemu_version").get<std::string>();
    out.key.warm_up = k.at("warm_up").get<std::string>();
    out.key.cpu_model = k.at("cpu_model").get<std::string>();
    out.key.accelerator = SBX_TRY(accelerator_from(k.at("accelerator").get<std::string>()), "manifest");
    out.key.cpus = k.at("cpus").get<int>();
    out.key.memory_mib = k.at("memory_mib").get<int>();
    out.id = document.at("id").get<std::string>();
    out.created_at = document.value("created_at", "");
    out.state_bytes = document.value("state_bytes", std::uint64_t{0});
    out.boot_ms = document.value("boot_ms", std::int64_t{0});
    return out;
  } catch (const json::exception& error) {
    return fail(ErrorCode::kInvalid, std::string("the manifest is damaged: ") + error.what());
  }
}

// Calls `visit(offset, bytes, is_zero)` for each run of pages that are all zero, or all not, where the file has data.
template <typename Visit>
Result<void> for_each_run(int fd, Visit visit) {
  std::vector<char> chunk(1U << 20U);
  constexpr std::size_t kPage = 4096;
  static const std::array<char, kPage> kZero{};
  off_t begin = 0;
  while ((begin = ::lseek(fd, begin, SEEK_DATA)) >= 0) {
    const ssize_t n = ::pread(fd, chunk.data(), chunk.size(), begin);
    if (n <= 0) return fail_errno("reading the RAM file", errno);
    const auto pages = static_cast<std::size_t>(n) / kPage;  // its size is a multiple of a page's
    const auto is_zero = [&](std::size_t page) {
      return std::memcmp(chunk.data() + page * kPage, kZero.data(), kPage) == 0;
    };
    for (std::size_t page = 0; page < pages;) {
      const bool zero = is_zero(page);
      std::size_t end = page + 1;
      while (end < pages && is_zero(end) == zero) ++end;
      const std::string_view bytes(chunk.data() + page * kPage, (end - page) * kPage);
      SBX_CHECK(visit(begin + static_cast<off_t>(page * kPage), bytes, zero), "walking through the RAM file");
      page = end;
    }
    begin += n;
  }
  if (errno != ENXIO) return fail_errno("looking for data in the RAM file", errno);
  return {};
}

// A zero page in the file becomes a hole: init_on_free=1 has written every page once, and holes cost no disk.
Result<void> dig_holes(int fd) {
  return for_each_run(fd, [fd](off_t at, std::string_view bytes, bool zero) -> Result<void> {
    if (!zero) return {};
    if (::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, static_cast<off_t>(bytes.size())) == 0)
      return {};
    if (errno == EOPNOTSUPP) return {};  // it only costs space
    return fail_errno("digging a hole into the RAM file", errno);
  });
}

Result<void> seal_file(const std::filesystem::path& path, bool holes) {
  const auto fd = SBX_TRY(open_file(path, O_RDWR), "sealing " + path.string());
  if (holes) SBX_CHECK(dig_holes(fd.get()), path.string());
  if (::fchown(fd.get(), ::geteuid(), ::getegid()) != 0) return fail_errno("taking over " + path.string(), errno);
  if (::fchmod(fd.get(), 0444) != 0) return fail_errno("sealing " + path.string(), errno);
  if (::fsync(fd.get()) != 0) return fail_errno("syncing " + path.string(), errno);
  return {};
}

}  // namespace

Result<void> copy_without_zeros(int from, int to) {
  struct stat status {};
  if (::fstat(from, &status) != 0) return fail_errno("stat of the RAM", errno);
  if (::ftruncate(to, status.st_size) != 0) return fail_errno("sizing the RAM file", errno);
  return for_each_run(from, [to](off_t at, std::string_view bytes, bool zero) -> Result<void> {
    if (zero) return {};
    while (!bytes.empty()) {
      const ssize_t n = ::pwrite(to, bytes.data(), bytes.size(), at);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return fail_errno("writing the RAM file", errno);
      bytes.remove_prefix(static_cast<std::size_t>(n));
      at += n;
    }
    return {};
  });
}

std::string template_id(const TemplateKey& key) { return sha256(key_to_json(key).dump()).substr(0, 32); }

Result<TemplateManifest> read_manifest(const TemplatePaths& paths) {
  const auto text = SBX_TRY(read_file(paths.manifest(), 1U << 20U), "reading a template's manifest");
  const json document = json::parse(text, nullptr, false);
  if (document.is_discarded()) return fail(ErrorCode::kInvalid, paths.manifest().string() + " is not JSON");
  auto manifest = SBX_TRY(manifest_from(document), paths.manifest().string());
  if (manifest.id != template_id(manifest.key)) {
    return fail(ErrorCode::kInvalid, paths.manifest().string() + " does not belong to what it describes");
  }
  return manifest;
}

Result<void> seal_template(const TemplatePaths& paths, const TemplateManifest& manifest) {
  SBX_CHECK(seal_file(paths.ram(), true), "sealing the template");
  SBX_CHECK(seal_file(paths.state(), false), "sealing the template");
  SBX_CHECK(seal_file(paths.disk(), false), "sealing the template");
  json document = json::object();
  document["id"] = template_id(manifest.key);
  document["key"] = key_to_json(manifest.key);
  document["created_at"] = manifest.created_at;
  document["state_bytes"] = manifest.state_bytes;
  document["boot_ms"] = manifest.boot_ms;
  return write_file_atomically(paths.manifest(), document.dump(2) + "\n", 0444);
}

Result<QemuVersion> parse_qemu_version(std::string_view text) {
  QemuVersion out;
  out.text = std::string(text.substr(0, text.find('\n')));
  constexpr std::string_view kBefore = "version ";
  const std::size_t at = out.text.find(kBefore);
  if (at != std::string::npos) out.major = std::atoi(out.text.c_str() + at + kBefore.size());
  if (out.major <= 0) return fail(ErrorCode::kInvalid, "cannot tell QEMU's version from '" + out.text + "'");
  return out;
}

Result<QemuVersion> qemu_version(const std::string& program) {
  const auto text = SBX_TRY(Command({program, "-version"}).output(), "asking QEMU for its version");
  return parse_qemu_version(text);
}

Result<std::string> host_cpu_model() {
  const auto text = SBX_TRY(read_file("/proc/cpuinfo"), "reading the CPU's model");
  std::string out;
  for (const std::string_view name : {"vendor_id", "cpu family", "model\t", "model name", "stepping", "microcode"}) {
    const std::size_t at = text.find(name);
    if (at == std::string::npos) continue;
    const std::size_t colon = text.find(':', at);
    if (colon == std::string::npos) continue;
    out += text.substr(colon + 1, text.find('\n', colon) - colon - 1) + ";";
  }
  return out;
}

Result<std::string> file_sha256(const std::filesystem::path& path) {
  const auto fd = SBX_TRY(open_file(path, O_RDONLY), "hashing");
  Sha256 hash;
  std::vector<char> chunk(1U << 20U);
  while (true) {
    const ssize_t n = ::read(fd.get(), chunk.data(), chunk.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno("reading " + path.string(), errno);
    if (n == 0) return hash.hex();
    hash.add({chunk.data(), static_cast<std::size_t>(n)});
  }
}

std::string sha256(std::string_view bytes) {
  Sha256 hash;
  hash.add(bytes);
  return hash.hex();
}

}  // namespace sbx::vm
