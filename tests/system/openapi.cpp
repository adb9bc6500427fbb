#include "openapi.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "instance.h"

namespace sbx::test {

using nlohmann::json;

Answer request(const std::string& method, const std::string& target, const json& body) {
  const std::string socket = sbx_json({"daemon", "status", "--json"}).value("socket", "");
  Command curl({"/usr/bin/curl", "--silent", "--path-as-is", "--max-time", "240", "--unix-socket", socket, "--request",
                method, "--write-out", "\n%{http_code}", "http://sbx" + target});
  if (!body.is_null()) curl.add({"--header", "content-type: application/json", "--data", body.dump()});
  auto outcome = run(curl);
  EXPECT_EQ(outcome.status, 0) << method << " " << target << ": curl's status; " << outcome.err;
  const auto line = outcome.out.rfind('\n');
  if (line == std::string::npos) return {};
  return {std::atoi(outcome.out.c_str() + line + 1), outcome.out.substr(0, line)};
}

OpenApi::OpenApi() : document_(YAML::LoadFile(SBX_OPENAPI)) {}

std::vector<OpenApi::Operation> OpenApi::operations() const {
  std::vector<Operation> list;
  for (const auto& path : document_["paths"]) {
    for (const auto& operation : path.second) {
      auto method = operation.first.as<std::string>();
      if (method == "parameters") continue;
      std::ranges::transform(method, method.begin(),
                             [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
      list.push_back({method, path.first.as<std::string>()});
    }
  }
  return list;
}

YAML::Node OpenApi::resolve(YAML::Node node) const {
  while (node && node.IsMap() && node["$ref"]) {
    std::string path = node["$ref"].as<std::string>().substr(2);  // "#/components/..."
    YAML::Node at = YAML::Clone(document_);
    while (!path.empty()) {
      const auto slash = path.find('/');
      at.reset(at[path.substr(0, slash)]);
      path = slash == std::string::npos ? "" : path.substr(slash + 1);
    }
    node.reset(at);
  }
  return node;
}

std::string OpenApi::mismatch(const YAML::Node& reference, const json& value, const std::string& where) const {
  const YAML::Node schema = resolve(reference);
  if (value.is_null() && schema["nullable"] && schema["nullable"].as<bool>()) return "";
  const auto type = schema["type"] ? schema["type"].as<std::string>() : "";
  const bool right = type.empty() || (type == "object" && value.is_object()) || (type == "array" && value.is_array()) ||
                     (type == "string" && value.is_string()) || (type == "boolean" && value.is_boolean()) ||
                     (type == "integer" && value.is_number_integer()) || (type == "number" && value.is_number());
  if (!right) return where + " is " + value.dump() + ", not of type " + type;
  if (schema["enum"]) {
    bool known = false;
    for (const auto& entry : schema["enum"]) known = known || entry.as<std::string>() == value.get<std::string>();
    if (!known) return where + " is " + value.dump() + ", which is not listed";
  }
  if (type == "array" && schema["items"]) {
    for (std::size_t i = 0; i < value.size(); ++i) {
      if (auto wrong = mismatch(schema["items"], value[i], where + "[" + std::to_string(i) + "]"); !wrong.empty())
        return wrong;
    }
  }
  if (type != "object") return "";
  for (const auto& name : schema["required"]) {
    if (!value.contains(name.as<std::string>())) return where + " has no " + name.as<std::string>();
  }
  if (!schema["properties"]) return "";
  for (const auto& [name, member] : value.items()) {
    if (!schema["properties"][name]) {
      if (schema["additionalProperties"]) continue;
      return where + "." + name + " is not documented";
    }
    if (auto wrong = mismatch(schema["properties"][name], member, where + "." + name); !wrong.empty()) return wrong;
  }
  return "";
}

void OpenApi::check(const std::string& method, const std::string& pattern, const Answer& answer) const {
  std::string verb = method;
  std::ranges::transform(verb, verb.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const std::string what = method + " " + pattern + " answered " + std::to_string(answer.status) + " " + answer.body;
  const YAML::Node responses = document_["paths"][pattern][verb]["responses"];
  ASSERT_TRUE(responses) << what << ", and is not documented";
  YAML::Node response;
  bool found = false;
  for (const auto& entry : responses) {
    const auto status = entry.first.as<std::string>();
    const bool exact = status == std::to_string(answer.status);
    if (!exact && (found || status != "default" || answer.status < 400)) continue;
    response.reset(entry.second);
    found = true;
  }
  ASSERT_TRUE(found) << what << ", a status that is not documented";
  if (answer.status >= 400) {
    const auto error = answer.json();
    ASSERT_TRUE(error.is_object() && error.contains("error")) << what;
    EXPECT_TRUE(error["error"]["message"].is_string()) << what;
    const std::vector<std::pair<std::string, int>> codes = {{"not_found", 404}, {"conflict", 409},    {"denied", 403},
                                                            {"invalid", 400},   {"unavailable", 503}, {"timeout", 504},
                                                            {"internal", 500}};
    const auto code = error["error"].value("code", "");
    const auto known = std::ranges::find(codes, code, &std::pair<std::string, int>::first);
    ASSERT_NE(known, codes.end()) << what;
    EXPECT_EQ(known->second, answer.status) << what;
    return;
  }
  const YAML::Node schema = resolve(response)["content"]["application/json"]["schema"];
  if (!schema) return;
  EXPECT_EQ(mismatch(schema, answer.json(), "the answer"), "") << what;
}

Answer OpenApi::ask(const std::string& method, const std::string& pattern, std::vector<std::string> parameters,
                    const json& body, const std::string& query) const {
  std::string target = pattern;
  for (const auto& parameter : parameters) {
    const auto open = target.find('{');
    target.replace(open, target.find('}') - open + 1, parameter);
  }
  auto answer = request(method, target + query, body);
  check(method, pattern, answer);
  return answer;
}

}  // namespace sbx::test
