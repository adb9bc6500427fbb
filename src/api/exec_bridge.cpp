#include "api/exec_bridge.h"

#include <boost/asio/detached.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/websocket.hpp>
#include <deque>

#include "api/handlers.h"
#include "api/http_server.h"
#include "sandbox/json_fields.h"
#include "wire/signal.h"

namespace sbx::api {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace websocket = beast::websocket;
using namespace std::chrono_literals;
using nlohmann::json;
using sandbox::dump;
using Socket = asio::local::stream_protocol::socket;

namespace {

constexpr std::size_t kOutputWindow = 512U << 10U;

auto into(boost::system::error_code& error) { return asio::redirect_error(asio::use_awaitable, error); }

// Everything one attached command shares between its four coroutines: reader and writer of the WebSocket, writer of
// stdin, and the one that reads output.
struct Bridge {
  Bridge(Socket socket, const asio::any_io_executor& executor)
      : client(std::move(socket)), output_changed(executor), input_changed(executor), responded(executor) {}

  websocket::stream<Socket> client;
  bool gone = false;      // the client
  bool finished = false;  // nothing more will be put into `output`
  bool written = false;   // all of `output` is out

  struct Message {
    bool text = false;
    std::string data;
  };
  std::deque<Message> output;
  std::size_t output_bytes = 0;
  wire::Signal output_changed;

  std::deque<std::string> input;  // stdin that the keeper has not taken yet
  std::size_t input_bytes = 0;
  bool input_ended = false;
  wire::Signal input_changed;

  sandbox::ExecSession session;
  sandbox::Event responded;

  void send_text(const json& message) { send({true, dump(message)}); }
  void send(Message message) {
    if (gone) return;
    output_bytes += message.data.size();
    output.push_back(std::move(message));
    output_changed.notify();
  }
  void client_went() {
    gone = true;
    if (session.stream) session.stream->reset();
    output_changed.notify();
    input_changed.notify();
    responded.set();
  }
};
using BridgePtr = std::shared_ptr<Bridge>;

Awaitable<void> write_output(BridgePtr bridge) {
  for (;;) {
    while (!bridge->output.empty() && !bridge->gone) {
      const Bridge::Message message = std::move(bridge->output.front());
      bridge->output.pop_front();
      bridge->client.text(message.text);
      boost::system::error_code error;
      co_await bridge->client.async_write(asio::buffer(message.data), into(error));
      bridge->output_bytes -= message.data.size();
      bridge->output_changed.notify();
      if (error) bridge->client_went();
    }
    if (bridge->gone || bridge->finished) break;
    co_await bridge->output_changed.wait();
  }
  bridge->written = true;
  bridge->output_changed.notify();
}

Awaitable<void> write_input(BridgePtr bridge) {
  co_await bridge->responded.wait();
  for (;;) {
    while (!bridge->input.empty()) {
      const std::string piece = std::move(bridge->input.front());
      bridge->input.pop_front();
      auto done = co_await bridge->session.stream->write(piece);
      bridge->input_bytes -= piece.size();
      bridge->input_changed.notify();
      // A command that does not read its stdin any more (or has ended) still has output to tell: swallow the rest.
      bridge->send_text({{"credit", piece.size()}});
      if (!done) continue;
    }
    if (bridge->gone || bridge->finished) co_return;
    if (bridge->input_ended) {
      auto done = co_await bridge->session.stream->finish();
      (void)done;
      co_return;
    }
    co_await bridge->input_changed.wait();
  }
}

Awaitable<void> control(BridgePtr bridge, json message) {
  co_await bridge->responded.wait();
  if (bridge->gone || bridge->finished) co_return;
  std::string path = "/exec/" + bridge->session.id;
  json body;
  if (message.contains("resize")) {
    path += "/resize";
    body["rows"] = sandbox::int_field(message["resize"], "rows", 24);
    body["cols"] = sandbox::int_field(message["resize"], "cols", 80);
  } else if (message.contains("signal")) {
    path += "/signal";
    body["signal"] = sandbox::int_field(message, "signal", 15);
  } else {
    co_return;
  }
  auto done = co_await bridge->session.keeper->call("POST", path, body, 5s);
  (void)done;  // the command may have ended meanwhile
}

Awaitable<void> read_client(BridgePtr bridge) {
  beast::flat_buffer buffer;
  while (!bridge->gone) {
    boost::system::error_code error;
    buffer.clear();
    co_await bridge->client.async_read(buffer, into(error));
    if (error) break;
    const std::string_view message(static_cast<const char*>(buffer.data().data()), buffer.size());
    if (message.empty() || bridge->client.got_text()) continue;
    if (message.front() == 0) {
      if (message.size() == 1 || bridge->input_ended) continue;
      bridge->input_bytes += message.size() - 1;
      bridge->input.emplace_back(message.substr(1));
      bridge->input_changed.notify();
      while (bridge->input_bytes > 2 * kStdinWindow && !bridge->gone && !bridge->finished)
        co_await bridge->input_changed.wait();
    } else if (message.front() == 1) {
      json parsed = json::parse(message.substr(1), nullptr, false);
      if (!parsed.is_object()) continue;
      if (parsed.contains("stdin_eof")) {
        bridge->input_ended = true;
        bridge->input_changed.notify();
      } else {
        co_await control(bridge, std::move(parsed));
      }
    }
  }
  bridge->client_went();
}

// The command's output up to its end; an Error if it could not be started or its keeper is gone.
Awaitable<Result<void>> pass_output(BridgePtr bridge) {
  auto stream = bridge->session.stream;
  SBX_CO_TRY(const auto head, co_await stream->response(), "starting the command");
  if (head.status >= 400) {
    SBX_CO_TRY(const auto body, co_await wire::read_body(*stream, 64U << 10U), "starting the command");
    const json parsed = json::parse(body, nullptr, false);
    const json error = parsed.is_object() && parsed.contains("error") ? parsed["error"] : json::object();
    co_return fail(error_code_from(sandbox::text_field(error, "code")),
                   sandbox::text_field(error, "message", "the command could not be started"));
  }
  json started;
  started["started"] = {{"id", bridge->session.id}};
  bridge->send_text(started);
  bridge->responded.set();
  std::vector<char> buffer(64U << 10U);
  for (;;) {
    SBX_CO_TRY(const std::size_t got, co_await stream->read_some(buffer), "reading the command's output");
    if (got == 0) co_return Result<void>{};
    bridge->send({false, std::string(buffer.data(), got)});
    while (bridge->output_bytes > kOutputWindow && !bridge->gone) co_await bridge->output_changed.wait();
    if (bridge->gone) co_return fail(ErrorCode::kUnavailable, "the client is gone");
  }
}

Awaitable<Result<void>> run_command(BridgePtr bridge, Daemon& daemon, std::string name) {
  beast::flat_buffer first;
  boost::system::error_code error;
  co_await bridge->client.async_read(first, into(error));
  if (error) co_return fail(ErrorCode::kUnavailable, "the client is gone");
  const json body =
      json::parse(std::string_view(static_cast<const char*>(first.data().data()), first.size()), nullptr, false);
  SBX_CO_TRY(auto head, exec_head(body), "reading the command");
  SBX_CO_CHECK(follow_ssh_agent(daemon, name, body), "running a command");
  const bool wants_stdin = head["stdin"].get<bool>();
  Progress progress = [bridge](const std::string& line) { bridge->send_text({{"progress", line}}); };
  SBX_CO_TRY(bridge->session, co_await daemon.lifecycle.exec(name, head, progress), "running a command");
  const auto executor = co_await asio::this_coro::executor;
  if (!wants_stdin) bridge->input_ended = true;
  asio::co_spawn(executor, read_client(bridge), asio::detached);
  asio::co_spawn(executor, write_input(bridge), asio::detached);
  SBX_CO_TRY(const auto answer, co_await bridge->session.stream->response(), "starting the command");
  if (answer.status == sandbox::kMachineEnded && !bridge->gone) {
    co_await daemon.lifecycle.wait_for_end_of(name);
    if (bridge->gone) co_return fail(ErrorCode::kUnavailable, "the client is gone");
    SBX_CO_TRY(bridge->session, co_await daemon.lifecycle.exec(name, head, progress), "running a command");
    if (bridge->gone) bridge->session.stream->reset();
  }
  co_return co_await pass_output(bridge);
}

}  // namespace

Awaitable<void> serve_attach(Socket socket, const beast::http::request<beast::http::string_body>& upgrade,
                             Daemon& daemon, std::string name) {
  const auto executor = co_await asio::this_coro::executor;
  auto bridge = std::make_shared<Bridge>(std::move(socket), executor);
  bridge->client.read_message_max(4U << 20U);
  boost::system::error_code error;
  co_await bridge->client.async_accept(upgrade, into(error));
  if (error) co_return;
  asio::co_spawn(executor, write_output(bridge), asio::detached);
  auto result = co_await run_command(bridge, daemon, std::move(name));
  if (!result) {
    json message;
    message["error"] = {{"code", to_string(result.error().code)}, {"message", result.error().message}};
    bridge->send_text(message);
    if (bridge->session.stream) bridge->session.stream->reset();
  }
  bridge->finished = true;
  bridge->responded.set();
  bridge->output_changed.notify();
  bridge->input_changed.notify();
  while (!bridge->written) co_await bridge->output_changed.wait();
  if (!bridge->gone) co_await bridge->client.async_close(websocket::close_code::normal, into(error));
  bridge->session = {};  // the keeper forgets the session now, not when the last coroutine is gone
}

}  // namespace sbx::api
