// Real servers for tests: nginx over HTTP/1.1, HTTP/2 and TLS with a certificate of a test's own authority, and a small
// Python server for what nginx does not do.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/command.h"
#include "base/file.h"
#include "gateway/authority.h"

namespace sbx::gateway::test {

// Signs what the gateway takes for public servers.
class PublicAuthority {
 public:
  PublicAuthority();
  const std::string& root() const { return root_.certificate; }
  // A chain and its key for a host, as files in `folder`.
  void write(const std::filesystem::path& folder, const std::string& host) const;

 private:
  CertifiedKey root_;
  CertifiedKey intermediate_;
};

class Nginx {
 public:
  // `servers`: the server blocks. FOLDER in it stands for the folder that holds HOST.pem and HOST.key.
  Nginx(const PublicAuthority& authority, const std::vector<std::string>& hosts, std::string servers);

 private:
  TemporaryFolder folder_;
  Subprocess process_;
};

class PythonServer {
 public:
  // Listens on ADDRESS:PORT, with TLS for `host` if it is not empty.
  PythonServer(const PublicAuthority& authority, const std::string& address, std::uint16_t port,
               const std::string& host);

 private:
  TemporaryFolder folder_;
  Subprocess process_;
};

// What the test network's resolv.conf names (test_name_server.py).
class NameServer {
 public:
  NameServer();
  // "NAME TYPE" of each question so far.
  std::vector<std::string> asked() const;

 private:
  TemporaryFolder folder_;
  Subprocess process_;
};

// Waits until something accepts connections there.
void wait_for_listener(const std::string& address, std::uint16_t port);

// Runs curl with a limit of two minutes; what it prints, or its error.
Result<std::string> curl(std::vector<std::string> arguments);

}  // namespace sbx::gateway::test
