#include "wire/resync.h"

#include <sys/random.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

namespace sbx::wire {

namespace asio = boost::asio;
using namespace asio::experimental::awaitable_operators;

std::optional<std::array<char, kNonceSize>> ResyncScanner::feed(std::string_view& input) {
  while (!input.empty()) {
    window_.push_back(input.front());
    input.remove_prefix(1);
    // Keep the window a prefix of magic + nonce. The magic's first byte stands nowhere else in it, but do not rely on
    // it.
    while (!window_.empty() && window_.compare(0, std::min(window_.size(), magic_.size()), magic_, 0,
                                               std::min(window_.size(), magic_.size())) != 0) {
      window_.erase(0, 1);
    }
    if (window_.size() == magic_.size() + kNonceSize) {
      std::array<char, kNonceSize> nonce{};
      std::copy(window_.end() - kNonceSize, window_.end(), nonce.begin());
      window_.clear();
      return nonce;
    }
  }
  return std::nullopt;
}

namespace {

constexpr auto kToken = asio::as_tuple(asio::use_awaitable);
constexpr std::chrono::milliseconds kRepeat{250};

Result<void> ended(const boost::system::error_code& error) {
  return fail(ErrorCode::kUnavailable, "the port closed during resynchronisation: " + error.message());
}

}  // namespace

asio::awaitable<Result<void>> resync_as_host(asio::posix::stream_descriptor& port, std::chrono::milliseconds deadline) {
  std::array<char, kNonceSize> nonce{};
  if (::getrandom(nonce.data(), nonce.size(), 0) != static_cast<ssize_t>(nonce.size())) {
    co_return fail_errno("getrandom", errno);
  }
  const std::string syn = std::string(kResyncMagic) + std::string(nonce.data(), nonce.size());
  ResyncScanner scanner(kResyncEchoMagic);
  const auto until = std::chrono::steady_clock::now() + deadline;
  auto next_syn = std::chrono::steady_clock::now();
  std::size_t discarded = 0;
  std::array<char, 64> buffer{};
  for (;;) {
    const auto now = std::chrono::steady_clock::now();
    if (now >= until) co_return fail(ErrorCode::kTimeout, "the guest did not answer on its port");
    if (now >= next_syn) {
      auto [error, n] = co_await asio::async_write(port, asio::buffer(syn), kToken);
      if (error) co_return ended(error);
      next_syn = now + kRepeat;
    }
    asio::steady_timer timer(port.get_executor(), std::min(next_syn, until));
    auto first = co_await (port.async_read_some(asio::buffer(buffer.data(), scanner.needed()), kToken) ||
                           timer.async_wait(kToken));
    if (first.index() == 1) continue;
    auto [error, n] = std::get<0>(first);
    if (error) co_return ended(error);
    discarded += n;
    if (discarded > kMaxDiscard) co_return fail(ErrorCode::kInvalid, "the guest sends without end and never answers");
    std::string_view input(buffer.data(), n);
    auto echoed = scanner.feed(input);
    if (echoed && *echoed == nonce) co_return Result<void>{};
  }
}

asio::awaitable<Result<void>> resync_as_guest(asio::posix::stream_descriptor& port) {
  ResyncScanner scanner(kResyncMagic);
  std::array<char, 64> buffer{};
  for (;;) {
    auto [error, n] = co_await port.async_read_some(asio::buffer(buffer.data(), scanner.needed()), kToken);
    if (error) co_return ended(error);
    std::string_view input(buffer.data(), n);
    auto nonce = scanner.feed(input);
    if (!nonce) continue;
    const std::string echo = std::string(kResyncEchoMagic) + std::string(nonce->data(), nonce->size());
    auto [write_error, written] = co_await asio::async_write(port, asio::buffer(echo), kToken);
    if (write_error) co_return ended(write_error);
    co_return Result<void>{};
  }
}

}  // namespace sbx::wire
