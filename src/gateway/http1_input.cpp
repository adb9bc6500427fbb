#include "gateway/http1_input.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>

namespace sbx::gateway {

namespace asio = boost::asio;

namespace {
constexpr std::size_t kRead = 16U << 10U;
constexpr std::size_t kReadBody = 64U << 10U;
constexpr std::size_t kAhead = 4096;

std::unexpected<Error> cut() { return fail(ErrorCode::kUnavailable, "the connection ended within a message"); }
}  // namespace

Awaitable<Result<bool>> Http1Input::read_more() {
  co_await stream_->readable();
  const std::size_t size = length_.kind == BodyLength::Kind::kNone ? kRead : kReadBody;
  const std::size_t before = buffer_.size();
  buffer_.resize(before + size);
  auto n = co_await stream_->read_some(std::span(buffer_).subspan(before));
  buffer_.resize(before + n.value_or(0));
  if (!n) co_return std::unexpected(std::move(n).error());
  co_return *n > 0;
}

Awaitable<Result<bool>> Http1Input::fill() {
  when_ended_ = nullptr;
  if (!watching_) co_return co_await read_more();
  while (watching_) co_await filled_.wait();
  co_return !ended_;
}

void Http1Input::watch(std::function<void()> ended) {
  when_ended_ = std::move(ended);
  if (watching_ || ended_ || !buffer_.empty()) return;
  watching_ = true;
  asio::co_spawn(
      executor_,
      [self = shared_from_this()]() -> Awaitable<void> {
        co_await self->stream_->readable();
        std::string ahead(kAhead, '\0');
        auto n = co_await self->stream_->read_some(ahead);
        self->watching_ = false;
        self->ended_ = !n || *n == 0;
        if (n) self->buffer_.append(ahead.data(), *n);
        self->filled_.notify();
        if (self->ended_ && self->when_ended_) std::exchange(self->when_ended_, nullptr)();
      },
      asio::detached);
}

Awaitable<Result<std::string>> Http1Input::read_head() {
  length_ = {};
  for (;;) {
    // One empty line before a request is let pass (RFC 9112 section 2.2).
    if (buffer_.starts_with("\r\n")) buffer_.erase(0, 2);
    SBX_CO_TRY(const std::size_t size, head_size(buffer_), "reading a head");
    if (size > 0) {
      auto head = buffer_.substr(0, size);
      buffer_.erase(0, size);
      co_return head;
    }
    if (buffer_.empty()) buffer_.shrink_to_fit();
    SBX_CO_TRY(const bool more, co_await fill(), "reading a head");
    if (!more && buffer_.empty()) co_return std::string();
    if (!more) co_return cut();
  }
}

void Http1Input::start_body(BodyLength length) {
  length_ = length;
  decoder_ = {};
}

Awaitable<Result<std::string>> Http1Input::read_body() {
  using Kind = BodyLength::Kind;
  for (;;) {
    if (length_.kind == Kind::kNone || (length_.kind == Kind::kCounted && length_.size == 0) ||
        (length_.kind == Kind::kChunked && decoder_.done())) {
      co_return std::string();
    }
    if (!buffer_.empty()) {
      if (length_.kind == Kind::kUntilClose) co_return take_rest();
      if (length_.kind == Kind::kCounted) {
        const auto n = std::min<std::uint64_t>(length_.size, buffer_.size());
        length_.size -= n;
        if (n == buffer_.size()) co_return take_rest();
        auto piece = buffer_.substr(0, n);
        buffer_.erase(0, n);
        co_return piece;
      }
      std::string_view input = buffer_;
      SBX_CO_TRY(const auto found, decoder_.feed(input), "reading a body");
      std::string piece(found);
      buffer_.erase(0, buffer_.size() - input.size());
      if (!piece.empty()) co_return piece;
      if (decoder_.done()) continue;
    }
    SBX_CO_TRY(const bool more, co_await fill(), "reading a body");
    if (!more && length_.kind == Kind::kUntilClose) co_return std::string();
    if (!more) co_return cut();
  }
}

}  // namespace sbx::gateway
