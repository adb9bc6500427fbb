// Secrets in the desktop's keyring: freedesktop.org's Secret Service over D-Bus (GNOME Keyring, KWallet, KeePassXC), by
// libsecret. One item per secret in the default collection, with the attributes application=sbx, instance=HOME and
// key=...; its secret is the record as record.h encodes it. Values cross the bus encrypted (a session of libsecret's).
// Blocking: the keyring may ask its user to unlock it; given up after two minutes.
#pragma once

#include "secret/vault.h"

namespace sbx::secret {

class SecretServiceVault : public Vault {
 public:
  explicit SecretServiceVault(std::string instance) : instance_(std::move(instance)) {}
  // Does a Secret Service with a default collection answer on this session's bus? Starts none, asks nobody.
  static bool available();

  Result<std::vector<Entry>> load() override;
  Result<void> save(const std::vector<Entry>& entries, const std::string& key) override;
  std::string kind() const override { return "secret-service"; }
  std::string description() const override { return "Secret Service (the desktop's keyring)"; }

 private:
  std::string instance_;
};

}  // namespace sbx::secret
