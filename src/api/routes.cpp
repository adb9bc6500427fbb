#include "api/routes.h"

#include "api/changes_handlers.h"
#include "api/handlers.h"

namespace sbx::api {
namespace {

std::vector<std::string_view> segments_of(std::string_view path) {
  std::vector<std::string_view> segments;
  while (!path.empty()) {
    if (path.front() == '/') path.remove_prefix(1);
    const auto end = path.find('/');
    segments.push_back(path.substr(0, end));
    path = end == std::string_view::npos ? std::string_view() : path.substr(end);
  }
  return segments;
}

bool matches(std::string_view pattern, std::string_view path, std::map<std::string, std::string>& params) {
  const auto wanted = segments_of(pattern);
  const auto given = segments_of(path);
  if (wanted.size() != given.size()) return false;
  params.clear();
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (wanted[i].starts_with('{')) {
      if (given[i].empty()) return false;
      params[std::string(wanted[i].substr(1, wanted[i].size() - 2))] = percent_decode(given[i]);
    } else if (wanted[i] != given[i]) {
      return false;
    }
  }
  return true;
}

}  // namespace

const std::vector<Route>& route_table() {
  static const std::vector<Route> kRoutes = {
      {"GET", "/v1/daemon", Kind::kJson, get_daemon},
      {"POST", "/v1/daemon/stop", Kind::kJson, stop_daemon},
      {"GET", "/v1/diagnose", Kind::kJson, diagnose},
      {"GET", "/v1/sandboxes", Kind::kJson, list_sandboxes},
      {"POST", "/v1/sandboxes", Kind::kJson, create_sandbox},
      {"GET", "/v1/sandboxes/{name}", Kind::kJson, get_sandbox},
      {"DELETE", "/v1/sandboxes/{name}", Kind::kJson, remove_sandbox},
      {"POST", "/v1/sandboxes/{name}/start", Kind::kJson, start_sandbox},
      {"POST", "/v1/sandboxes/{name}/stop", Kind::kJson, stop_sandbox},
      {"GET", "/v1/sandboxes/{name}/ports", Kind::kJson, list_ports},
      {"POST", "/v1/sandboxes/{name}/ports", Kind::kJson, change_ports},
      {"POST", "/v1/sandboxes/{name}/mounts", Kind::kJson, add_mount},
      {"POST", "/v1/sandboxes/{name}/mounts/remove", Kind::kJson, remove_mount},
      {"GET", "/v1/sandboxes/{name}/attach", Kind::kAttach, nullptr},
      {"GET", "/v1/sandboxes/{name}/changes", Kind::kJson, get_changes},
      {"GET", "/v1/sandboxes/{name}/execs", Kind::kJson, list_execs},
      {"POST", "/v1/sandboxes/{name}/execs", Kind::kJson, run_detached},
      {"GET", "/v1/execs/{id}/wait", Kind::kWait, nullptr},
      {"GET", "/v1/execs/{id}/logs", Kind::kLogs, nullptr},
      {"POST", "/v1/execs/{id}/signal", Kind::kJson, signal_exec},
      {"POST", "/v1/execs/{id}/resize", Kind::kJson, resize_exec},
      {"POST", "/v1/prune", Kind::kJson, prune},
      {"POST", "/v1/reset", Kind::kJson, reset},
      {"GET", "/v1/secrets", Kind::kJson, list_secrets},
      {"PUT", "/v1/secrets", Kind::kSecret, set_secret},
      {"DELETE", "/v1/secrets", Kind::kJson, remove_secrets},
      {"GET", "/v1/images", Kind::kJson, list_images},
      {"POST", "/v1/images", Kind::kJson, build_image},
      {"DELETE", "/v1/images/{id}", Kind::kJson, remove_image},
      {"GET", "/v1/templates", Kind::kJson, list_templates},
      {"DELETE", "/v1/templates/{id}", Kind::kJson, remove_template},
      {"GET", "/v1/policy", Kind::kJson, get_policy},
      {"POST", "/v1/policy/init", Kind::kJson, init_policy},
      {"POST", "/v1/policy/reset", Kind::kJson, reset_policy},
      {"GET", "/v1/policy/rules", Kind::kJson, list_rules},
      {"POST", "/v1/policy/rules", Kind::kJson, add_rule},
      {"POST", "/v1/policy/rules/remove", Kind::kJson, remove_rules},
      {"POST", "/v1/policy/check", Kind::kJson, check_policy},
      {"GET", "/v1/policy/log", Kind::kJson, get_policy_log},
      {"GET", "/v1/policy/log/follow", Kind::kPolicyLog, nullptr},
      {"GET", "/v1/policy/profiles", Kind::kJson, list_profiles},
      {"PUT", "/v1/policy/profiles/{profile}", Kind::kJson, create_profile},
      {"DELETE", "/v1/policy/profiles/{profile}", Kind::kJson, remove_profile},
      {"PUT", "/v1/sandboxes/{name}/profiles/{profile}", Kind::kJson, attach_profile},
      {"DELETE", "/v1/sandboxes/{name}/profiles/{profile}", Kind::kJson, detach_profile},
  };
  return kRoutes;
}

Result<const Route*> find_route(Request& request) {
  bool path_exists = false;
  for (const auto& route : route_table()) {
    if (!matches(route.pattern, request.path, request.params)) continue;
    path_exists = true;
    if (route.method == request.method) return &route;
  }
  if (path_exists) return fail(ErrorCode::kInvalid, request.path + " does not answer to " + request.method);
  return fail(ErrorCode::kNotFound, "no route " + request.path);
}

std::string percent_decode(std::string_view text) {
  const auto digit = [](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
  };
  std::string decoded;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 && digit(text[i + 2]) >= 0) {
      decoded += static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]));
      i += 2;
    } else {
      decoded += text[i];
    }
  }
  return decoded;
}

void parse_target(std::string_view target, Request& request) {
  const auto mark = target.find('?');
  request.path = target.substr(0, mark);
  if (mark == std::string_view::npos) return;
  std::string_view rest = target.substr(mark + 1);
  while (!rest.empty()) {
    const auto pair = rest.substr(0, rest.find('&'));
    const auto equals = pair.find('=');
    request.query[percent_decode(pair.substr(0, equals))] =
        equals == std::string_view::npos ? "" : percent_decode(pair.substr(equals + 1));
    rest = pair.size() < rest.size() ? rest.substr(pair.size() + 1) : std::string_view();
  }
}

}  // namespace sbx::api
