// Reading members of JSON that somebody else wrote: a member that is missing or of another type is the default, never
// an exception.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

namespace sbx::sandbox {

inline std::string text_field(const nlohmann::json& object, const char* key, std::string otherwise = "") {
  if (!object.is_object()) return otherwise;
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : otherwise;
}

inline std::int64_t int_field(const nlohmann::json& object, const char* key, std::int64_t otherwise = 0) {
  if (!object.is_object()) return otherwise;
  const auto found = object.find(key);
  return found != object.end() && found->is_number_integer() ? found->get<std::int64_t>() : otherwise;
}

inline bool bool_field(const nlohmann::json& object, const char* key, bool otherwise = false) {
  if (!object.is_object()) return otherwise;
  const auto found = object.find(key);
  return found != object.end() && found->is_boolean() ? found->get<bool>() : otherwise;
}

// Dumps text that may not be UTF-8 without throwing.
inline std::string dump(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace sbx::sandbox
