#include "gateway/resolver.h"

#include <netdb.h>
#include <resolv.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <functional>
#include <memory>
#include <optional>

#include "wire/signal.h"

namespace sbx::gateway {

namespace asio = boost::asio;

namespace {

constexpr std::size_t kThreads = 4;
constexpr std::size_t kMaxWaiting = 128;
constexpr std::size_t kMaxKnown = 2000;
constexpr std::size_t kMaxAddresses = 16;
constexpr std::chrono::seconds kRemember{10};
constexpr double kBurst = 300;
constexpr double kPerSecond = 50;

std::unexpected<Error> explain(const std::string& name, int code) {
  if (code == EAI_NONAME || code == EAI_NODATA) {
    return fail(ErrorCode::kNotFound, "there is no host named " + name);
  }
  return fail(ErrorCode::kUnavailable, "looking up " + name + ": " + ::gai_strerror(code));
}

Result<Resolver::Addresses> look_up(const std::string& name) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* found = nullptr;
  const int code = ::getaddrinfo(name.c_str(), nullptr, &hints, &found);
  if (code != 0) return explain(name, code);
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  Resolver::Addresses addresses;
  for (const auto* entry = found; entry != nullptr && addresses.size() < kMaxAddresses; entry = entry->ai_next) {
    asio::ip::address address;
    if (entry->ai_family == AF_INET) {
      const auto* v4 = reinterpret_cast<const sockaddr_in*>(entry->ai_addr);
      address = asio::ip::address_v4(ntohl(v4->sin_addr.s_addr));
    } else if (entry->ai_family == AF_INET6) {
      const auto* v6 = reinterpret_cast<const sockaddr_in6*>(entry->ai_addr);
      asio::ip::address_v6::bytes_type bytes;
      std::copy_n(v6->sin6_addr.s6_addr, bytes.size(), bytes.begin());
      address = asio::ip::address_v6(bytes);
    } else {
      continue;
    }
    if (std::ranges::find(addresses, address) == addresses.end()) addresses.push_back(address);
  }
  if (addresses.empty()) return fail(ErrorCode::kNotFound, name + " has no address");
  return addresses;
}

Result<std::vector<DnsRecord>> look_up_records(const std::string& name, DnsType type) {
  struct __res_state state {};
  if (::res_ninit(&state) != 0) return fail(ErrorCode::kUnavailable, "the host has no resolver");
  std::string reply(16U << 10U, '\0');
  const int size = ::res_nquery(&state, name.c_str(), /*IN*/ 1, static_cast<int>(type),
                                reinterpret_cast<unsigned char*>(reply.data()), static_cast<int>(reply.size()));
  const int code = state.res_h_errno;
  ::res_nclose(&state);
  if (size >= 0) {
    reply.resize(std::min(reply.size(), static_cast<std::size_t>(size)));
    return parse_dns_records(reply, type);
  }
  if (code == NO_DATA) return std::vector<DnsRecord>();
  if (code == HOST_NOT_FOUND) return fail(ErrorCode::kNotFound, "there is no host named " + name);
  return fail(ErrorCode::kUnavailable, "looking up " + name + ": no answer");
}

// Runs `work` on a thread of the pool; the coroutine goes on where it was.
template <typename T>
Awaitable<T> on_thread(asio::thread_pool& threads, std::function<T()> work) {
  struct Job {
    explicit Job(const asio::any_io_executor& executor) : done(executor) {}
    std::optional<T> result;
    wire::Signal done;
  };
  const auto executor = co_await asio::this_coro::executor;
  auto job = std::make_shared<Job>(executor);
  asio::post(threads, [job, executor, work = std::move(work)] {
    auto result = work();
    asio::post(executor, [job, result = std::move(result)]() mutable {
      job->result = std::move(result);
      job->done.notify();
    });
  });
  while (!job->result) co_await job->done.wait();
  co_return std::move(*job->result);
}

}  // namespace

Resolver::Resolver() : threads_(kThreads), tokens_(kBurst), refilled_(std::chrono::steady_clock::now()) {}

Result<void> Resolver::admit() {
  const auto now = std::chrono::steady_clock::now();
  tokens_ = std::min(kBurst, tokens_ + kPerSecond * std::chrono::duration<double>(now - refilled_).count());
  refilled_ = now;
  if (waiting_ >= kMaxWaiting || tokens_ < 1) {
    return fail(ErrorCode::kUnavailable, "too many names are being looked up");
  }
  tokens_ -= 1;
  return {};
}

Awaitable<Result<Resolver::Addresses>> Resolver::addresses(std::string name) {
  const auto now = std::chrono::steady_clock::now();
  if (auto found = known_.find(name); found != known_.end()) {
    if (now < found->second.until) co_return found->second.addresses;
    known_.erase(found);
  }
  SBX_CO_CHECK(admit(), "looking up " + name);
  ++waiting_;
  std::function<Result<Addresses>()> work = [name] { return look_up(name); };
  auto result = co_await on_thread(threads_, std::move(work));
  --waiting_;
  if (result || result.error().code == ErrorCode::kNotFound) {
    std::erase_if(known_, [&](const auto& entry) { return entry.second.until <= now; });
    if (known_.size() < kMaxKnown) known_.insert_or_assign(name, Known{result, now + kRemember});
  }
  co_return result;
}

Awaitable<Result<std::vector<DnsRecord>>> Resolver::records(std::string name, DnsType type) {
  SBX_CO_CHECK(admit(), "looking up " + name);
  ++waiting_;
  std::function<Result<std::vector<DnsRecord>>()> work = [name, type] { return look_up_records(name, type); };
  auto result = co_await on_thread(threads_, std::move(work));
  --waiting_;
  co_return result;
}

}  // namespace sbx::gateway
