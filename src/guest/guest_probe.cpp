// sbx-guest-probe: speaks the control protocol to a guest, for tests by hand.
//   sbx-guest-probe SOCKET call METHOD PATH [BODY]
//   sbx-guest-probe SOCKET exec HEAD_JSON [COPIES]   stdin, stdout, stderr and the exit status are the command's
//   sbx-guest-probe SOCKET exec HEAD_JSON 1 MS PATH BODY   and POST PATH after MS milliseconds, in the same session
//   sbx-guest-probe SOCKET abandon HEAD_JSON MS      resets the stream after MS milliseconds
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "wire/http2_session.h"
#include "wire/resync.h"
#include "wire/stdcopy.h"

namespace {

using namespace sbx;
using nlohmann::json;
namespace asio = boost::asio;

int exit_code = 1;
int left = 0;

UniqueFd connect_to(const char* path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    std::perror(path);
    std::exit(2);
  }
  return fd;
}

std::string with_length(const std::string& head) {
  std::string text;
  for (int shift = 24; shift >= 0; shift -= 8) text += static_cast<char>(head.size() >> static_cast<unsigned>(shift));
  return text + head;
}

wire::Awaitable<void> send_input(std::shared_ptr<wire::Http2Stream> stream, std::string data) {
  const auto written = co_await stream->write(data);
  if (written) (void)co_await stream->finish();
}

wire::Awaitable<void> exec(wire::Http2Session& session, std::string head, std::string input) {
  auto stream = session.open({"POST", "/exec", 0, {}}, false);
  if (!stream) {
    std::cerr << stream.error().describe() << "\n";
    co_return;
  }
  const auto executor = co_await asio::this_coro::executor;
  asio::co_spawn(executor, send_input(*stream, with_length(head) + input), asio::detached);
  const auto response = co_await (*stream)->response();
  if (!response || response->status != 200) {
    std::string why = response ? "status " + std::to_string(response->status) : response.error().describe();
    const auto body = co_await wire::read_body(**stream, 1U << 20U);
    if (body) why += " " + *body;
    std::cerr << why << "\n";
    co_return;
  }
  std::string status;
  wire::StdcopyReader reader([&status](wire::StdStream which, std::string_view piece) {
    if (which == wire::StdStream::kStatus) {
      status = piece;
    } else {
      (void)write_all(which == wire::StdStream::kStdout ? 1 : 2, piece);
    }
  });
  char buffer[65536];
  for (;;) {
    const auto size = co_await (*stream)->read_some(buffer);
    if (!size || *size == 0) break;
    if (!reader.feed({buffer, *size})) std::cerr << "malformed frames\n";
  }
  std::cerr << "[status " << status << "]\n";
  const auto parsed = json::parse(status, nullptr, false);
  if (parsed.is_object())
    exit_code = parsed.contains("signal") ? 128 + parsed["signal"].get<int>() : parsed.value("exit_code", 1);
}

wire::Awaitable<void> exec_copy(wire::Http2Session& session, std::string head, std::string input) {
  co_await exec(session, std::move(head), std::move(input));
  if (--left == 0) session.close();
}

wire::Awaitable<void> post_later(std::shared_ptr<wire::Http2Session> session, int after_ms, std::string path,
                                 std::string body) {
  asio::steady_timer timer(co_await asio::this_coro::executor, std::chrono::milliseconds(after_ms));
  co_await timer.async_wait(asio::use_awaitable);
  std::string method = "POST";
  const auto answer = co_await wire::call(*session, method, path, body);
  std::cerr << "[" << path << ": " << (answer ? *answer : answer.error().describe()) << "]\n";
}

wire::Awaitable<void> abandon(wire::Http2Session& session, std::string head, int after_ms) {
  auto stream = session.open({"POST", "/exec", 0, {}}, false);
  if (!stream) co_return;
  (void)co_await (*stream)->write(with_length(head));
  asio::steady_timer timer(co_await asio::this_coro::executor, std::chrono::milliseconds(after_ms));
  co_await timer.async_wait(asio::use_awaitable);
  (*stream)->reset();
  timer.expires_after(std::chrono::milliseconds(1200));
  co_await timer.async_wait(asio::use_awaitable);
  exit_code = 0;
  session.close();
}

wire::Awaitable<void> drive(std::shared_ptr<wire::Http2Session> session) {
  const auto result = co_await session->run();
  if (!result) std::cerr << "session: " << result.error().describe() << "\n";
}

wire::Awaitable<void> run(std::vector<std::string> words, UniqueFd fd) {
  const auto started = std::chrono::steady_clock::now();
  const auto elapsed = [started] {
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - started).count();
  };
  asio::posix::stream_descriptor port(co_await asio::this_coro::executor, fd.release());
  const auto synced = co_await wire::resync_as_host(port, std::chrono::seconds(60));
  if (!synced) {
    std::cerr << synced.error().describe() << "\n";
    co_return;
  }
  std::cerr << "[synced after " << elapsed() << " ms]\n";
  auto session = wire::Http2Session::client(std::move(port));
  asio::co_spawn(co_await asio::this_coro::executor, drive(session), asio::detached);
  if (words[2] == "call") {
    std::string body;
    if (words.size() > 5) body = words[5];
    const auto answer = co_await wire::call(*session, words.at(3), words.at(4), body);
    std::cout << (answer ? *answer : answer.error().describe()) << std::endl;
    exit_code = answer ? 0 : 1;
    session->close();
  } else if (words[2] == "abandon") {
    co_await abandon(*session, words.at(3), std::stoi(words.at(4)));
  } else {
    const std::string input{std::istreambuf_iterator<char>(std::cin), {}};
    auto head = json::parse(words.at(3));
    if (!head.contains("id")) head["id"] = "probe" + std::to_string(::getpid());
    const std::string id = head["id"];
    left = words.size() > 4 ? std::stoi(words[4]) : 1;
    for (int i = 0, copies = left; i < copies; ++i) {
      if (copies > 1) head["id"] = id + "-" + std::to_string(i);
      asio::co_spawn(co_await asio::this_coro::executor, exec_copy(*session, head.dump(), input), asio::detached);
    }
    if (words.size() > 7) {
      asio::co_spawn(co_await asio::this_coro::executor, post_later(session, std::stoi(words[5]), words[6], words[7]),
                     asio::detached);
    }
    while (left > 0) {
      asio::steady_timer timer(co_await asio::this_coro::executor, std::chrono::milliseconds(20));
      co_await timer.async_wait(asio::use_awaitable);
    }
  }
  std::cerr << "[done after " << elapsed() << " ms]\n";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "usage: sbx-guest-probe SOCKET call|exec|abandon ...\n";
    return 64;
  }
  asio::io_context loop(1);
  asio::co_spawn(loop, run({argv, argv + argc}, connect_to(argv[1])), asio::detached);
  loop.run();
  return exit_code;
}
