// The policies to begin with: allow-all (one rule, **), balanced (data/policy/balanced.yaml, built in) and deny-all
// (no rule). Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace sbx::policy {

struct PresetRule {
  std::string name;  // "default-os-packages"
  std::vector<std::string> resources;
};

inline constexpr std::string_view kDefaultPreset = "balanced";

// kInvalid names the presets there are.
Result<std::vector<PresetRule>> preset_rules(std::string_view preset);

}  // namespace sbx::policy
