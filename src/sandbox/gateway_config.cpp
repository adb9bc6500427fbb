#include "sandbox/gateway_config.h"

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "sandbox/json_fields.h"

namespace sbx::sandbox {
namespace {

using nlohmann::json;

std::string first_set(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (const char* value = std::getenv(name); value != nullptr && *value != '\0') return value;
  }
  return {};
}

}  // namespace

json upstream_proxy() {
  const auto url = first_set({"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"});
  if (url.empty()) return nullptr;
  return {{"url", url}, {"no_proxy", first_set({"NO_PROXY", "no_proxy"})}};
}

std::string gateway_config(const GatewayConfigParts& parts) {
  json document;
  document["sandbox_id"] = parts.sandbox_id;
  document["name"] = parts.name;
  document["policy"] = *parts.policy;
  document["upstream_proxy"] = upstream_proxy();
  std::string text = dump(document);
  const json certificate = parts.intermediate.certificate;
  const json root = parts.root;
  // PEM needs nothing quoted but its line ends.
  std::string key;
  key.reserve(parts.intermediate.key.size() * 2);
  for (const char c : parts.intermediate.key) {
    if (c == '\n') {
      key += "\\n";
    } else {
      key += c;
    }
  }
  text.reserve(text.size() + parts.credentials.size() + 16'384);
  text.pop_back();  // the closing brace
  text.append(R"(,"authority":{"certificate":)").append(certificate.dump());
  text.append(R"(,"key":")").append(key).append(R"(","root":)").append(root.dump());
  text.append(R"(},"credentials":)").append(parts.credentials.empty() ? "[]" : parts.credentials).append("}");
  ::explicit_bzero(key.data(), key.size());
  return text;
}

}  // namespace sbx::sandbox
