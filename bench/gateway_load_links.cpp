#include "gateway_load_links.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unordered_map>

#include "wire/resync.h"

namespace sbx::bench {

void give_up(const std::string& why) {
  std::fprintf(stderr, "gateway_load: %s\n", why.c_str());
  std::exit(1);
}

// --- events ---

struct Loop::Batch {
  std::array<epoll_event, 256> events;
  int count = 0;
};

Loop::Loop() : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
  if (!epoll_.valid()) give_up("epoll_create1");
}

void Loop::watch(int fd, std::uint32_t events, Watched* watched, bool change) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = watched;
  if (::epoll_ctl(epoll_.get(), change ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) != 0) give_up("epoll_ctl");
}

void Loop::run_once() {
  Batch batch;
  do {
    batch.count = ::epoll_wait(epoll_.get(), batch.events.data(), static_cast<int>(batch.events.size()), 60'000);
  } while (batch.count < 0 && errno == EINTR);
  if (batch.count <= 0) give_up("nothing happened for a minute");
  batch_ = &batch;
  for (int i = 0; i < batch.count; ++i) {
    const auto& event = batch.events[static_cast<std::size_t>(i)];
    if (event.data.ptr != nullptr) static_cast<Watched*>(event.data.ptr)->ready(event.events);
  }
  batch_ = nullptr;
}

void Loop::forget(Watched* watched) {
  if (batch_ == nullptr) return;
  for (auto& event : batch_->events) {
    if (event.data.ptr == watched) event.data.ptr = nullptr;
  }
}

namespace {

constexpr std::size_t kBuffer = 256U << 10U;

std::array<char, kBuffer>& scratch() {
  static std::array<char, kBuffer> buffer;
  return buffer;
}

// --- TCP ---

class TcpLink final : public Link, public Watched {
 public:
  TcpLink(Loop& loop, const sockaddr_in& address, std::string greeting) : loop_(loop), greeting_(std::move(greeting)) {
    fd_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int on = 1;
    ::setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 &&
        errno != EINPROGRESS) {
      give_up(std::string("connect: ") + std::strerror(errno));
    }
    loop_.watch(fd_.get(), EPOLLOUT, this);
  }
  ~TcpLink() override { loop_.forget(this); }

  void send(std::string_view data) override {
    if (::send(fd_.get(), data.data(), data.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(data.size())) {
      give_up("a request of a few hundred bytes cannot be sent");
    }
  }

  void ready(std::uint32_t events) override {
    if (!connected_) {
      int error = 0;
      socklen_t size = sizeof(error);
      ::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
      if (error != 0) give_up(std::string("connect: ") + std::strerror(error));
      if ((events & EPOLLOUT) == 0) return;
      connected_ = true;
      loop_.watch(fd_.get(), EPOLLIN, this, true);
      if (greeting_.empty()) return opened();
      return send(greeting_);
    }
    const auto n = ::recv(fd_.get(), scratch().data(), scratch().size(), 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) give_up(std::string("recv: ") + std::strerror(errno));
    const std::string_view data(scratch().data(), static_cast<std::size_t>(n));
    if (greeting_.empty()) return received(data);
    answer_ += data;
    if (n == 0) give_up("the proxy closed the connection: " + answer_);
    if (!answer_.ends_with("\r\n\r\n")) return;
    if (!answer_.starts_with("HTTP/1.1 200") && !answer_.starts_with("HTTP/1.0 200")) give_up("the proxy: " + answer_);
    greeting_.clear();
    opened();
  }

 private:
  Loop& loop_;
  UniqueFd fd_;
  std::string greeting_;
  std::string answer_;
  bool connected_ = false;
};

class TcpLinks final : public Links {
 public:
  TcpLinks(Loop& loop, const std::string& address, const std::string& connect) : loop_(loop) {
    const auto colon = address.rfind(':');
    std::uint16_t port = 0;
    if (colon == std::string::npos) give_up(address + " is not ADDRESS:PORT");
    std::from_chars(address.data() + colon + 1, address.data() + address.size(), port);
    address_.sin_family = AF_INET;
    address_.sin_port = htons(port);
    if (::inet_pton(AF_INET, address.substr(0, colon).c_str(), &address_.sin_addr) != 1) give_up("bad " + address);
    if (!connect.empty()) greeting_ = "CONNECT " + connect + " HTTP/1.1\r\nHost: " + connect + "\r\n\r\n";
  }
  std::unique_ptr<Link> open() override { return std::make_unique<TcpLink>(loop_, address_, greeting_); }

 private:
  Loop& loop_;
  sockaddr_in address_{};
  std::string greeting_;
};

// --- the network port: HTTP/2 (RFC 9113), as sbx-guest speaks it, its windows included ---

constexpr std::uint32_t kStreamWindow = 256U << 10U;
constexpr std::uint32_t kMaxFrame = 256U << 10U;

void put32(std::string& out, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> static_cast<unsigned>(shift)));
}

std::uint32_t get32(const char* at) {
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value = value << 8U | static_cast<unsigned char>(at[i]);
  return value;
}

class GuestLink;

class GuestLinks final : public Links, public Watched {
 public:
  GuestLinks(Loop& loop, UniqueFd port, const std::string& connect) : loop_(loop), port_(std::move(port)) {
    ::fcntl(port_.get(), F_SETFL, ::fcntl(port_.get(), F_GETFL) & ~O_NONBLOCK);
    resynchronise();
    // HPACK without a table (RFC 7541 section 6.2.2): :method CONNECT, :authority.
    head_ = std::string("\x02\x07") + "CONNECT" + '\x01' + static_cast<char>(connect.size()) + connect;
    out_ = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    std::string settings;
    for (const auto& [id, value] : {std::pair{4U, kStreamWindow}, {5U, kMaxFrame}}) {
      settings += std::string(1, '\0') + static_cast<char>(id);
      put32(settings, value);
    }
    frame(4, 0, 0, settings);
    credit(0, 0x7fffffffU - 65535U);
    ::fcntl(port_.get(), F_SETFL, ::fcntl(port_.get(), F_GETFL) | O_NONBLOCK);
    loop_.watch(port_.get(), EPOLLIN, this);
  }

  std::unique_ptr<Link> open() override;
  void flush() override {
    while (!out_.empty()) {
      const auto n = ::send(port_.get(), out_.data(), out_.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EAGAIN) break;
      if (n < 0) give_up("the gateway closed its port");
      out_.erase(0, static_cast<std::size_t>(n));
    }
    if (waiting_ != !out_.empty()) {
      waiting_ = !out_.empty();
      loop_.watch(port_.get(), waiting_ ? EPOLLIN | EPOLLOUT : EPOLLIN, this, true);
    }
  }

  void ready(std::uint32_t events) override {
    if ((events & ~static_cast<std::uint32_t>(EPOLLOUT)) == 0) return;
    const auto n = ::recv(port_.get(), scratch().data(), scratch().size(), 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) give_up("the gateway closed its port");
    feed({scratch().data(), static_cast<std::size_t>(n)});
  }

  void frame(unsigned type, unsigned flags, std::uint32_t stream, std::string_view payload) {
    out_.push_back(static_cast<char>(payload.size() >> 16U));
    out_.push_back(static_cast<char>(payload.size() >> 8U));
    out_.push_back(static_cast<char>(payload.size()));
    out_.push_back(static_cast<char>(type));
    out_.push_back(static_cast<char>(flags));
    put32(out_, stream);
    out_ += payload;
  }
  void close(std::uint32_t stream) {
    streams_.erase(stream);
    frame(0, 1, stream, "");
  }

 private:
  void resynchronise() {
    wire::ResyncScanner scanner(wire::kResyncMagic);
    for (;;) {
      std::array<char, 24> buffer;
      const auto n = ::recv(port_.get(), buffer.data(), scanner.needed(), 0);
      if (n <= 0) give_up("the gateway does not resynchronise");
      std::string_view input(buffer.data(), static_cast<std::size_t>(n));
      const auto nonce = scanner.feed(input);
      if (!nonce) continue;
      const auto echo = std::string(wire::kResyncEchoMagic) + std::string(nonce->data(), nonce->size());
      if (::send(port_.get(), echo.data(), echo.size(), MSG_NOSIGNAL) < 0) give_up("resynchronising");
      return;
    }
  }

  void credit(std::uint32_t stream, std::uint32_t n) {
    std::string payload;
    put32(payload, n);
    frame(8, 0, stream, payload);
  }

  // The bytes of DATA are handed on as they come; every other frame is gathered first.
  void feed(std::string_view input) {
    while (!input.empty()) {
      if (left_ > 0 && type_ == 0) {
        const auto piece = input.substr(0, left_);
        input.remove_prefix(piece.size());
        left_ -= static_cast<std::uint32_t>(piece.size());
        data(piece);
        continue;
      }
      const std::size_t want = in_frame_ ? left_ : 9;
      const auto piece = input.substr(0, want - gathered_.size());
      gathered_ += piece;
      input.remove_prefix(piece.size());
      if (gathered_.size() < want) return;
      if (!in_frame_) {
        left_ = get32(gathered_.data()) >> 8U;
        type_ = static_cast<unsigned char>(gathered_[3]);
        flags_ = static_cast<unsigned char>(gathered_[4]);
        stream_ = get32(gathered_.data() + 5) & 0x7fffffffU;
        gathered_.clear();
        in_frame_ = type_ != 0;
        if (type_ != 0 && left_ > 0) continue;
        if (type_ == 0 && left_ > 0) continue;
        if (type_ == 0) data("");
      }
      if (in_frame_) control();
      in_frame_ = false;
      left_ = 0;
      gathered_.clear();
    }
  }

  void data(std::string_view piece);
  void control();

  friend class GuestLink;
  Loop& loop_;
  UniqueFd port_;
  std::string head_;
  std::string out_;
  bool waiting_ = false;
  std::uint32_t next_ = 1;
  std::unordered_map<std::uint32_t, GuestLink*> streams_;
  std::uint32_t unseen_ = 0;  // of the session's window
  // The frame that is being read.
  bool in_frame_ = false;
  std::uint32_t left_ = 0;
  unsigned type_ = 255;
  unsigned flags_ = 0;
  std::uint32_t stream_ = 0;
  std::string gathered_;
};

class GuestLink final : public Link {
 public:
  GuestLink(GuestLinks& links, std::uint32_t id) : links_(links), id_(id) {}
  ~GuestLink() override { links_.close(id_); }
  void send(std::string_view data) override { links_.frame(0, 0, id_, data); }

  std::uint32_t unseen = 0;

 private:
  GuestLinks& links_;
  std::uint32_t id_;
};

std::unique_ptr<Link> GuestLinks::open() {
  auto link = std::make_unique<GuestLink>(*this, next_);
  streams_[next_] = link.get();
  frame(1, 4, next_, head_);
  next_ += 2;
  return link;
}

void GuestLinks::data(std::string_view piece) {
  unseen_ += static_cast<std::uint32_t>(piece.size());
  if (unseen_ > 1U << 30U) credit(0, std::exchange(unseen_, 0));
  const auto found = streams_.find(stream_);
  if (found == streams_.end()) return;
  auto* link = found->second;
  link->unseen += static_cast<std::uint32_t>(piece.size());
  if (link->unseen >= kStreamWindow / 2) credit(stream_, std::exchange(link->unseen, 0));
  if (!piece.empty()) link->received(piece);
  const auto still = streams_.find(stream_);
  if (still != streams_.end() && left_ == 0 && (flags_ & 1U) != 0) still->second->received("");
}

void GuestLinks::control() {
  if (type_ == 4 && (flags_ & 1U) == 0) return frame(4, 1, 0, "");
  if (type_ == 6 && (flags_ & 1U) == 0) return frame(6, 1, 0, gathered_);
  if (type_ == 7) give_up("the gateway ends the session");
  const auto found = streams_.find(stream_);
  if (found == streams_.end()) return;
  if (type_ == 3) give_up("the gateway reset a stream");
  // :status 200 is one byte (RFC 7541 appendix A).
  if (type_ != 1) return;
  if (!gathered_.starts_with('\x88')) give_up("the gateway refused to connect");
  found->second->opened();
}

}  // namespace

std::unique_ptr<Links> tcp_links(Loop& loop, const std::string& address, const std::string& connect) {
  return std::make_unique<TcpLinks>(loop, address, connect);
}

std::unique_ptr<Links> guest_links(Loop& loop, UniqueFd port, const std::string& connect) {
  return std::make_unique<GuestLinks>(loop, std::move(port), connect);
}

}  // namespace sbx::bench
