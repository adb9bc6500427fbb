#include "guest/resolver.h"

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>

namespace sbx::guest {
namespace {

using namespace std::chrono_literals;

constexpr std::uint32_t kTtl = 30;        // of what is handed out: it never changes, but a name may cease to exist
constexpr auto kConfirmedFor = 30'000ms;  // an answer may come from memory for as long
constexpr std::size_t kMaxConfirmed = 16'384;
constexpr int kMaxInFlight = 512;
constexpr int kMaxConnections = 128;
constexpr auto kIdleConnection = 10'000ms;

std::string address_bytes(std::uint32_t address) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(address >> static_cast<unsigned>(shift));
  return bytes;
}

std::string own_address(const DnsQuery& query, std::uint32_t address) {
  std::vector<DnsRecord> records;
  records.push_back({kDnsA, kTtl, address_bytes(address)});
  return dns_answer(query, DnsCode::kNoError, records);
}

bool is_localhost(std::string_view name) { return name == "localhost" || name.ends_with(".localhost"); }  // RFC 6761
bool is_ours(std::string_view name) { return name == "gateway.docker.internal" || name == "host.docker.internal"; }

Result<void> bind_both(boost::asio::ip::udp::socket& udp, boost::asio::ip::tcp::acceptor& tcp,
                       const boost::asio::ip::address_v4& address, std::uint16_t port) {
  using namespace boost::asio::ip;
  boost::system::error_code error;
  const auto check = [&](const char* what) -> Result<void> {
    if (error) return fail(ErrorCode::kUnavailable, std::string(what) + " for DNS: " + error.message());
    return {};
  };
  udp.open(udp::v4(), error);
  SBX_CHECK(check("no UDP socket"), "starting the resolver");
  udp.bind(udp::endpoint(address, port), error);
  SBX_CHECK(check("binding the UDP port"), "starting the resolver");
  tcp.open(tcp::v4(), error);
  SBX_CHECK(check("no TCP socket"), "starting the resolver");
  tcp.set_option(tcp::acceptor::reuse_address(true), error);
  tcp.bind(tcp::endpoint(address, udp.local_endpoint().port()), error);
  SBX_CHECK(check("binding the TCP port"), "starting the resolver");
  tcp.listen(64, error);
  return check("listening");
}

}  // namespace

Resolver::Resolver(boost::asio::any_io_executor executor, NameMap& names, Ask ask)
    : executor_(executor), names_(names), ask_(std::move(ask)), udp_(executor), tcp_(executor) {}

Result<std::uint16_t> Resolver::listen(const boost::asio::ip::address_v4& address, std::uint16_t port) {
  auto bound = bind_both(udp_, tcp_, address, port);
  // One that is free for UDP may be taken for TCP.
  for (int tries = 1; !bound && port == 0 && tries < 16; ++tries) {
    boost::system::error_code ignored;
    udp_.close(ignored);
    tcp_.close(ignored);
    bound = bind_both(udp_, tcp_, address, port);
  }
  SBX_CHECK(std::move(bound), "starting the resolver");
  boost::asio::co_spawn(executor_, serve_udp(), boost::asio::detached);
  boost::asio::co_spawn(executor_, serve_tcp(), boost::asio::detached);
  return udp_.local_endpoint().port();
}

Awaitable<std::string> Resolver::answer(std::string message) {
  auto parsed = parse_dns_query(message);
  if (!parsed) co_return dns_malformed(message);
  const DnsQuery query = *std::move(parsed);
  switch (query.type) {
    case kDnsA:
      co_return co_await answer_address(query);
    case kDnsAaaa:
    case kDnsHttps:
    case kDnsSvcb:
      co_return dns_answer(query, DnsCode::kNoError);
    case kDnsAny:
      co_return dns_answer(query, DnsCode::kNotImplemented);  // RFC 8482
    case kDnsPtr:
      co_return answer_reverse(query);
    default:
      co_return co_await forward(query);
  }
}

Awaitable<std::string> Resolver::answer_address(DnsQuery query) {
  if (is_localhost(query.name)) co_return own_address(query, 127U << 24U | 1U);
  const auto known = names_.known_address(query.name);
  const auto now = std::chrono::steady_clock::now();
  const auto confirmed = confirmed_.find(query.name);
  const bool fresh = confirmed != confirmed_.end() && now - confirmed->second < kConfirmedFor;
  if (known && (fresh || is_ours(query.name))) co_return own_address(query, *known);
  const auto said = co_await ask_(dns_question(query.name, kDnsA));
  const auto verdict = said ? judge_dns_answer(*said) : std::unexpected(said.error());
  if (!verdict) co_return dns_answer(query, DnsCode::kServerFailure);
  if (verdict->code != DnsCode::kNoError || !verdict->has_address) co_return dns_answer(query, verdict->code);
  const auto address = names_.address_for(query.name);
  if (!address) co_return dns_answer(query, DnsCode::kServerFailure);
  if (confirmed_.size() >= kMaxConfirmed) confirmed_.clear();
  confirmed_[query.name] = std::chrono::steady_clock::now();
  co_return own_address(query, *address);
}

std::string Resolver::answer_reverse(const DnsQuery& query) const {
  const auto address = address_of_reverse_name(query.name);
  if (!address) return dns_answer(query, DnsCode::kNoSuchName);
  auto name = names_.name_of(*address);
  if (*address >> 24U == 127) name = "localhost";
  if (!name) return dns_answer(query, DnsCode::kNoSuchName);
  std::vector<DnsRecord> records;
  records.push_back({kDnsPtr, kTtl, dns_wire_name(*name)});
  return dns_answer(query, DnsCode::kNoError, records);
}

Awaitable<std::string> Resolver::forward(DnsQuery query) {
  auto said = co_await ask_(dns_question(query.name, query.type));
  if (!said || !judge_dns_answer(*said)) co_return dns_answer(query, DnsCode::kServerFailure);
  (*said)[0] = static_cast<char>(query.id >> 8U);
  (*said)[1] = static_cast<char>(query.id & 0xffU);
  co_return *std::move(said);
}

Awaitable<void> Resolver::serve_udp() {
  std::array<char, 4096> buffer{};
  for (;;) {
    Udp::endpoint client;
    const auto [error, size] = co_await udp_.async_receive_from(boost::asio::buffer(buffer), client, kNoThrow);
    if (error == boost::asio::error::operation_aborted) co_return;
    if (error || in_flight_ >= kMaxInFlight) continue;  // dropped, as a network would
    boost::asio::co_spawn(executor_, reply(std::string(buffer.data(), size), client), boost::asio::detached);
  }
}

Awaitable<void> Resolver::reply(std::string message, Udp::endpoint client) {
  ++in_flight_;
  std::string said = co_await answer(message);
  --in_flight_;
  if (said.empty()) co_return;
  const auto query = parse_dns_query(message);
  if (query && said.size() > query->largest_answer) said = dns_truncated(*query);
  (void)co_await udp_.async_send_to(boost::asio::buffer(said), client, kNoThrow);
}

Awaitable<void> Resolver::serve_tcp() {
  for (;;) {
    auto [error, socket] = co_await tcp_.async_accept(kNoThrow);
    if (error == boost::asio::error::operation_aborted) co_return;
    if (error) {
      co_await sleep_for(executor_, 100ms);  // out of descriptors, most likely
      continue;
    }
    if (connections_ >= kMaxConnections) continue;
    boost::asio::co_spawn(executor_, serve_connection(std::move(socket)), boost::asio::detached);
  }
}

// RFC 1035, 4.2.2: each message after two bytes of length.
Awaitable<void> Resolver::serve_connection(Tcp::socket socket) {
  ++connections_;
  boost::asio::steady_timer idle(executor_);
  for (;;) {
    idle.expires_after(kIdleConnection);
    idle.async_wait([&socket](boost::system::error_code error) {
      boost::system::error_code ignored;
      if (!error) socket.cancel(ignored);
    });
    std::array<char, 2> prefix{};
    const auto [no_length, got] = co_await boost::asio::async_read(socket, boost::asio::buffer(prefix), kNoThrow);
    if (no_length) break;
    std::string message(static_cast<unsigned char>(prefix[0]) << 8U | static_cast<unsigned char>(prefix[1]), '\0');
    const auto [no_message, read] = co_await boost::asio::async_read(socket, boost::asio::buffer(message), kNoThrow);
    idle.cancel();
    if (no_message) break;
    std::string said = co_await answer(std::move(message));
    if (said.empty()) break;
    said.insert(0, {static_cast<char>(said.size() >> 8U), static_cast<char>(said.size() & 0xffU)});
    const auto [unsent, sent] = co_await boost::asio::async_write(socket, boost::asio::buffer(said), kNoThrow);
    if (unsent) break;
  }
  idle.cancel();
  --connections_;
}

}  // namespace sbx::guest
