// Secrets in HOME/secrets.enc (secret/vault_file.h), its key in CONFIG/keys/NAME.key: both 0600 and the user's own, the
// key made when the first secret is stored. One of the two alone is worth nothing to a thief (a backup of the state
// folder, say). A file or key that somebody else could have read, replaced or redirected (wrong owner, group bits, a
// symbolic link) is refused. Blocking; one thread at a time.
#pragma once

#include "secret/vault.h"

namespace sbx::secret {

class FileVault : public Vault {
 public:
  explicit FileVault(VaultFolders folders) : folders_(std::move(folders)) {}
  static std::filesystem::path file_of(const VaultFolders& folders) { return folders.home / "secrets.enc"; }

  Result<std::vector<Entry>> load() override;
  // Replaces the file in one step; with no entries left, removes it and its key.
  Result<void> save(const std::vector<Entry>& entries, const std::string& key) override;
  std::string kind() const override { return "file"; }
  std::string description() const override;

 private:
  std::filesystem::path key_path(const std::string& name) const;
  Result<LockedString> read_key(const std::string& name) const;
  Result<void> make_key_file();

  VaultFolders folders_;
  std::string key_name_;
  LockedString key_;
};

}  // namespace sbx::secret
