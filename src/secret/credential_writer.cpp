#include "secret/credential_writer.h"

#include <nlohmann/json.hpp>

namespace sbx::secret {
namespace {

using nlohmann::json;

json texts(std::span<const std::string_view> list) {
  json array = json::array();
  for (const auto& text : list) array.push_back(text);
  return array;
}

}  // namespace

Result<void> append_json_text(LockedString& into, std::string_view text) {
  // Escapes may make it longer: six bytes for one.
  SBX_CHECK(into.reserve(into.size() + 6 * text.size() + 2), "writing credentials");
  SBX_CHECK(into.append("\""), "writing credentials");
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < ' ' || byte == 0x7f) {
      const char escape[6] = {'\\', 'u', '0', '0', "0123456789abcdef"[byte >> 4U], "0123456789abcdef"[byte & 15U]};
      SBX_CHECK(into.append({escape, sizeof escape}), "writing credentials");
      continue;
    }
    if (c == '"' || c == '\\') SBX_CHECK(into.append("\\"), "writing credentials");
    SBX_CHECK(into.append({&c, 1}), "writing credentials");
  }
  return into.append("\"");
}

// `object` is an object without secrets; its closing brace is left for the caller to write.
Result<void> CredentialWriter::begin(std::string_view object) {
  SBX_CHECK(text_.append(text_.empty() ? "[" : ","), "writing credentials");
  return text_.append(object.substr(0, object.size() - 1));
}

Result<void> CredentialWriter::add_service(const Service& service, const LockedString& value) {
  for (const auto& injection : service.injections) {
    json object = {{"kind", "service"}, {"service", service.name}, {"domains", texts(injection.domains)}};
    if (injection.basic_user.empty()) {
      object["header"] = injection.header;
      object["format"] = injection.format;
    } else {
      object["basic_user"] = injection.basic_user;
    }
    SBX_CHECK(begin(object.dump()), "writing a credential");
    SBX_CHECK(text_.append(",\"value\":"), "writing a credential");
    SBX_CHECK(append_json_text(text_, value.reveal()), "writing a credential");
    SBX_CHECK(text_.append("}"), "writing a credential");
  }
  return {};
}

Result<void> CredentialWriter::add_custom(const Record& record) {
  const json object = {{"kind", "custom"},
                       {"domains", record.targets},
                       {"placeholder", record.placeholder},
                       {"in_body", record.in_body}};
  SBX_CHECK(begin(object.dump()), "writing a credential");
  SBX_CHECK(text_.append(",\"value\":"), "writing a credential");
  SBX_CHECK(append_json_text(text_, record.value.reveal()), "writing a credential");
  return text_.append("}");
}

Result<void> CredentialWriter::add_registry(const Record& record) {
  const std::string& endpoint = record.auth_endpoint;
  const std::string host = endpoint.empty() ? record.name : endpoint.substr(8, endpoint.find('/', 8) - 8);
  const json object = {{"kind", "service"},
                       {"service", "registry:" + record.name},
                       {"domains", {host}},
                       {"basic_user", record.username},
                       {"keep_bearer", true}};
  SBX_CHECK(begin(object.dump()), "writing a credential");
  SBX_CHECK(text_.append(",\"value\":"), "writing a credential");
  SBX_CHECK(append_json_text(text_, record.value.reveal()), "writing a credential");
  return text_.append("}");
}

Result<void> CredentialWriter::add_oauth(const OAuthFlow& flow, std::uint64_t generation, const Tokens* tokens) {
  json object = {{"kind", "oauth"},
                 {"service", flow.service},
                 {"domains", texts(flow.domains)},
                 {"access_sentinel", flow.access_sentinel},
                 {"refresh_sentinel", flow.refresh_sentinel},
                 {"generation", generation},
                 {"token_endpoints", json::array()}};
  for (const auto& endpoint : flow.endpoints)
    object["token_endpoints"].push_back({{"host", endpoint.host}, {"path", endpoint.path}});
  SBX_CHECK(begin(object.dump()), "writing a credential");
  if (tokens != nullptr) {
    SBX_CHECK(text_.append(",\"access\":"), "writing a credential");
    SBX_CHECK(append_json_text(text_, tokens->access.reveal()), "writing a credential");
    SBX_CHECK(text_.append(",\"refresh\":"), "writing a credential");
    SBX_CHECK(append_json_text(text_, tokens->refresh.reveal()), "writing a credential");
  }
  return text_.append("}");
}

Result<LockedString> CredentialWriter::finish() {
  SBX_CHECK(text_.append(text_.empty() ? "[]" : "]"), "writing credentials");
  return std::move(text_);
}

}  // namespace sbx::secret
