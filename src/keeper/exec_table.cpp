#include "keeper/exec_table.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <cctype>

#include "wire/length_prefix.h"

namespace sbx::keeper {

namespace asio = boost::asio;
using nlohmann::json;
using wire::Awaitable;
using wire::StdStream;

void OutputRing::push(std::string frame) {
  bytes_ += frame.size();
  frames_.push_back(std::move(frame));
  while (bytes_ > kRingBytes && frames_.size() > 1) {
    bytes_ -= frames_.front().size();
    frames_.pop_front();
    ++first_;
  }
}

namespace {

std::string dump(const json& document) { return document.dump(-1, ' ', false, json::error_handler_t::replace); }

// Outside coroutines: GCC 12 cannot keep the arrays behind braced initialisers across a co_await.
std::string single(const char* key, json value) {
  json document = json::object();
  document[key] = std::move(value);
  return dump(document);
}

// A guest that has broken its session may come back; the machine's end is noticed a little after the session's.
constexpr std::chrono::seconds kReconnected{15};

json failed_status(const std::string& error) { return {{"exit_code", 125}, {"error", error}}; }

// An id that the daemon chose stands in paths and in file names of the guest.
bool usable_id(const json& id) {
  if (!id.is_string()) return false;
  const auto& text = id.get_ref<const std::string&>();
  return !text.empty() && text.size() <= 64 && std::all_of(text.begin(), text.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '-';
  });
}

// What the guest says of how a command ended, reduced to what ExecStatus may hold.
json checked_status(std::string_view text) {
  const auto document = json::parse(text, nullptr, false);
  json status = json::object();
  if (document.is_object()) {
    for (const char* key : {"exit_code", "signal"}) {
      const auto it = document.find(key);
      if (it != document.end() && it->is_number_integer()) status[key] = std::clamp(it->get<int>(), 0, 255);
    }
    const auto error = document.find("error");
    if (error != document.end() && error->is_string()) status["error"] = error->get<std::string>().substr(0, 4096);
  }
  if (!status.contains("exit_code") && !status.contains("signal")) {
    status = failed_status("the guest reported no exit status");
  }
  return status;
}

}  // namespace

std::optional<std::chrono::system_clock::time_point> ExecTable::idle_since() const {
  if (attached_ > 0) return std::nullopt;
  return idle_since_;
}

std::size_t ExecTable::detached_running() const {
  std::size_t count = 0;
  for (const auto& [id, exec] : execs_) count += exec->detach && !exec->status ? 1 : 0;
  return count;
}

json ExecTable::record(const Exec& exec) const {
  return {{"id", exec.id},
          {"argv", exec.argv},
          {"detach", exec.detach},
          {"started_at", exec.started_at},
          {"running", !exec.status.has_value()},
          {"status", exec.status ? *exec.status : json(nullptr)}};
}

void ExecTable::guest_lost(const std::string& why) {
  guest_.give_up();
  for (auto& [id, exec] : execs_) {
    if (!exec->status) finish(*exec, failed_status(why));
  }
}

void ExecTable::finish(Exec& exec, json status) {
  if (exec.status) return;
  exec.ring.push(wire::stdcopy_frame(StdStream::kStatus, dump(status)));
  exec.status = std::move(status);
  exec.awake = Parking::Hold();
  if (!exec.detach && --attached_ == 0) idle_since_ = std::chrono::system_clock::now();
  exec.changed.notify();
  finished_.push_back(exec.id);
  forget_old();
}

void ExecTable::forget_old() {
  while (finished_.size() > kFinishedKept) {
    execs_.erase(finished_.front());
    finished_.pop_front();
  }
}

Awaitable<void> ExecTable::handle(std::shared_ptr<wire::Http2Stream> stream, std::weak_ptr<wire::Http2Session> daemon) {
  const auto& request = stream->request();
  std::string path = request.path;
  std::string query;
  if (const auto mark = path.find('?'); mark != std::string::npos) {
    query = path.substr(mark + 1);
    path.resize(mark);
  }
  if (path == "/exec" && request.method == "POST") co_return co_await start(stream, daemon);
  if (path == "/exec" && request.method == "GET") {
    std::vector<std::shared_ptr<Exec>> oldest_first;
    for (const auto& [id, exec] : execs_) oldest_first.push_back(exec);
    std::ranges::sort(oldest_first, {}, &Exec::number);
    auto list = json::array();
    for (const auto& exec : oldest_first) list.push_back(record(*exec));
    const std::string text = single("execs", std::move(list));
    co_return co_await wire::send_json(*stream, 200, text);
  }
  const auto slash = path.rfind('/');
  const std::string action = path.substr(slash + 1);
  const std::string id = slash > 6 ? path.substr(6, slash - 6) : std::string();
  const auto it = execs_.find(id);
  if (it == execs_.end()) {
    const Error error{ErrorCode::kNotFound, "no such exec: " + id, {}};
    co_return co_await wire::send_error(*stream, error);
  }
  auto exec = it->second;
  if (action == "logs") co_return co_await send_logs(exec, stream, query.find("follow=1") != std::string::npos);
  if (action == "wait") {
    const auto gone = watch_client(exec, stream);
    while (!exec->status && !*gone) co_await exec->changed.wait();
    if (!exec->status) co_return;
    const std::string text = dump(*exec->status);
    co_return co_await wire::send_json(*stream, 200, text);
  }
  if (action == "signal" || action == "resize") co_return co_await control(id, action, stream);
  const Error error{ErrorCode::kNotFound, "no such route: " + path, {}};
  co_await wire::send_error(*stream, error);
}

// A client that only waits for `exec` would not be missed until the command says something: this wakes whoever waits on
// its behalf as soon as it goes, and says so.
std::shared_ptr<const bool> ExecTable::watch_client(std::shared_ptr<Exec> exec,
                                                    std::shared_ptr<wire::Http2Stream> client) {
  auto gone = std::make_shared<bool>(false);
  asio::co_spawn(
      executor_,
      [](std::shared_ptr<Exec> watched, std::shared_ptr<wire::Http2Stream> stream,
         std::shared_ptr<bool> flag) -> Awaitable<void> {
        co_await stream->closed();
        *flag = true;
        watched->changed.notify();
      }(std::move(exec), std::move(client), gone),
      asio::detached);
  return gone;
}

Awaitable<void> ExecTable::control(std::string id, std::string action, std::shared_ptr<wire::Http2Stream> client) {
  auto body = co_await wire::read_body(*client, 4096);
  Result<json> answer = fail(ErrorCode::kInvalid, "the body must be a JSON object");
  if (body) {
    auto document = json::parse(*body, nullptr, false);
    if (document.is_object()) answer = co_await guest_.call("POST", "/exec/" + id + "/" + action, document);
  }
  if (!answer) co_return co_await wire::send_error(*client, answer.error());
  co_await wire::send_json(*client, 200, "{}");
}

Awaitable<Result<json>> ExecTable::read_head(wire::Http2Stream& client, std::string& rest) {
  std::string data;
  std::vector<char> buffer(65536);
  std::size_t size = 0;
  for (;;) {
    if (data.size() >= 4) {
      size = 0;
      for (int i = 0; i < 4; ++i) size = size << 8U | static_cast<unsigned char>(data[i]);
      if (size > kMaxHeadBytes) co_return fail(ErrorCode::kInvalid, "the exec head is larger than 1 MiB");
      if (data.size() >= 4 + size) break;
    }
    SBX_CO_TRY(const std::size_t n, co_await client.read_some(buffer), "reading the exec head");
    if (n == 0) co_return fail(ErrorCode::kInvalid, "the exec head is cut short");
    data.append(buffer.data(), n);
  }
  auto head = json::parse(data.substr(4, size), nullptr, false);
  if (!head.is_object() || !head.contains("argv") || !head["argv"].is_array() || head["argv"].empty()) {
    co_return fail(ErrorCode::kInvalid, "the exec head needs argv, a list of at least one string");
  }
  rest = data.substr(4 + size);
  co_return head;
}

std::shared_ptr<Exec> ExecTable::add(const json& head) {
  auto exec = std::make_shared<Exec>(executor_);
  exec->id = head.contains("id") && usable_id(head["id"]) ? head["id"].get<std::string>() : std::string();
  while (exec->id.empty() || execs_.contains(exec->id)) exec->id = "e" + std::to_string(next_id_++);
  exec->number = started_++;
  exec->argv = head["argv"];
  exec->detach = head.contains("detach") && head["detach"] == true;
  exec->started_at = rfc3339(std::chrono::system_clock::now());
  execs_[exec->id] = exec;
  if (!exec->detach) ++attached_;
  return exec;
}

namespace {

// stdin: from the client (first what came with the head) to the guest, then its end.
Awaitable<void> pump_input(std::shared_ptr<wire::Http2Stream> client, std::shared_ptr<wire::Http2Stream> guest,
                           std::string rest) {
  std::vector<char> buffer(65536);
  if (!rest.empty()) {
    auto written = co_await guest->write(rest);
    if (!written) co_return;
  }
  for (;;) {
    auto n = co_await client->read_some(buffer);
    if (!n) co_return;
    if (*n == 0) break;
    auto written = co_await guest->write(std::string_view(buffer.data(), *n));
    if (!written) co_return;
  }
  (void)co_await guest->finish();
}

}  // namespace

Awaitable<void> ExecTable::start(std::shared_ptr<wire::Http2Stream> client, std::weak_ptr<wire::Http2Session> daemon) {
  std::string rest;
  auto head = co_await read_head(*client, rest);
  if (!head) co_return co_await wire::send_error(*client, head.error());
  // Before the file server is asked: it may be waiting for a guest that is parked to take what it has sent.
  auto awake = co_await guest_.parking().wake();
  co_await guest_.connected_within(kReconnected);
  if (!awake && guest_.connected()) co_return co_await wire::send_error(*client, awake.error());
  head->erase("files_seen");
  if (files_seen_) {
    const auto seen = co_await files_seen_();
    if (seen) (*head)["files_seen"] = *seen;
  }
  wire::Http2Head request;
  request.method = "POST";
  request.path = "/exec";
  auto opened = co_await guest_.open(std::move(request));
  if (!opened) co_return co_await wire::send_error(*client, opened.error());
  auto guest = opened->stream;
  auto exec = add(*head);
  exec->guest = guest;
  exec->awake = std::move(opened->hold);
  (*head)["id"] = exec->id;
  head->erase("detach");
  head->erase("stdin");
  const std::string framed = wire::length_prefixed(dump(*head));
  auto sent = co_await guest->write(framed);
  Result<wire::Http2Head> response = fail(ErrorCode::kUnavailable, "the guest did not take the command");
  if (sent) response = co_await guest->response();
  if (!response) {
    response = fail(ErrorCode::kUnavailable,
                    "the guest went away before it said whether the command has started: " + response.error().message);
  }
  if (response && response->status != 200) {
    auto text = co_await wire::read_body(*guest, 65536);
    const auto document = json::parse(text.value_or(""), nullptr, false);
    std::string message = "the guest refused the command";
    if (document.is_object() && document.contains("error") && document["error"].is_object()) {
      message = document["error"].value("message", message);
    }
    response = fail(ErrorCode::kInvalid, message);
  }
  if (!response) {
    finish(*exec, failed_status(response.error().message));
    co_return co_await wire::send_error(*client, response.error());
  }
  if (exec->detach) {
    (void)co_await guest->finish();
    asio::co_spawn(executor_, pump_output(exec, nullptr, daemon), asio::detached);
    const std::string text = single("id", exec->id);
    co_return co_await wire::send_json(*client, 200, text);
  }
  std::vector<std::pair<std::string, std::string>> headers;
  headers.emplace_back("content-type", "application/vnd.docker.multiplexed-stream");
  headers.emplace_back("sbx-exec-id", exec->id);
  (void)client->respond(200, std::move(headers), false);
  asio::co_spawn(executor_, pump_input(client, guest, std::move(rest)), asio::detached);
  // A client may vanish while the command is silent.
  asio::co_spawn(
      executor_,
      [](std::shared_ptr<Exec> watched, std::shared_ptr<wire::Http2Stream> stream,
         std::weak_ptr<wire::Http2Session> session) -> Awaitable<void> {
        co_await stream->closed();
        auto live = session.lock();
        if (!watched->status && live && live->alive()) watched->guest->reset();
      }(exec, client, daemon),
      asio::detached);
  co_await pump_output(exec, client, daemon);
}

Awaitable<void> ExecTable::pump_output(std::shared_ptr<Exec> exec, std::shared_ptr<wire::Http2Stream> client,
                                       std::weak_ptr<wire::Http2Session> daemon) {
  auto guest = exec->guest;
  std::string frames;
  std::optional<json> status;
  wire::StdcopyReader reader([&](StdStream kind, std::string_view piece) {
    if (kind == StdStream::kStatus) {
      status = checked_status(piece);
    } else {
      std::string frame = wire::stdcopy_frame(kind, piece);
      frames += frame;
      exec->ring.push(std::move(frame));
    }
  });
  std::vector<char> buffer(256U << 10U);
  while (!status) {
    auto n = co_await guest->read_some(buffer);
    if (!n || *n == 0) break;
    frames.clear();
    if (!reader.feed(std::string_view(buffer.data(), *n))) {
      guest->reset();
      break;
    }
    exec->changed.notify();
    if (client && !frames.empty()) {
      auto written = co_await client->write(frames);
      if (!written) {
        client.reset();
        // The client is gone: its command ends with it. If the whole daemon is gone, it goes on.
        auto session = daemon.lock();
        if (session && session->alive()) guest->reset();
      }
    }
  }
  if (!status) status = failed_status("the connection to the guest was lost");
  finish(*exec, *status);
  exec->guest.reset();
  if (!client) co_return;
  const std::string last = wire::stdcopy_frame(StdStream::kStatus, dump(*status));
  auto written = co_await client->write(last);
  if (written) (void)co_await client->finish();
}

Awaitable<void> ExecTable::send_logs(std::shared_ptr<Exec> exec, std::shared_ptr<wire::Http2Stream> client,
                                     bool follow) {
  (void)client->respond(200, {}, false);
  const auto gone = watch_client(exec, client);
  std::uint64_t next = exec->ring.first();
  for (;;) {
    next = std::max(next, exec->ring.first());
    while (next < exec->ring.next()) {
      const std::string frame = exec->ring.at(next++);
      auto written = co_await client->write(frame);
      if (!written) co_return;
      next = std::max(next, exec->ring.first());
    }
    if (exec->status || !follow) break;
    if (*gone) co_return;
    co_await exec->changed.wait();
  }
  (void)co_await client->finish();
}

}  // namespace sbx::keeper
