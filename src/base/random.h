// Identifiers and entropy from getrandom(2). Any thread.
#pragma once

#include <string>

namespace sbx {

std::string random_bytes(std::size_t count);
std::string random_hex(std::size_t digits);
std::string random_uuid();  // version 4
std::string base64(const std::string& bytes);

}  // namespace sbx
