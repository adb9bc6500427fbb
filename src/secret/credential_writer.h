// Credential objects (docs/development/protocols.md, "Gateway socket") as JSON, written straight into locked memory:
// no JSON library ever holds a value. Pure.
#pragma once

#include "secret/login.h"
#include "secret/record.h"
#include "secret/services.h"

namespace sbx::secret {

class CredentialWriter {
 public:
  Result<void> add_service(const Service& service, const LockedString& value);
  Result<void> add_custom(const Record& record);
  Result<void> add_registry(const Record& record);
  // `generation`: of the sandbox's logins there (login_generations.h). `tokens`: of a login made before; nullptr
  // without.
  Result<void> add_oauth(const OAuthFlow& flow, std::uint64_t generation, const Tokens* tokens);
  // The array.
  Result<LockedString> finish();

 private:
  Result<void> begin(std::string_view object);
  LockedString text_;
};

// `text` as a JSON string with its quotes, appended to `into`.
Result<void> append_json_text(LockedString& into, std::string_view text);

}  // namespace sbx::secret
