#include "keeper/files_barrier.h"

#include <endian.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <chrono>

namespace sbx::keeper {

namespace asio = boost::asio;

namespace {

constexpr auto kToken = asio::as_tuple(asio::use_awaitable);
constexpr std::chrono::seconds kDeadline{10};

}  // namespace

void FilesBarrier::connect(UniqueFd socket) {
  boost::system::error_code ignored;
  socket_.close(ignored);
  if (socket.valid()) socket_.assign(socket.release(), ignored);
}

wire::Awaitable<std::optional<std::uint64_t>> FilesBarrier::ask() {
  while (busy_) co_await turn_.wait();
  if (!socket_.is_open()) co_return std::nullopt;
  busy_ = true;
  const int asked = socket_.native_handle();
  asio::steady_timer deadline(socket_.get_executor(), kDeadline);
  deadline.async_wait([this](boost::system::error_code error) {
    boost::system::error_code ignored;
    if (!error) socket_.close(ignored);  // its answer would be taken for the next one's
  });
  const char question = 'b';
  std::uint64_t count = 0;
  auto [failed, written] = co_await asio::async_write(socket_, asio::buffer(&question, 1), kToken);
  if (!failed) {
    auto [error, size] = co_await asio::async_read(socket_, asio::buffer(&count, sizeof(count)), kToken);
    failed = error;
  }
  deadline.cancel();
  busy_ = false;
  turn_.notify();
  if (failed) {
    if (socket_.is_open() && socket_.native_handle() == asked) connect(UniqueFd());  // it is of no use any more
    co_return std::nullopt;
  }
  co_return le64toh(count);
}

}  // namespace sbx::keeper
