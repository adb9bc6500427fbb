// Where secrets are kept when the daemon is not running: the desktop's Secret Service where there is one, else a file
// encrypted with a key of its own. Blocking (a keyring may ask its user); one thread at a time.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/locked_string.h"

namespace sbx::secret {

struct Entry {
  std::string key;
  LockedString bytes;
};

class Vault {
 public:
  virtual ~Vault() = default;
  // All that is in it. An error leaves what is stored as it is.
  virtual Result<std::vector<Entry>> load() = 0;
  // Stores `entries`, of which only the one called `key` differs from what is stored (it may be new, or gone).
  virtual Result<void> save(const std::vector<Entry>& entries, const std::string& key) = 0;
  virtual std::string kind() const = 0;         // "file" or "secret-service"
  virtual std::string description() const = 0;  // for people: which file, which service
};

struct VaultFolders {
  std::filesystem::path home;    // of the instance: the encrypted file
  std::filesystem::path config;  // of the user ($XDG_CONFIG_HOME/sbx): the keys
};

// $XDG_CONFIG_HOME/sbx or ~/.config/sbx; where neither variable is set, HOME/config.
VaultFolders vault_folders(const std::filesystem::path& home);

// The vault of this instance: the one it has been using, for the life of its secrets; for a new instance the one that
// `preferred` says ("file", "secret-service"), or where that is empty a Secret Service if one answers, else a file.
// kUnavailable when the Secret Service that holds the secrets does not answer, saying so.
Result<std::unique_ptr<Vault>> open_vault(const VaultFolders& folders, const std::string& preferred);

// Has a choice been noted: are there secrets?
bool vault_in_use(const VaultFolders& folders);

// Notes the choice, before the first secret is stored; forgets it, after the last one was removed.
Result<void> remember_vault(const VaultFolders& folders, const Vault& vault);
Result<void> forget_vault(const VaultFolders& folders);

}  // namespace sbx::secret
