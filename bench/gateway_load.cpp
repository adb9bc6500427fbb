// The client of bench/gateway: HTTPS requests over many connections, from one thread that costs little.
//
//   gateway_load VIA --host NAME:PORT --trust PEM MODE
//   VIA   --direct ADDRESS:PORT | --proxy ADDRESS:PORT (CONNECT) | --port-fd N (the guest's end of a network port)
//   MODE  rps      keep-alive requests on --connections for --seconds
//         setup    a new connection for each request
//         latency  --rate requests a second, sent when they are due whatever has been answered (no coordinated
//         omission) download one body of --bytes from --path; the TLS records are counted, not decrypted hold
//         --connections that have asked once; a line on stdin makes them ask all the time, the next one ends it
//
// Prints one line of JSON at the end; hold prints "idle" and "active" when it is so.
#include <fcntl.h>
#include <getopt.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <vector>

#include "gateway_load_links.h"

namespace sbx::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::string mode, direct, proxy, host, trust, path = "/";
  int port_fd = -1;
  std::size_t connections = 32;
  double seconds = 2;
  double rate = 1000;
  std::uint64_t bytes = 0;
};

class Load;

// One HTTPS connection. It asks again only when told to.
class Client {
 public:
  Client(Load& load, std::size_t number) : load_(load), number_(number) {}
  ~Client() { SSL_free(ssl_); }
  void connect();
  void ask(Clock::time_point due);
  std::size_t number() const { return number_; }
  bool connected() const { return shaken_; }

 private:
  void received(std::string_view data);
  void shake();
  void flush();
  void read_response();
  void count_records(std::string_view data);

  Load& load_;
  std::size_t number_;
  std::unique_ptr<Link> link_;
  SSL* ssl_ = nullptr;
  bool shaken_ = false;
  std::string response_;
  Clock::time_point due_;
  // Download: what is left of the record at hand, and its header so far.
  bool counting_ = false;
  std::string record_head_;
  std::size_t record_left_ = 0;
  std::uint64_t counted_ = 0;
};

class Load : public Watched {
 public:
  explicit Load(Options options);
  void run();
  void ready(std::uint32_t) override;  // the timer or stdin
  void connected(Client& client);
  void answered(Client& client, Clock::time_point due);
  void downloaded() { finish(); }

  SSL_CTX* context() { return context_; }
  Links& links() { return *links_; }
  const Options& options() const { return options_; }
  const std::string& request() const { return request_; }
  const std::string& name() const { return name_; }
  // A link must not end while it tells of something.
  void bury(std::unique_ptr<Link> link) { buried_.push_back(std::move(link)); }

 private:
  void begin();
  void finish() { finished_ = true; }

  Options options_;
  Loop loop_;
  SSL_CTX* context_;
  std::unique_ptr<Links> links_;
  std::string name_;
  std::string request_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::vector<std::unique_ptr<Link>> buried_;
  UniqueFd timer_;
  std::size_t ready_ = 0;
  bool measuring_ = false;
  bool asking_ = false;  // hold: all the time
  bool finished_ = false;
  Clock::time_point began_;
  Clock::time_point until_;
  std::uint64_t count_ = 0;
  std::uint64_t sent_ = 0;
  std::deque<Client*> free_;
  std::deque<Clock::time_point> late_;
  std::vector<double> latencies_;
};

// --- client ---

void Client::connect() {
  if (link_) load_.bury(std::move(link_));
  SSL_free(ssl_);
  ssl_ = SSL_new(load_.context());
  SSL_set_bio(ssl_, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
  SSL_set_connect_state(ssl_);
  if (SSL_set_tlsext_host_name(ssl_, load_.name().c_str()) != 1 || SSL_set1_host(ssl_, load_.name().c_str()) != 1) {
    give_up("TLS");
  }
  shaken_ = false;
  link_ = load_.links().open();
  // A link that was given up may still tell something.
  link_->opened = [this, link = link_.get()] {
    if (link == link_.get()) shake();
  };
  link_->received = [this, link = link_.get()](std::string_view data) {
    if (link == link_.get()) received(data);
  };
}

void Client::flush() {
  BIO* out = SSL_get_wbio(ssl_);
  const auto size = BIO_ctrl_pending(out);
  if (size == 0) return;
  std::string bytes(size, '\0');
  BIO_read(out, bytes.data(), static_cast<int>(size));
  link_->send(bytes);
}

void Client::shake() {
  const int rc = SSL_do_handshake(ssl_);
  if (rc != 1 && SSL_get_error(ssl_, rc) != SSL_ERROR_WANT_READ) {
    give_up(std::string("TLS handshake: ") + ERR_reason_error_string(ERR_peek_error()));
  }
  if (rc != 1) return flush();
  // The last flight leaves with the request: apart from it a server's tickets would wait for a delayed ACK (Nagle).
  shaken_ = true;
  load_.connected(*this);
}

void Client::ask(Clock::time_point due) {
  due_ = due;
  const auto& request = load_.request();
  if (SSL_write(ssl_, request.data(), static_cast<int>(request.size())) <= 0) give_up("TLS cannot write");
  flush();
  counting_ = load_.options().mode == "download";
}

void Client::received(std::string_view data) {
  if (data.empty()) give_up("a connection was closed");
  if (counting_) return count_records(data);
  BIO_write(SSL_get_rbio(ssl_), data.data(), static_cast<int>(data.size()));
  if (!shaken_) return shake();
  std::array<char, 16384> buffer;
  for (int n = 0; (n = SSL_read(ssl_, buffer.data(), buffer.size())) > 0;) {
    response_.append(buffer.data(), static_cast<std::size_t>(n));
  }
  read_response();
}

void Client::read_response() {
  const auto end = response_.find("\r\n\r\n");
  if (end == std::string::npos) return;
  if (!response_.starts_with("HTTP/1.1 200")) give_up("not answered with 200: " + response_.substr(0, 600));
  auto head = response_.substr(0, end);
  std::ranges::transform(head, head.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  const auto length = head.find("content-length: ");
  std::size_t size = end + 4;
  if (length != std::string::npos) {
    size += std::strtoul(head.c_str() + length + 16, nullptr, 10);
    if (response_.size() < size) return;
  } else {
    if (head.find("transfer-encoding: chunked") == std::string::npos) give_up("a body without a length");
    const auto last = response_.find("0\r\n\r\n", size);
    if (last == std::string::npos) return;
  }
  response_.clear();
  load_.answered(*this, due_);
}

// TLS 1.3 and 1.2 with AES-GCM: 17 or 24 bytes of each record are not data. Heads and tickets are a few hundred bytes.
void Client::count_records(std::string_view data) {
  while (!data.empty()) {
    if (record_left_ == 0) {
      const auto piece = data.substr(0, 5 - record_head_.size());
      record_head_ += piece;
      data.remove_prefix(piece.size());
      if (record_head_.size() < 5) return;
      record_left_ = static_cast<unsigned char>(record_head_[3]) * 256U + static_cast<unsigned char>(record_head_[4]);
      if (record_head_[0] == 23 && record_left_ > 17) counted_ += record_left_ - 17;
      record_head_.clear();
    }
    const auto n = std::min(record_left_, data.size());
    record_left_ -= n;
    data.remove_prefix(n);
  }
  if (record_left_ == 0 && counted_ >= load_.options().bytes) load_.downloaded();
}

// --- load ---

Load::Load(Options options) : options_(std::move(options)), context_(SSL_CTX_new(TLS_client_method())) {
  const auto& o = options_;
  if (SSL_CTX_load_verify_file(context_, o.trust.c_str()) != 1) give_up("cannot read " + o.trust);
  SSL_CTX_set_verify(context_, SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_session_cache_mode(context_, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_ciphersuites(context_, "TLS_AES_128_GCM_SHA256");
  name_ = o.host.substr(0, o.host.rfind(':'));
  request_ = "GET " + o.path + " HTTP/1.1\r\nHost: " + name_ + "\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n";
  if (!o.direct.empty()) {
    links_ = tcp_links(loop_, o.direct, "");
  } else if (!o.proxy.empty()) {
    links_ = tcp_links(loop_, o.proxy, o.host);
  } else {
    links_ = guest_links(loop_, UniqueFd(o.port_fd), o.host);
  }
  for (std::size_t i = 0; i < o.connections; ++i) clients_.push_back(std::make_unique<Client>(*this, i));
}

void Load::run() {
  // A few at a time: a listener's backlog has an end.
  for (std::size_t i = 0; i < std::min<std::size_t>(32, clients_.size()); ++i) clients_[i]->connect();
  while (!finished_) {
    links_->flush();
    loop_.run_once();
    buried_.clear();
    if (measuring_ && options_.mode != "latency" && options_.mode != "hold" && options_.mode != "download" &&
        Clock::now() >= until_) {
      finish();
    }
  }
  const double took = std::chrono::duration<double>(Clock::now() - began_).count();
  if (options_.mode == "latency") {
    std::ranges::sort(latencies_);
    const auto at = [&](double q) { return latencies_[static_cast<std::size_t>(q * (latencies_.size() - 1))]; };
    std::printf("{\"n\":%zu,\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f}\n", latencies_.size(), at(0.5), at(0.99),
                at(1));
  } else if (options_.mode == "download") {
    std::printf("{\"bytes\":%llu,\"seconds\":%.6f}\n", static_cast<unsigned long long>(options_.bytes), took);
  } else {
    std::printf("{\"count\":%llu,\"seconds\":%.6f}\n", static_cast<unsigned long long>(count_), took);
  }
  std::fflush(nullptr);
  std::_Exit(0);
}

void Load::begin() {
  measuring_ = true;
  count_ = 0;
  began_ = Clock::now();
  until_ = began_ + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(options_.seconds));
  if (options_.mode == "hold") {
    std::puts("idle");
    std::fflush(stdout);
    ::fcntl(0, F_SETFL, ::fcntl(0, F_GETFL) | O_NONBLOCK);
    loop_.watch(0, EPOLLIN, this);
  } else if (options_.mode == "latency") {
    for (auto& client : clients_) free_.push_back(client.get());
    timer_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    const long period = static_cast<long>(1e9 / options_.rate);
    const itimerspec every{{0, period}, {0, period}};
    ::timerfd_settime(timer_.get(), 0, &every, nullptr);
    began_ = Clock::now();
    loop_.watch(timer_.get(), EPOLLIN, this);
  } else {
    for (auto& client : clients_) options_.mode == "setup" ? client->connect() : client->ask(Clock::now());
  }
}

void Load::ready(std::uint32_t) {
  if (options_.mode == "hold") {
    std::array<char, 64> line;
    if (::read(0, line.data(), line.size()) <= 0 || asking_) return finish();
    asking_ = true;
    for (auto& client : clients_) client->ask(Clock::now());
    std::puts("active");
    std::fflush(stdout);
    return;
  }
  std::uint64_t due = 0;
  if (::read(timer_.get(), &due, sizeof(due)) != sizeof(due)) return;
  const std::chrono::duration<double> period(1 / options_.rate);
  for (; due > 0; --due) {
    const auto at = began_ + std::chrono::duration_cast<Clock::duration>(period * static_cast<double>(++sent_));
    if (at >= until_) {
      if (free_.size() == clients_.size()) finish();
      return;
    }
    if (free_.empty()) {
      late_.push_back(at);
    } else {
      auto* client = free_.front();
      free_.pop_front();
      client->ask(at);
    }
  }
}

void Load::connected(Client& client) {
  if (options_.mode == "setup" && measuring_) return client.ask(Clock::now());
  ++ready_;
  if (const auto next = client.number() + 32; next < clients_.size()) clients_[next]->connect();
  if (options_.mode == "download") {
    begin();
  } else {
    client.ask(Clock::now());  // the first request of a connection is not measured
  }
}

void Load::answered(Client& client, Clock::time_point due) {
  if (!measuring_) {
    if (++count_ == clients_.size() && ready_ == clients_.size()) begin();
    return;
  }
  ++count_;
  if (options_.mode == "rps" || (options_.mode == "hold" && asking_)) return client.ask(Clock::now());
  if (options_.mode == "setup") return client.connect();
  if (options_.mode != "latency") return;
  latencies_.push_back(std::chrono::duration<double, std::micro>(Clock::now() - due).count());
  if (!late_.empty()) {
    const auto at = late_.front();
    late_.pop_front();
    return client.ask(at);
  }
  free_.push_back(&client);
}

Options parse(int argc, char** argv) {
  Options options;
  const std::map<std::string, std::function<void(const char*)>> known{
      {"--direct", [&](const char* text) { options.direct = text; }},
      {"--proxy", [&](const char* text) { options.proxy = text; }},
      {"--port-fd", [&](const char* text) { options.port_fd = std::atoi(text); }},
      {"--host", [&](const char* text) { options.host = text; }},
      {"--trust", [&](const char* text) { options.trust = text; }},
      {"--path", [&](const char* text) { options.path = text; }},
      {"--connections", [&](const char* text) { options.connections = std::strtoul(text, nullptr, 10); }},
      {"--seconds", [&](const char* text) { options.seconds = std::strtod(text, nullptr); }},
      {"--rate", [&](const char* text) { options.rate = std::strtod(text, nullptr); }},
      {"--bytes", [&](const char* text) { options.bytes = std::strtoull(text, nullptr, 10); }}};
  for (int i = 1; i < argc; ++i) {
    const auto found = known.find(argv[i]);
    if (found == known.end()) {
      options.mode = argv[i];
    } else if (i + 1 == argc) {
      give_up(std::string(argv[i]) + " needs a value");
    } else {
      found->second(argv[++i]);
    }
  }
  const bool via = !options.direct.empty() || !options.proxy.empty() || options.port_fd >= 0;
  constexpr std::array kModes{"rps", "setup", "latency", "download", "hold"};
  if (!via || options.host.empty() || options.trust.empty() || options.connections == 0 ||
      std::ranges::find(kModes, options.mode) == kModes.end()) {
    give_up("see the comment in bench/gateway_load.cpp");
  }
  if (options.mode == "download") options.connections = 1;
  return options;
}

}  // namespace
}  // namespace sbx::bench

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  sbx::bench::Load load(sbx::bench::parse(argc, argv));
  load.run();
}
