#include "api/handlers.h"

#include <unistd.h>

#include <algorithm>

#include "api/changes_handlers.h"
#include "api/views.h"
#include "image/build.h"
#include "sandbox/json_fields.h"
#include "sandbox/known_members.h"
#include "store/clock.h"

namespace sbx::api {

using namespace std::chrono_literals;
using nlohmann::json;
using sandbox::bool_field;
using sandbox::int_field;
using sandbox::text_field;

namespace {

// Outside coroutines: GCC 12 cannot keep the arrays behind braced initialisers across a co_await.
template <typename... Names>
Result<void> only(const json& body, Names... names) {
  return sandbox::only_members(body, {names...});
}

json image_view(const image::ImageManifest& m) {
  return {{"id", m.id},
          {"suite", m.suite},
          {"kernel", m.kernel_version},
          {"size", m.stored_bytes},
          {"disk_bytes", m.disk_bytes},
          {"created_at", m.created_at}};
}

}  // namespace

Result<json> exec_head(const json& body) {
  if (!body.is_object()) return fail(ErrorCode::kInvalid, "the command must be a JSON object");
  SBX_CHECK(sandbox::only_members(
                body, {"argv", "env", "cwd", "user", "tty", "privileged", "stdin", "rows", "cols", "ssh_agent"}),
            "reading the command");
  json head;
  const auto argv = SBX_TRY(sandbox::text_list(body, "argv"), "reading argv");
  if (argv.empty() || argv.front().empty()) return fail(ErrorCode::kInvalid, "argv must name a program");
  head["argv"] = argv;
  head["env"] = SBX_TRY(sandbox::text_list(body, "env"), "reading env");
  for (const char* key : {"cwd", "user"}) head[key] = text_field(body, key);
  for (const char* key : {"tty", "privileged"}) head[key] = bool_field(body, key);
  head["stdin"] = bool_field(body, "stdin", true);
  head["rows"] = std::clamp<std::int64_t>(int_field(body, "rows", 24), 1, 65535);
  head["cols"] = std::clamp<std::int64_t>(int_field(body, "cols", 80), 1, 65535);
  return head;
}

Result<void> follow_ssh_agent(Daemon& daemon, const std::string& name, const json& body) {
  const std::string socket = text_field(body, "ssh_agent");
  return socket.empty() ? Result<void>() : daemon.lifecycle.follow_ssh_agent(name, socket);
}

SBX_HANDLER(get_daemon) {
  (void)request, (void)progress;
  const auto& paths = daemon.lifecycle.paths();
  co_return json{{"version", SBX_VERSION},
                 {"pid", ::getpid()},
                 {"uptime_ms", store::now_ms() - daemon.started_ms},
                 {"home", paths.home.native()},
                 {"socket", paths.daemon_socket().native()},
                 {"log", paths.daemon_log().native()}};
}

SBX_HANDLER(stop_daemon) {
  (void)request, (void)progress;
  daemon.stop();
  co_return json::object();
}

SBX_HANDLER(list_sandboxes) {
  (void)progress;
  SBX_CO_TRY(const auto rows, daemon.lifecycle.list(), "listing the sandboxes");
  json list = json::array();
  const auto label = request.query.find("label");
  for (const auto& row : rows) {
    if (label != request.query.end() && !has_label(row, label->second)) continue;
    list.push_back(sandbox_view(row));
    if (json ports = ports_of(daemon, row.id, true); !ports.empty()) list.back()["ports"] = std::move(ports);
  }
  co_return json{{"sandboxes", list}};
}

SBX_HANDLER(create_sandbox) {
  SBX_CO_TRY(auto wanted, sandbox::parse_create_request(request.body, daemon.lifecycle.paths().home),
             "reading the request");
  SBX_CO_TRY(const auto row, co_await daemon.lifecycle.create(std::move(wanted), std::move(progress)),
             "creating a sandbox");
  json view = sandbox_view(row);
  if (json ports = ports_of(daemon, row.id, true); !ports.empty()) view["ports"] = std::move(ports);
  co_return view;
}

SBX_HANDLER(get_sandbox) {
  (void)progress;
  SBX_CO_TRY(const auto row, daemon.lifecycle.find(request.params["name"]), "inspecting a sandbox");
  json view = sandbox_view(row);
  if (!row.env.empty()) view["env"] = row.env;
  SBX_CO_TRY(const auto agent, daemon.lifecycle.ssh_agent(row.id), "inspecting a sandbox");
  if (agent) view["ssh_agent"] = *agent;
  view["protection"] = co_await protection_of(daemon, row);
  if (row.state == store::State::kRunning) {
    const json keeper = co_await daemon.lifecycle.status(row.id);
    if (keeper.is_object()) {
      view["sessions"] = int_field(keeper, "sessions");
      view["detached"] = int_field(keeper, "detached");
      view["keeper_pid"] = int_field(keeper, "pid");
      view["parked"] = bool_field(keeper, "parked");
      view["qemu_pid"] = int_field(keeper, "qemu_pid");
      if (keeper.contains("guest") && keeper["guest"].is_object()) view["guest"] = keeper["guest"];
    }
    view["uptime_ms"] = store::now_ms() - row.started_at;
    if (const auto gateway = daemon.lifecycle.gateway(row.id)) {
      view["gateway"] = {{"state", gateway->state}};
      for (const auto& what : gateway->withheld) view["warnings"].push_back("credential withheld: " + what);
      if (!gateway->unkept_login.empty()) {
        view["warnings"].push_back("login lost when the sandbox stops, since it cannot be stored: " +
                                   gateway->unkept_login);
      }
    }
  }
  SBX_CO_TRY(const json policy, network_policy_of(daemon, row.id), "inspecting a sandbox");
  view["network_policy"] = policy;
  if (json ports = ports_of(daemon, row.id, true); !ports.empty()) view["ports"] = std::move(ports);
  const json secrets = co_await secrets_of(daemon, row.id);
  if (!secrets.empty()) view["secrets"] = secrets;
  co_return view;
}

SBX_HANDLER(remove_sandbox) {
  (void)progress;
  sandbox::Lifecycle::RemoveOptions options;
  options.force = request.query["force"] == "1";
  SBX_CO_CHECK(co_await daemon.lifecycle.remove(request.params["name"], options), "removing a sandbox");
  co_return json::object();
}

SBX_HANDLER(start_sandbox) {
  SBX_CO_CHECK(only(request.body, "cold", "ssh_agent"), "reading the request");
  SBX_CO_CHECK(follow_ssh_agent(daemon, request.params["name"], request.body), "starting a sandbox");
  sandbox::Lifecycle::StartOptions options;
  options.cold = bool_field(request.body, "cold");
  SBX_CO_TRY(const bool started, co_await daemon.lifecycle.start(request.params["name"], options, std::move(progress)),
             "starting a sandbox");
  co_return json{{"started", started}};
}

SBX_HANDLER(stop_sandbox) {
  (void)progress;
  SBX_CO_CHECK(co_await daemon.lifecycle.stop(request.params["name"]), "stopping a sandbox");
  co_return json::object();
}

SBX_HANDLER(run_detached) {
  SBX_CO_TRY(auto head, exec_head(request.body), "reading the command");
  head["stdin"] = false;
  SBX_CO_CHECK(follow_ssh_agent(daemon, request.params["name"], request.body), "running a command");
  co_return co_await daemon.lifecycle.exec_detached(request.params["name"], std::move(head), std::move(progress));
}

SBX_HANDLER(list_execs) {
  (void)progress;
  SBX_CO_TRY(const auto row, daemon.lifecycle.find(request.params["name"]), "listing commands");
  if (row.state != store::State::kRunning) co_return json{{"execs", json::array()}};
  SBX_CO_TRY(auto keeper, daemon.lifecycle.keeper_of(row.id), "listing commands");
  co_return co_await keeper->call("GET", "/exec", nullptr, 10s);
}

SBX_HANDLER(signal_exec) {
  SBX_CO_CHECK(only(request.body, "signal"), "reading the request");
  (void)progress;
  const std::string id = request.params["id"];
  json body;
  body["signal"] = int_field(request.body, "signal", 15);
  SBX_CO_TRY(auto keeper, daemon.lifecycle.keeper_of_exec(id), "signalling a command");
  co_return co_await keeper->call("POST", "/exec/" + id + "/signal", body, 10s);
}

SBX_HANDLER(resize_exec) {
  SBX_CO_CHECK(only(request.body, "rows", "cols"), "reading the request");
  (void)progress;
  const std::string id = request.params["id"];
  json body;
  body["rows"] = int_field(request.body, "rows", 24);
  body["cols"] = int_field(request.body, "cols", 80);
  SBX_CO_TRY(auto keeper, daemon.lifecycle.keeper_of_exec(id), "resizing a terminal");
  co_return co_await keeper->call("POST", "/exec/" + id + "/resize", body, 10s);
}

SBX_HANDLER(prune) {
  SBX_CO_CHECK(only(request.body, "until_ms", "dry_run"), "reading the request");
  (void)progress;
  SBX_CO_TRY(const auto rows, daemon.lifecycle.list(), "listing the sandboxes");
  const std::int64_t until = int_field(request.body, "until_ms", store::now_ms());
  const bool dry_run = bool_field(request.body, "dry_run");
  json removed = json::array();
  for (const auto& row : rows) {
    if (row.state != store::State::kStopped || row.stopped_at == 0 || row.stopped_at > until) continue;
    if (!dry_run) {
      sandbox::Lifecycle::RemoveOptions options;
      SBX_CO_CHECK(co_await daemon.lifecycle.remove(row.id, options), "pruning " + row.name);
    }
    removed.push_back(row.name);
  }
  co_return json{{"removed", removed}};
}

SBX_HANDLER(reset) {
  SBX_CO_CHECK(only(request.body, "preserve_secrets"), "reading the request");
  SBX_CO_TRY(const auto rows, daemon.lifecycle.list(), "listing the sandboxes");
  sandbox::Lifecycle::RemoveOptions options;
  options.force = true;
  for (const auto& row : rows) {
    progress("Removing sandbox " + row.name);
    SBX_CO_CHECK(co_await daemon.lifecycle.remove(row.id, options), "removing " + row.name);
  }
  const auto templates = daemon.lifecycle.artifacts().templates();
  for (const auto& entry : templates) {
    co_await daemon.lifecycle.drop_spares(entry.id);
    SBX_CO_CHECK(daemon.lifecycle.artifacts().remove_template(entry.id), "removing a template");
  }
  const auto folder = daemon.lifecycle.paths().images();
  SBX_CO_TRY(const auto images, image::list_images(folder), "listing the images");
  for (const auto& entry : images) {
    SBX_CO_CHECK(image::remove_image(folder, entry.id), "removing an image");
  }
  SBX_CO_CHECK(daemon.lifecycle.policy().reset(), "removing the policy");
  std::size_t secrets = 0;
  if (!bool_field(request.body, "preserve_secrets")) {
    SBX_CO_TRY(secrets, co_await daemon.lifecycle.secrets().destroy(), "removing the secrets");
  }
  co_return json{
      {"sandboxes", rows.size()}, {"templates", templates.size()}, {"images", images.size()}, {"secrets", secrets}};
}

SBX_HANDLER(list_images) {
  (void)request, (void)progress;
  SBX_CO_TRY(const auto images, image::list_images(daemon.lifecycle.paths().images()), "listing the images");
  json list = json::array();
  for (const auto& entry : images) list.push_back(image_view(entry));
  co_return json{{"images", list}};
}

SBX_HANDLER(build_image) {
  (void)request;
  SBX_CO_TRY(const auto manifest, co_await daemon.lifecycle.artifacts().build_image(std::move(progress)),
             "building an image");
  co_return image_view(manifest);
}

SBX_HANDLER(remove_image) {
  (void)progress;
  const std::string id = request.params["id"];
  for (const auto& entry : daemon.lifecycle.artifacts().templates()) {
    if (entry.image_id == id)
      co_return fail(ErrorCode::kConflict, "image " + id + " is used by template " + entry.id + "; remove that first");
  }
  SBX_CO_TRY(const auto rows, daemon.lifecycle.list(), "listing the sandboxes");
  for (const auto& row : rows) {
    if (row.image_id == id)
      co_return fail(ErrorCode::kConflict, "image " + id + " is used by sandbox '" + row.name + "'");
  }
  SBX_CO_CHECK(image::remove_image(daemon.lifecycle.paths().images(), id), "removing an image");
  co_return json::object();
}

SBX_HANDLER(list_templates) {
  (void)request, (void)progress;
  json list = json::array();
  for (const auto& entry : daemon.lifecycle.artifacts().templates()) {
    list.push_back({{"id", entry.id},
                    {"image", entry.image_id},
                    {"accelerator", entry.accelerator},
                    {"cpus", entry.cpus},
                    {"memory_mib", entry.memory_mib},
                    {"created_at", entry.created_at},
                    {"size", entry.stored_bytes}});
  }
  co_return json{{"templates", list}};
}

SBX_HANDLER(remove_template) {
  (void)progress;
  const std::string id = request.params["id"];
  co_await daemon.lifecycle.drop_spares(id);
  SBX_CO_TRY(const auto rows, daemon.lifecycle.list(), "listing the sandboxes");
  for (const auto& row : rows) {
    if (row.template_id == id)
      co_return fail(ErrorCode::kConflict, "template " + id + " is used by sandbox '" + row.name + "'");
  }
  SBX_CO_CHECK(daemon.lifecycle.artifacts().remove_template(id), "removing a template");
  co_return json::object();
}

}  // namespace sbx::api
