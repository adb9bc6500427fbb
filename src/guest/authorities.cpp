#include "guest/authorities.h"

#include <fcntl.h>

#include "base/file.h"
#include "guest/overwrite.h"

namespace sbx::guest {
namespace {

namespace fs = std::filesystem;

// Found by update-ca-certificates(8): one certificate in each file.
constexpr const char* kLocalFolder = "usr/local/share/ca-certificates";

Result<void> append(const fs::path& path, std::string_view text) {
  const auto file = SBX_TRY(open_file(path, O_WRONLY | O_CREAT | O_APPEND, 0644), "writing " + path.string());
  return write_all(file.get(), text);
}

Result<void> put(const fs::path& path, std::string_view text) {
  std::error_code ignored;
  fs::create_directories(path.parent_path(), ignored);
  return overwrite(path, text);
}

fs::path below(const fs::path& root, const char* absolute) { return root / fs::path(absolute).relative_path(); }

}  // namespace

Result<void> trust_authorities(const std::vector<std::string>& authorities, const fs::path& root) {
  if (authorities.empty()) return {};
  std::string all;
  for (const auto& authority : authorities) all += authority;
  const auto extra = below(root, kExtraAuthorities);
  if (const auto known = read_file(extra, 4U << 20U); known && *known == all) return {};
  for (std::size_t i = 0; i < authorities.size(); ++i) {
    const auto file = root / kLocalFolder / ("sbx-" + std::to_string(i) + ".crt");
    SBX_CHECK(put(file, authorities[i]), "trusting authorities");
  }
  SBX_CHECK(append(below(root, kAuthorityBundle), "\n" + all), "trusting authorities");
  return put(extra, all);
}

}  // namespace sbx::guest
