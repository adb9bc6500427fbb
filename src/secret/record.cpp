#include "secret/record.h"

#include <initializer_list>
#include <nlohmann/json.hpp>

#include "wire/length_prefix.h"

namespace sbx::secret {
namespace {

using nlohmann::json;

constexpr std::size_t kLargestHead = 64U << 10U;

std::unexpected<Error> damaged(const std::string& what) {
  return fail(ErrorCode::kInvalid, "a stored secret is damaged: " + what);
}

bool read_text(const json& head, const char* key, std::string& into) {
  const auto found = head.find(key);
  if (found == head.end()) return true;
  if (!found->is_string()) return false;
  into = found->get<std::string>();
  return true;
}

bool read_number(const json& head, const char* key, std::int64_t& into) {
  const auto found = head.find(key);
  if (found == head.end()) return true;
  if (!found->is_number_integer()) return false;
  into = found->get<std::int64_t>();
  return into >= 0;
}

bool read_lists(const json& head, Record& record) {
  if (const auto targets = head.find("targets"); targets != head.end()) {
    if (!targets->is_array()) return false;
    for (const auto& target : *targets) {
      if (!target.is_string()) return false;
      record.targets.push_back(target.get<std::string>());
    }
  }
  if (const auto environment = head.find("environment"); environment != head.end()) {
    if (!environment->is_object()) return false;
    for (const auto& [key, value] : environment->items()) {
      if (!value.is_string()) return false;
      record.environment[key] = value.get<std::string>();
    }
  }
  return true;
}

template <typename Word>
bool read_word(const json& head, const char* key, std::initializer_list<Word> words, Word& into) {
  std::string text;
  if (!read_text(head, key, text)) return false;
  for (const Word word : words) {
    if (text != to_string(word)) continue;
    into = word;
    return true;
  }
  return false;
}

}  // namespace

std::string_view to_string(Kind kind) {
  switch (kind) {
    case Kind::kRegistry:
      return "registry";
    case Kind::kCustom:
      return "custom";
    case Kind::kLogin:
      return "oauth";
    case Kind::kService:
      break;
  }
  return "service";
}

std::string_view to_string(Source source) {
  switch (source) {
    case Source::kReference:
      return "ref";
    case Source::kCommand:
      return "command";
    case Source::kValue:
      break;
  }
  return "value";
}

std::string Record::key() const { return std::string(to_string(kind)) + "/" + scope + "/" + name; }

Result<LockedString> encode(const Record& record) {
  json head = {{"kind", to_string(record.kind)},
               {"scope", record.scope},
               {"name", record.name},
               {"source", to_string(record.source)},
               {"created_at", record.created_at}};
  if (record.source != Source::kValue) {
    head["reference"] = record.reference;
    head["environment"] = record.environment;
    head["refresh_s"] = record.refresh_s;
  }
  if (record.kind == Kind::kRegistry) {
    head["username"] = record.username;
    head["auth_endpoint"] = record.auth_endpoint;
  }
  if (record.kind == Kind::kCustom) {
    head["targets"] = record.targets;
    head["placeholder"] = record.placeholder;
    head["in_body"] = record.in_body;
  }
  const std::string text = head.dump(-1, ' ', false, json::error_handler_t::replace);
  LockedString bytes = SBX_TRY(LockedString::copy_of(wire::length_prefixed(text)), "storing a secret");
  if (record.source == Source::kValue) SBX_CHECK(bytes.append(record.value.reveal()), "storing a secret");
  return bytes;
}

Result<Head> split_head(std::string_view bytes) {
  if (bytes.size() < 4) return fail(ErrorCode::kInvalid, "the length of the head is missing");
  std::size_t length = 0;
  for (std::size_t i = 0; i < 4; ++i) length = length << 8U | static_cast<unsigned char>(bytes[i]);
  if (length > kLargestHead || length > bytes.size() - 4)
    return fail(ErrorCode::kInvalid, "the head is longer than what was sent");
  return Head{bytes.substr(4, length), bytes.substr(4 + length)};
}

Result<Record> decode(std::string_view bytes) {
  const auto parts = split_head(bytes);
  if (!parts) return damaged(parts.error().message);
  const json head = json::parse(parts->json, nullptr, false);
  if (!head.is_object()) return damaged("its head is not JSON");
  Record record;
  record.scope.clear();
  if (!read_word(head, "kind", {Kind::kService, Kind::kRegistry, Kind::kCustom, Kind::kLogin}, record.kind) ||
      !read_word(head, "source", {Source::kValue, Source::kReference, Source::kCommand}, record.source))
    return damaged("its kind or source is not known");
  for (auto [key, into] :
       {std::pair{"scope", &record.scope}, std::pair{"name", &record.name}, std::pair{"reference", &record.reference},
        std::pair{"username", &record.username}, std::pair{"auth_endpoint", &record.auth_endpoint},
        std::pair{"placeholder", &record.placeholder}}) {
    if (!read_text(head, key, *into)) return damaged(std::string(key) + " is not a text");
  }
  if (!read_number(head, "created_at", record.created_at) || !read_number(head, "refresh_s", record.refresh_s))
    return damaged("a number is not one");
  if (!read_lists(head, record)) return damaged("a list is not one");
  if (const auto in_body = head.find("in_body"); in_body != head.end() && in_body->is_boolean())
    record.in_body = in_body->get<bool>();
  if (record.scope.empty() || record.name.empty()) return damaged("it has no scope or no name");
  record.value = SBX_TRY(LockedString::copy_of(parts->value), "reading a secret");
  return record;
}

}  // namespace sbx::secret
