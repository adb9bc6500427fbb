// The real sbx-gateway, and beside it what a guest's side does: sessions on its port, and TCP ports on loopback that
// lead through it, so that real clients (curl, git, openssl) can be put in front.
#pragma once

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <future>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "base/command.h"
#include "base/file.h"
#include "gateway/authority.h"
#include "wire/http2_session.h"

namespace sbx::gateway::test {

// "allow"/"deny" rules for a PolicyDocument.
nlohmann::json rule(const std::string& decision, const std::vector<std::string>& resources,
                    const std::vector<std::string>& methods = {}, const std::vector<std::string>& paths = {});

class TestGateway {
 public:
  // Starts, resynchronises and configures it. `trusted` is what it takes for the host's certificate authorities (PEM).
  // kRaw: no session on the port, its bytes are the test's. `agent_fd`, `options` (of its command line): see
  // src/gateway/main.cpp.
  enum class Port { kSession, kRaw };
  TestGateway(std::vector<nlohmann::json> rules, const std::string& trusted,
              nlohmann::json more = nlohmann::json::object(), Port port = Port::kSession, int agent_fd = -1,
              const std::vector<std::string>& options = {});
  ~TestGateway();
  TestGateway(const TestGateway&) = delete;

  // `logins_seen`: which change of a login the configuration knows of.
  Result<std::string> configure(std::vector<nlohmann::json> rules, nlohmann::json more = nlohmann::json::object(),
                                std::uint64_t logins_seen = 0);
  // What GET /logins tells at once: its first `size` bytes.
  std::string logins(std::size_t size);
  // A port on 127.0.0.1; each connection to it is a CONNECT to `authority`.
  std::uint16_t leads_to(const std::string& authority);
  std::uint16_t proxy() { return leads_to("gateway.docker.internal:3128"); }
  // The decisions so far, once there are `at_least` many.
  std::vector<nlohmann::json> log(std::size_t at_least);
  // What the daemon says when it has recorded the lines up to that one.
  Result<std::string> told(const std::string& id);
  nlohmann::json status();
  nlohmann::json status_if_alive();  // null if it ends meanwhile
  // One more daemon that asks for both of what goes on for ever, and is gone before there is anything to tell. How many
  // answers of that kind there were meanwhile.
  int follow_for_a_moment();
  // Answer of POST /dns-query; of many at once.
  std::string dns(const std::string& query);
  std::vector<std::string> dns(const std::vector<std::string>& queries);

  // What the sandbox trusts.
  std::filesystem::path root_file() const { return folder_.path() / "root.pem"; }
  const std::filesystem::path& folder() const { return folder_.path(); }
  const std::shared_ptr<wire::Http2Session>& port() const { return port_; }
  pid_t pid() const { return process_.pid(); }
  // Of the loop that both sessions are on.
  boost::asio::any_io_executor executor() { return io_.get_executor(); }
  // kRaw: the guest's end of the port, after resynchronisation.
  int raw_port() const { return raw_port_.get(); }
  // Whether the gateway has not ended (it may be about to).
  bool running() const;
  // Waits for the gateway to end by itself.
  ExitStatus wait_for_end();

  // Runs a coroutine on the event loop and waits for its value.
  template <typename T>
  T run(boost::asio::awaitable<T> flow);

 private:
  void stop();
  nlohmann::json document(std::vector<nlohmann::json> rules, nlohmann::json more) const;

  TemporaryFolder folder_;
  CertifiedKey root_;
  CertifiedKey intermediate_;
  boost::asio::io_context io_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  Subprocess process_;
  UniqueFd raw_port_;
  std::shared_ptr<wire::Http2Session> port_;
  std::shared_ptr<wire::Http2Session> control_;
  std::thread thread_;
};

}  // namespace sbx::gateway::test

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_future.hpp>

namespace sbx::gateway::test {
template <typename T>
T TestGateway::run(boost::asio::awaitable<T> flow) {
  auto future = boost::asio::co_spawn(io_, std::move(flow), boost::asio::use_future);
  if (future.wait_for(std::chrono::minutes(2)) != std::future_status::ready) {
    std::fprintf(stderr, "a flow of the test hangs\n");
    std::abort();
  }
  return future.get();
}
}  // namespace sbx::gateway::test
