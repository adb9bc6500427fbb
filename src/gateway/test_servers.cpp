#include "gateway/test_servers.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <openssl/pem.h>
#include <poll.h>
#include <sys/socket.h>

#include <chrono>
#include <sstream>
#include <thread>

namespace sbx::gateway::test {

namespace {

std::string pem_of(X509* certificate) {
  BIO* out = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(out, certificate);
  char* data = nullptr;
  const auto size = BIO_get_mem_data(out, &data);
  std::string pem(data, static_cast<std::size_t>(size));
  BIO_free(out);
  return pem;
}

std::string pem_of(EVP_PKEY* key) {
  BIO* out = BIO_new(BIO_s_mem());
  PEM_write_bio_PrivateKey(out, key, nullptr, nullptr, 0, nullptr, nullptr);
  char* data = nullptr;
  const auto size = BIO_get_mem_data(out, &data);
  std::string pem(data, static_cast<std::size_t>(size));
  BIO_free(out);
  return pem;
}

}  // namespace

PublicAuthority::PublicAuthority()
    : root_(make_root("a public authority").value()),
      intermediate_(make_intermediate(root_, "its issuer", std::chrono::hours(1)).value()) {}

void PublicAuthority::write(const std::filesystem::path& folder, const std::string& host) const {
  const auto issuer = Issuer::make(intermediate_).value();
  const auto leaf = issuer.issue(host).value();
  EXPECT_TRUE(write_file_atomically(folder / (host + ".pem"), pem_of(leaf.get()) + intermediate_.certificate));
  EXPECT_TRUE(write_file_atomically(folder / (host + ".key"), pem_of(issuer.leaf_key())));
}

void wait_for_listener(const std::string& address, std::uint16_t port) {
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_port = htons(port);
  ASSERT_EQ(::inet_pton(AF_INET, address.c_str(), &in.sin_addr), 1);
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  for (;;) {
    const UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&in), sizeof(in)) == 0) return;
    ASSERT_LT(std::chrono::steady_clock::now(), until) << address << ":" << port << " never listens";
    std::this_thread::sleep_for(std::chrono::milliseconds(10));  // a listener gives no event
  }
}

Nginx::Nginx(const PublicAuthority& authority, const std::vector<std::string>& hosts, std::string servers)
    : folder_(TemporaryFolder::make("sbx-nginx").value()) {
  const auto folder = folder_.path().string();
  for (const auto& host : hosts) authority.write(folder_.path(), host);
  for (auto at = servers.find("FOLDER"); at != std::string::npos; at = servers.find("FOLDER")) {
    servers.replace(at, 6, folder);
  }
  std::string config = "daemon off; master_process off; user root; pid " + folder + "/pid; error_log stderr warn;\n" +
                       "events { worker_connections 512; }\nhttp { access_log off; default_type text/plain;\n";
  for (const auto* kind : {"client_body", "proxy", "fastcgi", "uwsgi", "scgi"}) {
    config += std::string(kind) + "_temp_path " + folder + "/" + kind + ";\n";
  }
  config += "server { listen 127.0.0.1:8079; return 204; }\n" + servers + "}\n";
  EXPECT_TRUE(write_file_atomically(folder_.path() / "nginx.conf", config));
  auto started = Command({"/usr/sbin/nginx", "-e", "stderr", "-p", folder, "-c", folder + "/nginx.conf"})
                     .die_with_parent()
                     .start();
  EXPECT_TRUE(started) << started.error().describe();
  process_ = std::move(*started);
  wait_for_listener("127.0.0.1", 8079);
}

PythonServer::PythonServer(const PublicAuthority& authority, const std::string& address, std::uint16_t port,
                           const std::string& host)
    : folder_(TemporaryFolder::make("sbx-python").value()) {
  std::vector<std::string> argv{"/usr/bin/python3", SBX_TEST_SERVER, address, std::to_string(port)};
  if (!host.empty()) {
    authority.write(folder_.path(), host);
    argv.push_back(folder_.path() / (host + ".pem"));
    argv.push_back(folder_.path() / (host + ".key"));
  }
  auto started = Command(argv).die_with_parent().start();
  EXPECT_TRUE(started) << started.error().describe();
  process_ = std::move(*started);
  wait_for_listener(address, port);
}

NameServer::NameServer() : folder_(TemporaryFolder::make("sbx-names").value()) {
  auto started = Command({"/usr/bin/python3", SBX_TEST_NAME_SERVER, "127.0.0.53", (folder_.path() / "log").string()})
                     .die_with_parent()
                     .start();
  EXPECT_TRUE(started) << started.error().describe();
  process_ = std::move(*started);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  const auto ready = [&] { return !read_file(folder_.path() / "log").value_or("").empty(); };
  while (!ready() && std::chrono::steady_clock::now() < deadline) ::poll(nullptr, 0, 20);
  EXPECT_TRUE(ready()) << "the name server does not start";
}

std::vector<std::string> NameServer::asked() const {
  std::istringstream log(read_file(folder_.path() / "log").value_or(""));
  std::vector<std::string> lines;
  for (std::string line; std::getline(log, line);) lines.push_back(line);
  lines.erase(lines.begin());  // "ready"
  return lines;
}

Result<std::string> curl(std::vector<std::string> arguments) {
  std::vector<std::string> argv{"/usr/bin/curl", "-sS", "--max-time", "120", "--noproxy", ""};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return Command(std::move(argv)).output();
}

}  // namespace sbx::gateway::test
