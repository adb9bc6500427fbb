// How a secret is shown: enough to tell one from another, never enough to use it. Pure.
#pragma once

#include <string>

#include "base/locked_string.h"

namespace sbx::secret {

// Up to 6 bytes: all hidden. 7 to 19: the first 6 shown. From 20: the first 6 and the last 4; at most 25 characters,
// the middle then abbreviated to "...".
std::string mask(const LockedString& value);
// A registry's password: hidden altogether (at most 8 stars) under 12 bytes, else as mask().
std::string mask_password(const LockedString& value);

}  // namespace sbx::secret
