#include "wire/http2_session.h"

#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <charconv>
#include <chrono>
#include <cstring>
#include <map>
#include <optional>

#include "wire/signal.h"

namespace sbx::wire {

namespace asio = boost::asio;

namespace {

constexpr auto kToken = asio::as_tuple(asio::use_awaitable);
constexpr std::uint32_t kMaxFrame = 256U << 10U;
constexpr std::size_t kWriteBatch = 256U << 10U;

class SessionImpl;

class StreamImpl final : public Http2Stream {
 public:
  StreamImpl(std::shared_ptr<SessionImpl> session, const asio::any_io_executor& executor, std::int32_t id)
      : session_(std::move(session)), id_(id), readable_(executor), writable_(executor), changed_(executor) {}

  const Http2Head& request() const override { return request_; }
  Awaitable<Result<Http2Head>> response() override;
  Result<void> respond(int status, std::vector<std::pair<std::string, std::string>> headers, bool end) override;
  Awaitable<Result<std::size_t>> read_some(std::span<char> buffer) override;
  Awaitable<Result<void>> write(std::string_view data) override;
  Awaitable<Result<void>> finish() override;
  void reset() override;
  Awaitable<void> closed() override;

 private:
  friend class SessionImpl;

  void mark_closed(std::string why);
  ssize_t produce(std::uint8_t* buffer, std::size_t length, std::uint32_t* flags);
  void resume();
  std::unexpected<Error> gone() const {
    return fail(ErrorCode::kUnavailable, close_reason_.empty() ? "the stream is closed" : close_reason_);
  }

  std::weak_ptr<SessionImpl> session_;
  std::int32_t id_;
  Signal readable_;
  Signal writable_;
  Signal changed_;
  Http2Head request_;
  std::optional<Http2Head> response_;
  std::size_t header_bytes_ = 0;
  std::string in_;
  std::size_t in_read_ = 0;
  bool in_end_ = false;
  std::string out_;
  std::size_t out_sent_ = 0;
  bool out_end_ = false;
  bool out_end_sent_ = false;
  bool responded_ = false;
  bool closed_ = false;
  std::string close_reason_;
};

class SessionImpl final : public Http2Session {
 public:
  SessionImpl(asio::posix::stream_descriptor transport, Handler handler, bool server, Http2Limits limits)
      : transport_(std::move(transport)),
        executor_(transport_.get_executor()),
        handler_(std::move(handler)),
        server_(server),
        limits_(limits),
        output_(executor_) {
    start_session();
  }
  ~SessionImpl() override {
    if (session_ != nullptr) nghttp2_session_del(session_);
  }

  Awaitable<Result<void>> run() override;
  Result<std::shared_ptr<Http2Stream>> open(Http2Head request, bool end) override;
  void close() override { end("the session was closed"); }
  std::size_t open_streams() const override { return streams_.size(); }
  bool alive() const override { return alive_; }

 private:
  friend class StreamImpl;

  void start_session();
  static nghttp2_session_callbacks* make_callbacks();
  static nghttp2_data_provider provider(StreamImpl* stream);
  Awaitable<void> write_loop();
  Awaitable<void> handle(std::shared_ptr<StreamImpl> stream);
  void end(std::string why);
  void wake() { output_.notify(); }
  StreamImpl* find(std::int32_t id) {
    auto it = streams_.find(id);
    return it == streams_.end() ? nullptr : it->second.get();
  }
  std::shared_ptr<SessionImpl> self() { return std::static_pointer_cast<SessionImpl>(shared_from_this()); }

  int on_begin_headers(const nghttp2_frame* frame);
  int on_header(const nghttp2_frame* frame, std::string_view name, std::string_view value);
  int on_frame(const nghttp2_frame* frame);
  int on_data(std::int32_t id, std::string_view data);
  void on_sent(const nghttp2_frame* frame);
  void on_close(std::int32_t id, std::uint32_t error);
  bool reset_flood();

  asio::posix::stream_descriptor transport_;
  asio::any_io_executor executor_;
  Handler handler_;
  bool server_;
  Http2Limits limits_;
  Signal output_;
  nghttp2_session* session_ = nullptr;
  std::map<std::int32_t, std::shared_ptr<StreamImpl>> streams_;
  std::chrono::steady_clock::time_point reset_second_{};
  std::uint32_t resets_ = 0;
  bool alive_ = true;
  std::string end_reason_;
};

// --- stream ---

Awaitable<Result<Http2Head>> StreamImpl::response() {
  auto self = shared_from_this();
  while (!response_ && !closed_) co_await changed_.wait();
  if (!response_) co_return gone();
  co_return *response_;
}

std::vector<nghttp2_nv> name_values(const std::vector<std::pair<std::string, std::string>>& headers) {
  std::vector<nghttp2_nv> result;
  result.reserve(headers.size());
  for (const auto& [name, value] : headers) {
    result.push_back({reinterpret_cast<std::uint8_t*>(const_cast<char*>(name.data())),
                      reinterpret_cast<std::uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(),
                      NGHTTP2_NV_FLAG_NONE});
  }
  return result;
}

Result<void> StreamImpl::respond(int status, std::vector<std::pair<std::string, std::string>> headers, bool end) {
  auto session = session_.lock();
  if (closed_ || !session || !session->alive_) return gone();
  if (responded_) return fail(ErrorCode::kInternal, "a stream is answered once");
  responded_ = true;
  headers.insert(headers.begin(), {":status", std::to_string(status)});
  const auto fields = name_values(headers);
  auto source = SessionImpl::provider(this);
  if (end) out_end_ = true;
  const int rc = nghttp2_submit_response(session->session_, id_, fields.data(), fields.size(), end ? nullptr : &source);
  if (rc != 0) return fail(ErrorCode::kInternal, std::string("HTTP/2 response: ") + nghttp2_strerror(rc));
  session->wake();
  return {};
}

Awaitable<Result<std::size_t>> StreamImpl::read_some(std::span<char> buffer) {
  auto self = shared_from_this();
  while (in_read_ == in_.size() && !in_end_ && !closed_) co_await readable_.wait();
  const std::size_t available = in_.size() - in_read_;
  if (available == 0) {
    if (in_end_) co_return std::size_t{0};
    co_return gone();
  }
  const std::size_t n = std::min(available, buffer.size());
  std::memcpy(buffer.data(), in_.data() + in_read_, n);
  in_read_ += n;
  if (in_read_ == in_.size()) {
    in_.clear();
    in_read_ = 0;
  }
  auto session = session_.lock();
  if (session && session->alive_ && !closed_) {
    nghttp2_session_consume_stream(session->session_, id_, n);
    session->wake();
  }
  co_return n;
}

void StreamImpl::resume() {
  auto session = session_.lock();
  if (!session || !session->alive_) return;
  nghttp2_session_resume_data(session->session_, id_);
  session->wake();
}

Awaitable<Result<void>> StreamImpl::write(std::string_view data) {
  auto self = shared_from_this();
  auto limit = std::size_t{64} << 10U;
  if (auto session = session_.lock()) limit = session->limits_.max_buffered_output;
  while (!data.empty()) {
    while (!closed_ && out_.size() - out_sent_ >= limit) co_await writable_.wait();
    if (closed_) co_return gone();
    if (out_end_) co_return fail(ErrorCode::kInternal, "write after the end of the body");
    if (out_sent_ > 0) {
      out_.erase(0, out_sent_);
      out_sent_ = 0;
    }
    const auto piece = data.substr(0, limit - out_.size());
    out_.append(piece);
    data.remove_prefix(piece.size());
    resume();
  }
  if (closed_) co_return gone();
  co_return Result<void>{};
}

Awaitable<Result<void>> StreamImpl::finish() {
  auto self = shared_from_this();
  if (!closed_ && !out_end_) {
    out_end_ = true;
    resume();
  }
  while (!out_end_sent_ && !closed_) co_await writable_.wait();
  if (!out_end_sent_) co_return gone();
  co_return Result<void>{};
}

void StreamImpl::reset() {
  auto session = session_.lock();
  if (closed_ || !session || !session->alive_) return;
  nghttp2_submit_rst_stream(session->session_, NGHTTP2_FLAG_NONE, id_, NGHTTP2_CANCEL);
  session->wake();
}

Awaitable<void> StreamImpl::closed() {
  auto self = shared_from_this();
  while (!closed_) co_await changed_.wait();
}

void StreamImpl::mark_closed(std::string why) {
  if (closed_) return;
  closed_ = true;
  close_reason_ = std::move(why);
  readable_.notify();
  writable_.notify();
  changed_.notify();
}

ssize_t StreamImpl::produce(std::uint8_t* buffer, std::size_t length, std::uint32_t* flags) {
  const std::size_t n = std::min(length, out_.size() - out_sent_);
  if (n == 0 && !out_end_) return NGHTTP2_ERR_DEFERRED;
  std::memcpy(buffer, out_.data() + out_sent_, n);
  out_sent_ += n;
  if (out_sent_ == out_.size()) {
    out_.clear();
    out_sent_ = 0;
    if (out_end_) *flags |= NGHTTP2_DATA_FLAG_EOF;
  }
  writable_.notify();
  return static_cast<ssize_t>(n);
}

// --- session ---

nghttp2_data_provider SessionImpl::provider(StreamImpl* stream) {
  nghttp2_data_provider result{};
  result.source.ptr = stream;
  result.read_callback = [](nghttp2_session*, std::int32_t id, std::uint8_t* buffer, std::size_t length,
                            std::uint32_t* flags, nghttp2_data_source*, void* user) -> ssize_t {
    auto* live = static_cast<SessionImpl*>(user)->find(id);
    if (live == nullptr) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    return live->produce(buffer, length, flags);
  };
  return result;
}

nghttp2_session_callbacks* SessionImpl::make_callbacks() {
  nghttp2_session_callbacks* callbacks = nullptr;
  nghttp2_session_callbacks_new(&callbacks);
  nghttp2_session_callbacks_set_on_begin_headers_callback(
      callbacks, [](nghttp2_session*, const nghttp2_frame* frame, void* user) {
        return static_cast<SessionImpl*>(user)->on_begin_headers(frame);
      });
  nghttp2_session_callbacks_set_on_header_callback(
      callbacks, [](nghttp2_session*, const nghttp2_frame* frame, const std::uint8_t* name, std::size_t name_length,
                    const std::uint8_t* value, std::size_t value_length, std::uint8_t, void* user) {
        return static_cast<SessionImpl*>(user)->on_header(frame, {reinterpret_cast<const char*>(name), name_length},
                                                          {reinterpret_cast<const char*>(value), value_length});
      });
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks,
                                                       [](nghttp2_session*, const nghttp2_frame* frame, void* user) {
                                                         return static_cast<SessionImpl*>(user)->on_frame(frame);
                                                       });
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
      callbacks,
      [](nghttp2_session*, std::uint8_t, std::int32_t id, const std::uint8_t* data, std::size_t length, void* user) {
        return static_cast<SessionImpl*>(user)->on_data(id, {reinterpret_cast<const char*>(data), length});
      });
  nghttp2_session_callbacks_set_on_frame_send_callback(callbacks,
                                                       [](nghttp2_session*, const nghttp2_frame* frame, void* user) {
                                                         static_cast<SessionImpl*>(user)->on_sent(frame);
                                                         return 0;
                                                       });
  nghttp2_session_callbacks_set_on_stream_close_callback(
      callbacks, [](nghttp2_session*, std::int32_t id, std::uint32_t error, void* user) {
        static_cast<SessionImpl*>(user)->on_close(id, error);
        return 0;
      });
  nghttp2_session_callbacks_set_data_source_read_length_callback(
      callbacks,
      [](nghttp2_session*, std::uint8_t, std::int32_t, std::int32_t session_window, std::int32_t stream_window,
         std::uint32_t max_frame, void*) -> ssize_t {
        return std::min({static_cast<ssize_t>(session_window), static_cast<ssize_t>(stream_window),
                         static_cast<ssize_t>(max_frame), static_cast<ssize_t>(kMaxFrame)});
      });
  return callbacks;
}

void SessionImpl::start_session() {
  auto* callbacks = make_callbacks();
  nghttp2_option* option = nullptr;
  nghttp2_option_new(&option);
  nghttp2_option_set_no_auto_window_update(option, 1);
  nghttp2_option_set_peer_max_concurrent_streams(option, limits_.max_concurrent_streams);
  if (server_) {
    nghttp2_session_server_new2(&session_, callbacks, this, option);
  } else {
    nghttp2_session_client_new2(&session_, callbacks, this, option);
  }
  nghttp2_option_del(option);
  nghttp2_session_callbacks_del(callbacks);
  const nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, server_ ? limits_.max_concurrent_streams : 0},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, limits_.stream_window},
      {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, kMaxFrame},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, static_cast<std::uint32_t>(limits_.max_header_bytes)},
      {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
  };
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, std::size(settings));
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, INT32_MAX);
}

Awaitable<Result<void>> SessionImpl::run() {
  auto keep = self();
  asio::co_spawn(
      executor_, [keep]() -> Awaitable<void> { return keep->write_loop(); }, asio::detached);
  std::vector<char> buffer(kWriteBatch);
  Result<void> result;
  while (alive_) {
    auto [error, n] = co_await transport_.async_read_some(asio::buffer(buffer), kToken);
    if (error) {
      if (alive_ && error != asio::error::eof) result = fail(ErrorCode::kUnavailable, "reading: " + error.message());
      break;
    }
    if (!alive_) break;
    const auto used = nghttp2_session_mem_recv(session_, reinterpret_cast<std::uint8_t*>(buffer.data()), n);
    if (used < 0) {
      result = fail(ErrorCode::kInvalid, std::string("HTTP/2: ") + nghttp2_strerror(static_cast<int>(used)));
      break;
    }
    wake();
    if (nghttp2_session_want_read(session_) == 0 && nghttp2_session_want_write(session_) == 0) {
      result = fail(ErrorCode::kInvalid, "HTTP/2: the peer broke the protocol");
      break;
    }
  }
  if (result && !end_reason_.empty() && end_reason_ != "the session was closed") {
    result = fail(ErrorCode::kInvalid, end_reason_);
  }
  end(result ? "the peer closed the connection" : result.error().message);
  co_return result;
}

Awaitable<void> SessionImpl::write_loop() {
  auto keep = self();
  std::string batch;
  while (alive_) {
    batch.clear();
    while (batch.size() < kWriteBatch) {
      const std::uint8_t* data = nullptr;
      const auto n = nghttp2_session_mem_send(session_, &data);
      if (n < 0) {
        end(std::string("HTTP/2: ") + nghttp2_strerror(static_cast<int>(n)));
        co_return;
      }
      if (n == 0) break;
      batch.append(reinterpret_cast<const char*>(data), static_cast<std::size_t>(n));
    }
    if (!batch.empty()) {
      auto [error, n] = co_await asio::async_write(transport_, asio::buffer(batch), kToken);
      if (error) {
        end("writing: " + error.message());
        co_return;
      }
      continue;
    }
    if (nghttp2_session_want_read(session_) == 0 && nghttp2_session_want_write(session_) == 0) {
      end("HTTP/2: the peer broke the protocol");
      co_return;
    }
    co_await output_.wait();
  }
}

void SessionImpl::end(std::string why) {
  if (!alive_) return;
  alive_ = false;
  end_reason_ = std::move(why);
  boost::system::error_code ignored;
  transport_.close(ignored);
  wake();
  auto streams = std::move(streams_);
  streams_.clear();
  for (auto& [id, stream] : streams) stream->mark_closed(end_reason_);
}

Result<std::shared_ptr<Http2Stream>> SessionImpl::open(Http2Head request, bool end) {
  if (!alive_) return fail(ErrorCode::kUnavailable, end_reason_);
  if (server_) return fail(ErrorCode::kInternal, "a server opens no streams");
  std::vector<std::pair<std::string, std::string>> headers = {
      {":method", request.method}, {":scheme", "http"}, {":path", request.path}, {":authority", "sbx"}};
  headers.insert(headers.end(), request.headers.begin(), request.headers.end());
  const auto fields = name_values(headers);
  auto source = provider(nullptr);
  const auto id =
      nghttp2_submit_request(session_, nullptr, fields.data(), fields.size(), end ? nullptr : &source, nullptr);
  if (id < 0) return fail(ErrorCode::kUnavailable, std::string("HTTP/2 request: ") + nghttp2_strerror(id));
  auto stream = std::make_shared<StreamImpl>(self(), executor_, id);
  stream->request_ = std::move(request);
  stream->out_end_ = end;
  streams_[id] = stream;
  wake();
  return std::static_pointer_cast<Http2Stream>(stream);
}

int SessionImpl::on_begin_headers(const nghttp2_frame* frame) {
  if (!server_ || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
  if (streams_.size() >= limits_.max_concurrent_streams) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  streams_[frame->hd.stream_id] = std::make_shared<StreamImpl>(self(), executor_, frame->hd.stream_id);
  return 0;
}

int SessionImpl::on_header(const nghttp2_frame* frame, std::string_view name, std::string_view value) {
  auto* stream = find(frame->hd.stream_id);
  if (stream == nullptr) return 0;
  stream->header_bytes_ += name.size() + value.size() + 32;
  if (stream->header_bytes_ > limits_.max_header_bytes) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  if (frame->headers.cat == NGHTTP2_HCAT_HEADERS) return 0;  // trailers carry nothing here
  if (!server_ && !stream->response_) stream->response_.emplace();
  Http2Head& head = server_ ? stream->request_ : *stream->response_;
  if (name == ":method") {
    head.method = value;
  } else if (name == ":path") {
    head.path = value;
  } else if (name == ":status") {
    std::from_chars(value.data(), value.data() + value.size(), head.status);
  } else if (!name.starts_with(':')) {
    head.headers.emplace_back(name, value);
  }
  return 0;
}

int SessionImpl::on_frame(const nghttp2_frame* frame) {
  if (frame->hd.type == NGHTTP2_RST_STREAM && reset_flood()) return NGHTTP2_ERR_CALLBACK_FAILURE;
  auto* stream = find(frame->hd.stream_id);
  if (stream == nullptr) return 0;
  if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
  if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
    stream->in_end_ = true;
    stream->readable_.notify();
  }
  if (frame->hd.type != NGHTTP2_HEADERS) return 0;
  stream->changed_.notify();
  if (server_ && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
    auto keep = self();
    auto shared = streams_[frame->hd.stream_id];
    // Not from inside nghttp2's callback: the handler may call back into the session.
    asio::post(executor_, [keep, shared] {
      asio::co_spawn(
          keep->executor_, [keep, shared]() -> Awaitable<void> { return keep->handle(shared); }, asio::detached);
    });
  }
  return 0;
}

Awaitable<void> SessionImpl::handle(std::shared_ptr<StreamImpl> stream) {
  auto keep = self();
  std::shared_ptr<Http2Stream> base = stream;
  co_await handler_(base);
  if (stream->closed_ || !alive_) co_return;
  // Answered in full: tell the peer to stop sending (RFC 9113 section 8.1). Otherwise the handler gave up.
  const auto code = stream->out_end_sent_ ? NGHTTP2_NO_ERROR : NGHTTP2_CANCEL;
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream->id_, code);
  wake();
}

int SessionImpl::on_data(std::int32_t id, std::string_view data) {
  nghttp2_session_consume_connection(session_, data.size());
  auto* stream = find(id);
  if (stream == nullptr) return 0;
  stream->in_.append(data);
  stream->readable_.notify();
  return 0;
}

void SessionImpl::on_sent(const nghttp2_frame* frame) {
  if (frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS) return;
  if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return;
  if (auto* stream = find(frame->hd.stream_id)) {
    stream->out_end_sent_ = true;
    stream->writable_.notify();
  }
}

void SessionImpl::on_close(std::int32_t id, std::uint32_t error) {
  auto it = streams_.find(id);
  if (it == streams_.end()) return;
  auto stream = it->second;
  streams_.erase(it);
  stream->mark_closed(error == NGHTTP2_NO_ERROR
                          ? "the stream is closed"
                          : std::string("the peer reset the stream: ") + nghttp2_http2_strerror(error));
}

bool SessionImpl::reset_flood() {
  const auto now = std::chrono::steady_clock::now();
  if (now - reset_second_ > std::chrono::seconds(1)) {
    reset_second_ = now;
    resets_ = 0;
  }
  return ++resets_ > limits_.max_resets_per_second;
}

}  // namespace

std::shared_ptr<Http2Session> Http2Session::client(asio::posix::stream_descriptor transport, Http2Limits limits) {
  return std::make_shared<SessionImpl>(std::move(transport), nullptr, false, limits);
}

std::shared_ptr<Http2Session> Http2Session::server(asio::posix::stream_descriptor transport, Handler handler,
                                                   Http2Limits limits) {
  return std::make_shared<SessionImpl>(std::move(transport), std::move(handler), true, limits);
}

}  // namespace sbx::wire
