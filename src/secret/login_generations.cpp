#include "secret/login_generations.h"

#include <nlohmann/json.hpp>

#include "base/file.h"

namespace sbx::secret {

Result<void> LoginGenerations::load() {
  if (loaded_) return {};
  Numbers numbers;
  if (std::filesystem::exists(file_)) {
    const auto text = SBX_TRY(read_file(file_), "reading which logins were removed");
    try {
      numbers = nlohmann::json::parse(text).get<Numbers>();
    } catch (const nlohmann::json::exception&) {
      return fail(ErrorCode::kInvalid, file_.native() + " is damaged");
    }
  }
  numbers_ = std::move(numbers);
  loaded_ = true;
  return {};
}

Result<void> LoginGenerations::save(Numbers numbers) {
  SBX_CHECK(write_file_atomically(file_, nlohmann::json(numbers).dump()), "noting which logins were removed");
  numbers_ = std::move(numbers);
  return {};
}

Result<std::uint64_t> LoginGenerations::of(const std::string& sandbox_id, const std::string& service) {
  SBX_CHECK(load(), "looking up a login");
  const auto sandbox = numbers_.find(sandbox_id);
  if (sandbox == numbers_.end()) return 0U;
  const auto number = sandbox->second.find(service);
  return number == sandbox->second.end() ? 0U : number->second;
}

Result<void> LoginGenerations::advance(const std::string& sandbox_id, const std::string& service) {
  SBX_CHECK(load(), "removing a login");
  auto numbers = numbers_;
  ++numbers[sandbox_id][service];
  return save(std::move(numbers));
}

Result<void> LoginGenerations::forget_sandbox(const std::string& sandbox_id) {
  SBX_CHECK(load(), "forgetting the logins of a sandbox");
  if (!numbers_.contains(sandbox_id)) return {};
  auto numbers = numbers_;
  numbers.erase(sandbox_id);
  if (numbers.empty()) return forget_all();
  return save(std::move(numbers));
}

Result<void> LoginGenerations::forget_all() {
  std::error_code error;
  std::filesystem::remove(file_, error);
  if (error) return fail(ErrorCode::kInternal, "removing " + file_.native() + ": " + error.message());
  numbers_.clear();
  loaded_ = true;
  return {};
}

}  // namespace sbx::secret
