// How stored things look to a client. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "store/sandbox_store.h"

namespace sbx::api {

// One entry of GET /v1/sandboxes. Members that would be empty are left out.
nlohmann::json sandbox_view(const store::Sandbox& sandbox);

// Do the labels hold `filter`, "key" or "key=value"?
bool has_label(const store::Sandbox& sandbox, const std::string& filter);

}  // namespace sbx::api
