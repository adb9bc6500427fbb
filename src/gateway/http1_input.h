// Http1Input: heads and bodies of HTTP/1.1 read off a ByteStream, one after the other. One executor, one reader.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "gateway/chunked_decoder.h"
#include "gateway/http1_head.h"
#include "gateway/streams.h"
#include "wire/signal.h"

namespace sbx::gateway {

class Http1Input : public std::enable_shared_from_this<Http1Input> {
 public:
  Http1Input(std::shared_ptr<ByteStream> stream, const boost::asio::any_io_executor& executor)
      : stream_(std::move(stream)), executor_(executor), filled_(executor) {}

  // A whole head with its closing empty line; empty at an end before its first byte. kInvalid: too long.
  Awaitable<Result<std::string>> read_head();
  void start_body(BodyLength length);
  // The next piece of the body; empty at its end.
  Awaitable<Result<std::string>> read_body();
  const HeaderList& trailers() const { return decoder_.trailers(); }
  // What has been read and belongs to nothing yet.
  std::string take_rest() { return std::exchange(buffer_, {}); }
  ByteStream& stream() { return *stream_; }

  // Between messages: reads ahead, and calls `ended` when the peer closes before anything else was asked of this.
  void watch(std::function<void()> ended);
  bool ended() const { return ended_; }

 private:
  // False at the end.
  Awaitable<Result<bool>> fill();
  Awaitable<Result<bool>> read_more();

  std::shared_ptr<ByteStream> stream_;
  boost::asio::any_io_executor executor_;
  wire::Signal filled_;
  std::string buffer_;
  BodyLength length_;
  ChunkedDecoder decoder_;
  bool watching_ = false;
  bool ended_ = false;
  std::function<void()> when_ended_;
};

}  // namespace sbx::gateway
