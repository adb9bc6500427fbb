// Published ports: a server in the sandbox, or in a container of it, reached from the host.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <vector>

#include "instance.h"
#include "processes.h"
#include "store/port_store.h"

namespace sbx::test {
namespace {

using nlohmann::json;

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// A connected socket whose reads give up after a while; invalid if nobody listens.
UniqueFd dial(int port, int type = SOCK_STREAM) {
  UniqueFd socket(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
  const timeval patience{60, 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return UniqueFd();
  return socket;
}

std::string read_to_end(int socket) {
  std::string all;
  char buffer[65536];
  for (ssize_t n = 0; (n = ::recv(socket, buffer, sizeof buffer, 0)) > 0;) all.append(buffer, static_cast<size_t>(n));
  return all;
}

// What a server answers to `request`, after which we have nothing more to say.
std::string ask(int port, const std::string& request) {
  const auto socket = dial(port);
  if (!socket.valid() || !write_all(socket.get(), request)) return "";
  ::shutdown(socket.get(), SHUT_WR);
  return read_to_end(socket.get());
}

bool answers(int port) {
  return eventually([&] { return ask(port, "hello") == "hello"; });
}

std::string ask_by_packet(int port, const std::string& request) {
  const auto socket = dial(port, SOCK_DGRAM);
  const timeval patience{1, 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (::send(socket.get(), request.data(), request.size(), 0) < 0) return "";
  std::string answer(65536, '\0');
  const ssize_t n = ::recv(socket.get(), answer.data(), answer.size(), 0);
  answer.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  return answer;
}

// Echoes until the end of the client's direction, over TCP and UDP on one port.
std::string echo_server(int port) {
  return "exec python3 -c '\n"
         "import asyncio, socket\n"
         "async def echo(reader, writer):\n"
         "  try:\n"
         "    while data := await reader.read(65536):\n"
         "      writer.write(data); await writer.drain()\n"
         "  except OSError: pass\n"
         "  writer.close()\n"
         "class Packets(asyncio.DatagramProtocol):\n"
         "  def connection_made(self, transport): self.transport = transport\n"
         "  def datagram_received(self, data, client): self.transport.sendto(data, client)\n"
         "async def main():\n"
         "  server = await asyncio.start_server(echo, \"127.0.0.1\", " +
         std::to_string(port) +
         ", backlog=1000)\n"
         "  await asyncio.get_running_loop().create_datagram_endpoint(Packets, local_addr=(\"127.0.0.1\", " +
         std::to_string(port) +
         "))\n"
         "  await server.serve_forever()\n"
         "asyncio.run(main())'";
}

json ports_of(const Sandbox& sandbox) { return sbx_json({"ports", sandbox.name(), "--json"}); }

int port_of(const Sandbox& sandbox, const std::string& protocol = "tcp") {
  for (const auto& port : ports_of(sandbox)) {
    if (port["protocol"] == protocol) return port["host_port"];
  }
  ADD_FAILURE() << "no port of " << protocol;
  return 0;
}

// One of the loopback that nobody has just now, below those that the kernel gives to whoever wants just any.
int free_port() {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  for (int port = 12'000 + ::getpid() % 15'000; port < 32'000; ++port) {
    const UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return port;
  }
  ADD_FAILURE() << "there is no free port";
  return 0;
}

std::size_t open_files(pid_t pid) {
  std::size_t count = 0;
  std::error_code error;
  for (std::filesystem::directory_iterator fd("/proc/" + std::to_string(pid) + "/fd", error), end; fd != end; ++fd)
    ++count;
  return count;
}

TEST(Ports, AServerInTheSandboxIsReachedOverTcpAndUdpAndThousandsOfConnectionsLeaveNothing) {
  const Sandbox sandbox({"-p", "7000", "--publish", "7000/udp"});
  const int tcp = port_of(sandbox);
  const int udp = port_of(sandbox, "udp");
  EXPECT_EQ(ask(tcp, "early"), "") << "nobody listens yet";
  sandbox.background(echo_server(7000));
  ASSERT_TRUE(answers(tcp));
  EXPECT_TRUE(eventually([&] { return ask_by_packet(udp, "packet") == "packet"; }));
  const std::string large(1'400'000, 'x');
  EXPECT_EQ(ask(tcp, large).size(), large.size()) << "more than any window";
  EXPECT_TRUE(eventually([&] { return ask_by_packet(udp, large.substr(0, 60'000)).size() == 60'000; }));

  const auto entry = sandbox.listed();
  EXPECT_EQ(entry["ports"][0]["host_ip"], "127.0.0.1");
  EXPECT_TRUE(holds(sbx({"ls"}).out, "127.0.0.1:" + std::to_string(tcp) + "->7000/tcp4"));
  EXPECT_EQ(sandbox.inspected()["ports"][0], "127.0.0.1:" + std::to_string(tcp) + "->7000/tcp");

  const pid_t worker = find_in_tree(sandbox.inspected()["keeper_pid"], "sbx-keeper-work");
  ASSERT_GT(worker, 0);
  const auto guest_files = [&] { return std::stol(sandbox.root("ls /proc/1/fd | wc -l").out); };
  const auto guest_before = guest_files();
  const auto files_before = open_files(worker);
  const int in_sequence = full() ? 2000 : 200;
  const std::size_t at_once = full() ? 200 : 60;
  long memory_before = 0;
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < in_sequence; ++i) ASSERT_EQ(ask(tcp, "x"), "x") << i;
    std::vector<UniqueFd> sockets;
    for (std::size_t i = 0; i < at_once; ++i) sockets.push_back(dial(tcp));
    for (const auto& socket : sockets) EXPECT_TRUE(write_all(socket.get(), "y"));
    for (const auto& socket : sockets) {
      ::shutdown(socket.get(), SHUT_WR);
      EXPECT_EQ(read_to_end(socket.get()), "y");
    }
    sockets.clear();
    if (round == 0) memory_before = memory_kib(worker, "RssAnon");
  }
  EXPECT_TRUE(eventually([&] { return open_files(worker) <= files_before; })) << open_files(worker) << files_before;
  EXPECT_TRUE(eventually([&] { return guest_files() <= guest_before; })) << guest_files() << " " << guest_before;
  EXPECT_LT(memory_kib(worker, "RssAnon"), memory_before + 2048) << "KiB after the second round, as after the first";
}

TEST(Ports, AContainersPublishedPortIsReachedFromTheHost) {
  const Sandbox sandbox;
  ASSERT_TRUE(write_file_atomically(sandbox.workspace() / "Dockerfile",
                                    "FROM scratch\nCOPY busybox /bin/busybox\nCOPY www /www\n"
                                    "ENTRYPOINT [\"/bin/busybox\"]\n",
                                    0644));
  const auto run = sandbox.shell(
      "mkdir -p www && echo -n served > www/index.html && cp /bin/busybox . && docker build -q -t box . && "
      "docker run -d -p 8080:80 box httpd -f -p 80 -h /www");
  ASSERT_EQ(run.status, 0) << run.err;
  const auto published = sbx({"ports", sandbox.name(), "--publish", "8080"});
  ASSERT_EQ(published.status, 0) << published.err;
  EXPECT_TRUE(holds(published.out, "Published 127.0.0.1:")) << published.out;
  const int port = port_of(sandbox);
  const bool served = eventually([&] { return holds(ask(port, "GET /index.html HTTP/1.0\r\n\r\n"), "served"); });
  EXPECT_TRUE(served) << ask(port, "GET /index.html HTTP/1.0\r\n\r\n");
}

TEST(Ports, AConflictIsSaidAndNothingIsHalfDone) {
  const Sandbox first({"-p", "7000"});
  const std::string taken = std::to_string(port_of(first));
  const auto refused = sbx({"create", "--name", "t-conflict", "-p", taken + ":80", "shell"});
  EXPECT_EQ(refused.status, 1) << refused.out;
  EXPECT_TRUE(holds(refused.err, "is already published by sandbox '" + first.name() + "'")) << refused.err;
  EXPECT_NE(sbx({"inspect", "t-conflict"}).status, 0) << "creation failed";

  const Sandbox second;
  const auto half = sbx({"ports", second.name(), "--publish", "7001", "--publish", taken + ":80", "--json"});
  EXPECT_EQ(half.status, 1);
  EXPECT_EQ(json::parse(half.err.substr(half.err.find('{')))["error"]["code"], "conflict") << half.err;
  EXPECT_EQ(sbx({"ports", second.name()}).out, "No published ports\n");
  const auto again = sbx({"ports", first.name(), "--publish", taken + ":80"});
  EXPECT_TRUE(holds(again.err, "port 127.0.0.1:" + taken + "/tcp is already published")) << again.err;

  const auto withdrawn = sbx({"ports", first.name(), "--unpublish", "7000"});
  EXPECT_EQ(withdrawn.out, "Unpublished 127.0.0.1:" + taken + " -> 7000/tcp\n") << withdrawn.err;
  EXPECT_FALSE(dial(std::stoi(taken)).valid()) << "it still listens";
  const auto moved = sbx({"ports", second.name(), "--publish", taken + ":80"});
  EXPECT_EQ(moved.out, "Published 127.0.0.1:" + taken + " -> 80/tcp\n") << moved.err;
}

TEST(Ports, AreThereAfterStopAndStartAndAfterADaemonsDeathAndKeepTheSandboxAwake) {
  Sandbox sandbox({"-p", "7000"});
  const int port = port_of(sandbox);
  sandbox.background(echo_server(7000));
  ASSERT_TRUE(answers(port));
  const auto id = sandbox.listed()["id"].get<std::string>();
  ASSERT_TRUE(kill_now(daemon_pid()));
  EXPECT_EQ(ask(port, "without a daemon"), "without a daemon");
  // Another one, that the daemon had stored and died before it was handed over.
  const int cut = free_port();
  {
    auto database = store::Database::open(home() / "store.db").value();
    store::PortStore store(database);
    auto stored = store.of(id).value();
    auto more = stored.at(0);
    more.host_port = cut;
    stored.push_back(more);
    ASSERT_TRUE(store.set(id, stored));
  }
  const auto adopted = ports_of(sandbox);
  EXPECT_EQ(adopted.size(), 2U);
  for (const auto& entry : adopted) EXPECT_TRUE(entry.value("listening", false)) << "the next daemon: " << entry;
  EXPECT_EQ(ask(port, "as before"), "as before");
  EXPECT_EQ(ask(cut, "bound again"), "bound again");
  ASSERT_EQ(sbx({"ports", sandbox.name(), "--unpublish", std::to_string(cut) + ":7000"}).status, 0);

  ASSERT_EQ(sbx({"stop", sandbox.name()}).status, 0);
  EXPECT_FALSE(dial(port).valid()) << "a stopped sandbox holds its port";
  EXPECT_FALSE(sandbox.listed().contains("ports"));
  EXPECT_EQ(ports_of(sandbox)[0]["host_port"], port);
  const auto started = sandbox.shell("true");
  EXPECT_EQ(started.status, 0) << started.err;
  EXPECT_EQ(port_of(sandbox), port) << "nobody has taken it meanwhile";
  EXPECT_TRUE(dial(port).valid());

  EXPECT_TRUE(stays([&] { return !sandbox.inspected().value("parked", false); }, std::chrono::seconds(4)));
}

TEST(Ports, OneThatIsTakenAtTheStartIsWarnedOf) {
  Sandbox sandbox;
  const std::string port = std::to_string(free_port());
  ASSERT_EQ(sbx({"ports", sandbox.name(), "--publish", port + ":80"}).status, 0);
  ASSERT_EQ(sbx({"stop", sandbox.name()}).status, 0);
  UniqueFd squatter(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  ::setsockopt(squatter.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(port)));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::bind(squatter.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(squatter.get(), 1), 0);
  const auto started = sandbox.shell("echo runs");
  EXPECT_EQ(started.out, "runs\n");
  EXPECT_TRUE(holds(started.err, "WARNING: publish port: port 127.0.0.1:" + port + "/tcp is in use")) << started.err;
  EXPECT_FALSE(ports_of(sandbox)[0].value("listening", true));
  squatter.reset();
  EXPECT_EQ(sbx({"ports", sandbox.name(), "--publish", port + ":80"}).status, 0) << "once it is free it can be had";
  EXPECT_TRUE(ports_of(sandbox)[0].value("listening", false));
}

}  // namespace
}  // namespace sbx::test
