// Requests that ask for something this version does not know: refused, since it would not be done.
#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace sbx::sandbox {

// kInvalid if a request has a member that is none of these: what it asks for would not be done.
inline Result<void> only_members(const nlohmann::json& object, std::initializer_list<std::string_view> known) {
  if (!object.is_object()) return {};
  for (const auto& [name, value] : object.items()) {
    bool found = false;
    for (const auto member : known) found = found || name == member;
    if (found) continue;
    std::string message = "\"" + name + "\" is not known here; known: ";
    for (const auto member : known) message += std::string(member == *known.begin() ? "" : ", ") + std::string(member);
    return fail(ErrorCode::kInvalid, std::move(message));
  }
  return {};
}

}  // namespace sbx::sandbox
