#include "secret/vault.h"

#include <cstdlib>

#include "base/file.h"
#include "secret/file_vault.h"
#include "secret/secret_service_vault.h"

namespace sbx::secret {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFile = "file";
constexpr std::string_view kService = "secret-service";

fs::path choice_of(const VaultFolders& folders) { return folders.home / "secrets.store"; }

// What this instance has been using; "" for a new one.
Result<std::string> chosen(const VaultFolders& folders) {
  const fs::path path = choice_of(folders);
  if (!fs::exists(path)) return fs::exists(FileVault::file_of(folders)) ? std::string(kFile) : std::string();
  std::string word = SBX_TRY(read_file(path, 64), "reading which store holds the secrets");
  while (word.ends_with('\n')) word.pop_back();
  if (word != kFile && word != kService)
    return fail(ErrorCode::kInvalid, path.native() + " is damaged: it must say \"file\" or \"secret-service\"");
  return word;
}

}  // namespace

VaultFolders vault_folders(const fs::path& home) {
  if (const char* config = std::getenv("XDG_CONFIG_HOME"); config != nullptr && *config == '/')
    return {home, fs::path(config) / "sbx"};
  if (const char* user = std::getenv("HOME"); user != nullptr && *user == '/')
    return {home, fs::path(user) / ".config" / "sbx"};
  return {home, home / "config"};
}

Result<std::unique_ptr<Vault>> open_vault(const VaultFolders& folders, const std::string& preferred) {
  std::string kind = SBX_TRY(chosen(folders), "opening the secrets' store");
  if (kind.empty()) kind = preferred;
  if (kind.empty()) kind = SecretServiceVault::available() ? kService : kFile;
  if (kind != kFile && kind != kService)
    return fail(ErrorCode::kInvalid, "SBX_SECRET_STORE must be \"file\" or \"secret-service\", not \"" + kind + "\"");
  if (kind == kFile) return std::make_unique<FileVault>(folders);
  return std::make_unique<SecretServiceVault>(folders.home.native());
}

bool vault_in_use(const VaultFolders& folders) {
  std::error_code error;
  return fs::exists(choice_of(folders), error) || fs::exists(FileVault::file_of(folders), error);
}

Result<void> remember_vault(const VaultFolders& folders, const Vault& vault) {
  if (fs::exists(choice_of(folders))) return {};
  return write_file_atomically(choice_of(folders), vault.kind() + "\n");
}

Result<void> forget_vault(const VaultFolders& folders) {
  std::error_code error;
  fs::remove(choice_of(folders), error);
  return error ? fail(ErrorCode::kInternal, "removing " + choice_of(folders).native() + ": " + error.message())
               : Result<void>();
}

}  // namespace sbx::secret
