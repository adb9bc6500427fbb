// api/openapi.yaml held against what a running daemon answers.
#pragma once

#include <yaml-cpp/yaml.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace sbx::test {

struct Answer {
  int status = 0;
  std::string body;
  nlohmann::json json() const { return nlohmann::json::parse(body, nullptr, false); }
};

// One request to the daemon of $SBX_HOME, which must run.
Answer request(const std::string& method, const std::string& target, const nlohmann::json& body = nullptr);

class OpenApi {
 public:
  OpenApi();
  struct Operation {
    std::string method;   // GET
    std::string pattern;  // /v1/sandboxes/{name}
  };
  std::vector<Operation> operations() const;
  // Fails the test if the operation is not documented, or does not document this status, or the body is not of the
  // documented shape.
  void check(const std::string& method, const std::string& pattern, const Answer& answer) const;
  // request() and check(): `parameters` replace the pattern's {parts} in order.
  Answer ask(const std::string& method, const std::string& pattern, std::vector<std::string> parameters = {},
             const nlohmann::json& body = nullptr, const std::string& query = {}) const;

 private:
  YAML::Node resolve(YAML::Node node) const;
  // What is wrong with `value`; "" if nothing.
  std::string mismatch(const YAML::Node& schema, const nlohmann::json& value, const std::string& where) const;
  YAML::Node document_;
};

}  // namespace sbx::test
