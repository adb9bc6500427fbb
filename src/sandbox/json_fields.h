// Reading members of JSON that somebody else wrote: a member that is missing or of another type is the default, never
// an exception.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"

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

// A list of texts; missing or null is an empty one. kInvalid for anything else, and for NUL bytes and endless lists.
inline Result<std::vector<std::string>> text_list(const nlohmann::json& object, const char* key) {
  std::vector<std::string> list;
  if (!object.is_object()) return list;
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return list;
  if (!found->is_array() || found->size() > 4096)
    return fail(ErrorCode::kInvalid, std::string(key) + " must be a list of texts");
  for (const auto& entry : *found) {
    if (!entry.is_string()) return fail(ErrorCode::kInvalid, std::string(key) + " must be a list of texts");
    list.push_back(entry.get<std::string>());
    if (list.back().find('\0') != std::string::npos)
      return fail(ErrorCode::kInvalid, std::string(key) + " must not hold NUL bytes");
  }
  return list;
}

// Dumps text that may not be UTF-8 without throwing.
inline std::string dump(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace sbx::sandbox
