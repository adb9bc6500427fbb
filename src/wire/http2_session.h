// An HTTP/2 session (RFC 9113, prior knowledge, nghttp2 underneath) over any byte stream: a virtio port in the guest, a
// unix socket on the host, TLS. The peer is not trusted: what it may make us hold is bounded by
// Http2Limits, and a peer that breaks the protocol or floods ends the session.
//
// Thread safety: none; everything runs on the one executor of the descriptor. Objects live while the caller holds the
// shared_ptr; a stream outlives its session safely (its calls then fail with kUnavailable).
//
// Flow control: the connection window is at its maximum and credited on receipt, a stream's window is credited when its
// reader has consumed, so that one stalled reader holds at most one stream window and never the session.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "wire/byte_stream.h"

namespace sbx::wire {

template <typename T>
using Awaitable = boost::asio::awaitable<T>;

struct Http2Limits {
  std::uint32_t max_concurrent_streams = 2000;
  std::uint32_t stream_window = 256U << 10U;     // bytes a peer may send on a stream before it is read
  std::size_t max_header_bytes = 64U << 10U;     // of one message's header list
  std::uint32_t max_resets_per_second = 200;     // of the peer; more ends the session (CVE-2023-44487)
  std::size_t max_buffered_output = 64U << 10U;  // bytes of ours, per stream, waiting for a peer that does not read
  std::size_t io_buffer = 256U << 10U;           // of the session, in each direction
  bool extended_connect = false;                 // server: Http2Head::protocol is taken (RFC 8441)
};

using HeaderList = std::vector<std::pair<std::string, std::string>>;

// A request's or a response's header. Names are lower case. For a response only `status` and `headers` are set.
// For the method CONNECT (RFC 9113 section 8.5) `path` is the authority that was asked for, "name:port", on both sides;
// the bodies are the two directions of the tunnel. A client may leave scheme and authority empty ("http", "sbx").
struct Http2Head {
  std::string method;
  std::string path;
  int status = 0;
  HeaderList headers;
  std::string scheme = {};
  std::string authority = {};
  // With the method CONNECT: what is to be spoken on the stream instead of TCP, such as "connect-udp" (RFC 8441);
  // `path` is then a path.
  std::string protocol = {};
};

class Http2Session;

class Http2Stream : public std::enable_shared_from_this<Http2Stream> {
 public:
  virtual ~Http2Stream() = default;
  // Server: the request. Client: what was sent.
  virtual const Http2Head& request() const = 0;
  // Client: waits for the response's header. Informational ones (1xx) are returned as they come, each once; the final
  // one again at each later call.
  virtual Awaitable<Result<Http2Head>> response() = 0;
  // Server: sends an informational header (1xx) before the response.
  virtual Result<void> inform(int status, HeaderList headers) = 0;
  // Server: sends the response's header; at most once. `end` means that there is no body.
  virtual Result<void> respond(int status, HeaderList headers, bool end) = 0;
  // Waits for at least one byte of body; 0 is its end. One reader at a time.
  virtual Awaitable<Result<std::size_t>> read_some(std::span<char> buffer) = 0;
  // The same without a buffer of the caller's: all that has arrived; empty at the end.
  virtual Awaitable<Result<std::string>> read_chunk() = 0;
  // The peer has ended its direction and everything has been read. Known for a message without a body as soon as its
  // header is.
  virtual bool at_end() const = 0;
  // What the peer sent after the body; complete once a read has returned its end.
  virtual const HeaderList& trailers() const = 0;
  // Returns when all of `data` has been handed to the session within its window. One writer at a time. On a server
  // stream respond() comes first.
  virtual Awaitable<Result<void>> write(std::string_view data) = 0;
  // Waits until write_now() takes at least a byte, and returns how many it takes.
  virtual Awaitable<Result<std::size_t>> writable() = 0;
  virtual Result<void> write_now(std::string_view data) = 0;
  // Ends our direction of the body.
  virtual Awaitable<Result<void>> finish(HeaderList trailers = {}) = 0;
  // Abandons the stream in both directions (RST_STREAM, by default CANCEL); waiting calls on it fail.
  virtual void reset(std::uint32_t code = 8) = 0;
  // The code that the peer has reset the stream with; 0 otherwise.
  virtual std::uint32_t reset_code() const = 0;
  // Returns when the peer has reset the stream or the session has ended, or both directions are finished.
  virtual Awaitable<void> closed() = 0;
};

class Http2Session : public std::enable_shared_from_this<Http2Session> {
 public:
  // Each request runs as its own coroutine; when it returns without having responded or finished the stream is reset.
  using Handler = std::function<Awaitable<void>(std::shared_ptr<Http2Stream>)>;

  static std::shared_ptr<Http2Session> client(boost::asio::posix::stream_descriptor transport, Http2Limits limits = {});
  static std::shared_ptr<Http2Session> server(boost::asio::posix::stream_descriptor transport, Handler handler,
                                              Http2Limits limits = {});
  static std::shared_ptr<Http2Session> client(std::shared_ptr<ByteStream> transport,
                                              const boost::asio::any_io_executor& executor, Http2Limits limits = {});
  static std::shared_ptr<Http2Session> server(std::shared_ptr<ByteStream> transport,
                                              const boost::asio::any_io_executor& executor, Handler handler,
                                              Http2Limits limits = {});
  virtual ~Http2Session() = default;

  // Drives the session until the transport ends, the peer breaks the protocol or close() is called. Run it once, as a
  // coroutine of its own (co_spawn). The Result says why it ended; an orderly end is a value.
  virtual Awaitable<Result<void>> run() = 0;
  // Client: opens a stream. `end` means that the request has no body.
  virtual Result<std::shared_ptr<Http2Stream>> open(Http2Head request, bool end) = 0;
  // Ends the session and fails every stream.
  virtual void close() = 0;
  virtual std::size_t open_streams() const = 0;
  // False once the session has ended, whoever ended it. Already false when the streams that it took along see it.
  virtual bool alive() const = 0;
};

// Reads a stream's whole body, at most `limit` bytes (kInvalid beyond).
Awaitable<Result<std::string>> read_body(Http2Stream& stream, std::size_t limit);
// One request with a whole body each way: for small JSON calls. A status of 400 and above is an Error made from the
// body {"error":{"code","message"}}.
Awaitable<Result<std::string>> call(Http2Session& session, std::string method, std::string path, std::string body,
                                    std::size_t limit = 4U << 20U);
// Server side of call(): answers `status` with a JSON body; send_error writes {"error":{"code","message"}}.
Awaitable<void> send_json(Http2Stream& stream, int status, std::string body);
Awaitable<void> send_error(Http2Stream& stream, const Error& error);
int http_status(ErrorCode code);  // not_found 404, conflict 409, denied 403, invalid 400, unavailable 503, timeout 504,
                                  // internal 500

}  // namespace sbx::wire
