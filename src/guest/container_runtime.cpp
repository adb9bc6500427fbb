#include "guest/container_runtime.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "guest/authorities.h"
#include "guest/exec_plan.h"

namespace sbx::guest {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::array kNames = {"crun", "runc"};
constexpr std::string_view kRealPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
constexpr const char* kBundleInside = "/dev/sbx/ca-certificates.crt";
constexpr const char* kExtraInside = "/dev/sbx/extra-ca.pem";
constexpr std::size_t kLargest = 16U << 20U;
// Where distributions keep theirs.
constexpr std::array kImageBundles = {"etc/ssl/certs/ca-certificates.crt", "etc/pki/tls/certs/ca-bundle.crt",
                                      "etc/ssl/ca-bundle.pem", "etc/ssl/cert.pem"};
// As sbxd sets them for the guest (sandbox/guest_environment.cpp).
constexpr std::array kBundleVariables = {"SSL_CERT_FILE",  "REQUESTS_CA_BUNDLE",  "PIP_CERT",
                                         "GIT_SSL_CAINFO", "CURL_CA_BUNDLE",      "CARGO_HTTP_CAINFO",
                                         "AWS_CA_BUNDLE",  "CODEX_CA_CERTIFICATE"};
constexpr std::array kExtraVariables = {"NODE_EXTRA_CA_CERTS", "DENO_CERT"};

std::string_view base_name(std::string_view path) { return path.substr(path.rfind('/') + 1); }

Result<json> parsed(std::string_view text) {
  auto document = json::parse(text, nullptr, false);
  if (!document.is_object()) return fail(ErrorCode::kInvalid, "not a JSON object");
  return document;
}

void set_variables(json& process) {
  if (!process.is_object()) return;
  auto& environment = process["env"];
  if (environment.is_null()) environment = json::array();
  if (!environment.is_array()) return;
  const auto add = [&](const char* name, const char* value) {
    const std::string prefix = std::string(name) + "=";
    const bool there = std::ranges::any_of(environment, [&](const json& entry) {
      return entry.is_string() && entry.get_ref<const std::string&>().starts_with(prefix);
    });
    if (!there) environment.push_back(prefix + value);
  };
  for (const char* name : kBundleVariables) add(name, kBundleInside);
  for (const char* name : kExtraVariables) add(name, kExtraInside);
}

json read_only_file(const std::string& source, const char* destination) {
  return {{"destination", destination}, {"type", "bind"}, {"source", source}, {"options", {"bind", "ro"}}};
}

// The authorities of the container's image; empty if it has none. Links in it lead nowhere but into it.
std::string bundle_of_image(const fs::path& rootfs) {
  const UniqueFd root(::open(rootfs.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root.valid()) return {};
  for (const char* name : kImageBundles) {
    open_how how{};
    how.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;
    how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
    const UniqueFd file(static_cast<int>(::syscall(SYS_openat2, root.get(), name, &how, sizeof how)));
    struct stat status {};
    if (!file.valid() || ::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode)) continue;
    if (auto text = read_file("/proc/self/fd/" + std::to_string(file.get()), kLargest); text && !text->empty()) {
      return *text;
    }
  }
  return {};
}

Result<void> replace_file(const fs::path& path, std::string_view text, unsigned mode) {
  const fs::path temporary = path.string() + ".sbx";
  {
    const auto file = SBX_TRY(open_file(temporary, O_WRONLY | O_CREAT | O_TRUNC, mode), "writing " + path.string());
    SBX_CHECK(write_all(file.get(), text), "writing " + path.string());
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) return fail_errno("replacing " + path.string(), errno);
  return {};
}

Result<void> prepare_start(const fs::path& folder) {
  const auto config_path = folder / "config.json";
  const auto config = SBX_TRY(read_file(config_path, kLargest), "reading the container's configuration");
  const auto document = SBX_TRY(parsed(config), "reading the container's configuration");
  const auto root = document.value("root", json::object());
  const fs::path rootfs = folder / (root.is_object() ? root.value("path", "rootfs") : "rootfs");
  const auto extra = SBX_TRY(read_file(kExtraAuthorities, kLargest), "reading the authorities");
  std::string bundle = kAuthorityBundle;  // has them already
  if (const auto own = bundle_of_image(rootfs); !own.empty()) {
    bundle = (folder / "sbx-ca-certificates.crt").string();  // goes with the container
    SBX_CHECK(replace_file(bundle, own + "\n" + extra, 0644), "merging authorities");
  }
  const auto changed = SBX_TRY(config_with_authorities(config, bundle), "preparing the container");
  return replace_file(config_path, changed, 0644);
}

Result<void> prepare_exec(const fs::path& file) {
  const auto process = SBX_TRY(read_file(file, kLargest), "reading the command");
  return replace_file(file, SBX_TRY(process_with_authorities(process), "preparing the command"), 0644);
}

}  // namespace

RuntimeCall parse_runtime_call(const std::vector<std::string>& arguments) {
  RuntimeCall call;
  std::string_view wanted;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view word = arguments[i];
    if (call.kind == RuntimeCall::Kind::kOther) {
      if (word == "create" || word == "run") call = {RuntimeCall::Kind::kStart, "."};
      if (word == "exec") call.kind = RuntimeCall::Kind::kExec;
      wanted = call.kind == RuntimeCall::Kind::kStart ? "bundle" : "process";
      continue;
    }
    const bool is_long = word.starts_with("--") && word.substr(2).starts_with(wanted);
    const bool is_short = word.size() == 2 && word[0] == '-' && word[1] == wanted[0];
    if (is_long && word.size() > 2 + wanted.size() && word[2 + wanted.size()] == '=') {
      call.path = word.substr(3 + wanted.size());
    } else if ((is_short || (is_long && word.size() == 2 + wanted.size())) && i + 1 < arguments.size()) {
      call.path = arguments[++i];
    }
  }
  return call;
}

Result<std::string> config_with_authorities(std::string_view config, const std::string& bundle) {
  auto document = SBX_TRY(parsed(config), "reading config.json");
  auto& mounts = document["mounts"];
  if (mounts.is_null()) mounts = json::array();
  if (!mounts.is_array()) return fail(ErrorCode::kInvalid, "mounts is not a list");
  mounts.push_back(read_only_file(bundle, kBundleInside));
  mounts.push_back(read_only_file(kExtraAuthorities, kExtraInside));
  set_variables(document["process"]);
  return document.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<std::string> process_with_authorities(std::string_view process) {
  auto document = SBX_TRY(parsed(process), "reading process.json");
  set_variables(document);
  return document.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<void> install_runtime_links() {
  std::error_code error;
  fs::create_directories(kRuntimeFolder, error);
  for (const char* name : kNames) {
    const auto link = fs::path(kRuntimeFolder) / name;
    ::unlink(link.c_str());
    if (::symlink("/proc/1/exe", link.c_str()) != 0) return fail_errno("linking " + link.string(), errno);
  }
  return {};
}

bool is_container_runtime(std::string_view argv0) {
  return std::ranges::find(kNames, base_name(argv0)) != kNames.end();
}

int run_container_runtime(char** argv) {
  std::vector<std::string> arguments;
  for (char** word = argv + 1; *word != nullptr; ++word) arguments.emplace_back(*word);
  const auto call = parse_runtime_call(arguments);
  if (call.kind != RuntimeCall::Kind::kOther && ::access(kExtraAuthorities, R_OK) == 0) {
    const auto prepared =
        call.kind == RuntimeCall::Kind::kStart ? prepare_start(fs::absolute(call.path)) : prepare_exec(call.path);
    // Not on stderr, which is the container's or is parsed by who called.
    if (!prepared) {
      const auto log = open_file("/run/sbx/container-runtime.log", O_WRONLY | O_CREAT | O_APPEND, 0644);
      if (log) (void)write_all(log->get(), prepared.error().describe() + "\n");
    }
  }
  const std::string name(base_name(argv[0]));
  for (const auto& candidate : program_candidates(name, kRealPath)) ::execv(candidate.c_str(), argv);
  std::fprintf(stderr, "%s: not found in %s\n", name.c_str(), std::string(kRealPath).c_str());
  return 127;
}

}  // namespace sbx::guest
