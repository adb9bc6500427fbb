#include "wire/http2_session.h"

#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <charconv>
#include <chrono>
#include <cstring>
#include <deque>
#include <map>
#include <optional>

#include "wire/signal.h"

namespace sbx::wire {

namespace asio = boost::asio;

namespace {

constexpr std::uint32_t kMaxFrame = 256U << 10U;

class SessionImpl;

class StreamImpl final : public Http2Stream {
 public:
  StreamImpl(std::shared_ptr<SessionImpl> session, const asio::any_io_executor& executor, std::int32_t id)
      : session_(std::move(session)), id_(id), readable_(executor), writable_(executor), changed_(executor) {}

  const Http2Head& request() const override { return request_; }
  Awaitable<Result<Http2Head>> response() override;
  Result<void> inform(int status, HeaderList headers) override;
  Result<void> respond(int status, HeaderList headers, bool end) override;
  Awaitable<Result<std::size_t>> read_some(std::span<char> buffer) override;
  Awaitable<Result<std::string>> read_chunk() override;
  bool at_end() const override { return in_end_ && in_read_ == in_.size(); }
  const HeaderList& trailers() const override { return trailers_; }
  Awaitable<Result<void>> write(std::string_view data) override;
  Awaitable<Result<std::size_t>> writable() override;
  Result<void> write_now(std::string_view data) override;
  Awaitable<Result<void>> finish(HeaderList trailers) override;
  void reset(std::uint32_t code) override;
  std::uint32_t reset_code() const override { return reset_code_; }
  Awaitable<void> closed() override;

 private:
  friend class SessionImpl;

  void mark_closed(std::string why);
  ssize_t produce(std::uint8_t* buffer, std::size_t length, std::uint32_t* flags);
  void resume();
  void consumed(std::size_t n);
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
  std::deque<Http2Head> informational_;
  Http2Head arriving_;  // client: the header block that is being received
  HeaderList trailers_;
  HeaderList out_trailers_;
  std::uint32_t reset_code_ = 0;
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
  SessionImpl(std::shared_ptr<ByteStream> transport, const asio::any_io_executor& executor, Handler handler,
              bool server, Http2Limits limits)
      : transport_(std::move(transport)),
        executor_(executor),
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

  std::shared_ptr<ByteStream> transport_;
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
  while (informational_.empty() && !response_ && !closed_) co_await changed_.wait();
  if (!informational_.empty()) {
    auto head = std::move(informational_.front());
    informational_.pop_front();
    co_return head;
  }
  if (!response_) co_return gone();
  co_return *response_;
}

std::vector<nghttp2_nv> name_values(const HeaderList& headers) {
  std::vector<nghttp2_nv> result;
  result.reserve(headers.size());
  for (const auto& [name, value] : headers) {
    result.push_back({reinterpret_cast<std::uint8_t*>(const_cast<char*>(name.data())),
                      reinterpret_cast<std::uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(),
                      NGHTTP2_NV_FLAG_NONE});
  }
  return result;
}

Result<void> StreamImpl::inform(int status, HeaderList headers) {
  auto session = session_.lock();
  if (closed_ || !session || !session->alive_) return gone();
  headers.insert(headers.begin(), {":status", std::to_string(status)});
  const auto fields = name_values(headers);
  const int rc =
      nghttp2_submit_headers(session->session_, NGHTTP2_FLAG_NONE, id_, nullptr, fields.data(), fields.size(), nullptr);
  if (rc != 0) return fail(ErrorCode::kInternal, std::string("HTTP/2 1xx: ") + nghttp2_strerror(rc));
  session->wake();
  return {};
}

Result<void> StreamImpl::respond(int status, HeaderList headers, bool end) {
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
  consumed(n);
  co_return n;
}

Awaitable<Result<std::string>> StreamImpl::read_chunk() {
  auto self = shared_from_this();
  while (in_read_ == in_.size() && !in_end_ && !closed_) co_await readable_.wait();
  if (in_read_ == in_.size()) {
    if (in_end_) co_return std::string();
    co_return gone();
  }
  std::string chunk = std::exchange(in_, {});
  chunk.erase(0, std::exchange(in_read_, 0));
  consumed(chunk.size());
  co_return chunk;
}

void StreamImpl::consumed(std::size_t n) {
  auto session = session_.lock();
  if (!session || !session->alive_ || closed_) return;
  nghttp2_session_consume_stream(session->session_, id_, n);
  session->wake();
}

void StreamImpl::resume() {
  auto session = session_.lock();
  if (!session || !session->alive_) return;
  nghttp2_session_resume_data(session->session_, id_);
  session->wake();
}

Awaitable<Result<std::size_t>> StreamImpl::writable() {
  auto self = shared_from_this();
  auto limit = std::size_t{64} << 10U;
  if (auto session = session_.lock()) limit = session->limits_.max_buffered_output;
  while (!closed_ && out_.size() - out_sent_ >= limit) co_await writable_.wait();
  if (closed_) co_return gone();
  co_return limit - (out_.size() - out_sent_);
}

Result<void> StreamImpl::write_now(std::string_view data) {
  if (closed_) return gone();
  if (out_end_) return fail(ErrorCode::kInternal, "write after the end of the body");
  if (out_sent_ > 0) {
    out_.erase(0, out_sent_);
    out_sent_ = 0;
  }
  out_.append(data);
  resume();
  return {};
}

Awaitable<Result<void>> StreamImpl::write(std::string_view data) {
  auto self = shared_from_this();
  while (!data.empty()) {
    SBX_CO_TRY(const std::size_t room, co_await writable(), "writing");
    const auto piece = data.substr(0, room);
    SBX_CO_CHECK(write_now(piece), "writing");
    data.remove_prefix(piece.size());
  }
  if (closed_) co_return gone();
  co_return Result<void>{};
}

Awaitable<Result<void>> StreamImpl::finish(HeaderList trailers) {
  auto self = shared_from_this();
  if (!closed_ && !out_end_) {
    out_trailers_ = std::move(trailers);
    out_end_ = true;
    resume();
  }
  while (!out_end_sent_ && !closed_) co_await writable_.wait();
  if (!out_end_sent_) co_return gone();
  co_return Result<void>{};
}

void StreamImpl::reset(std::uint32_t code) {
  auto session = session_.lock();
  if (closed_ || !session || !session->alive_) return;
  nghttp2_submit_rst_stream(session->session_, NGHTTP2_FLAG_NONE, id_, code);
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
    if (auto session = session_.lock(); out_end_ && !out_trailers_.empty() && session) {
      const auto fields = name_values(out_trailers_);
      if (nghttp2_submit_trailer(session->session_, id_, fields.data(), fields.size()) == 0) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
      }
    }
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
  nghttp2_option_set_no_closed_streams(option, 1);
  // nghttp2's own limit of resets has a burst and a rate; ours ends the session first.
  nghttp2_option_set_stream_reset_rate_limit(option, 10ULL * limits_.max_resets_per_second,
                                             2ULL * limits_.max_resets_per_second);
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
      {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
      {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1},
  };
  const std::size_t count = std::size(settings) - (server_ && limits_.extended_connect ? 0 : 1);
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, count);
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, INT32_MAX);
}

Awaitable<Result<void>> SessionImpl::run() {
  auto keep = self();
  asio::co_spawn(
      executor_, [keep]() -> Awaitable<void> { return keep->write_loop(); }, asio::detached);
  std::vector<char> buffer(limits_.io_buffer);
  Result<void> result;
  while (alive_) {
    const auto n = co_await transport_->read_some(buffer);
    if (!alive_) break;
    if (!n) {
      result = std::unexpected(n.error());
      break;
    }
    if (*n == 0) break;
    const auto used = nghttp2_session_mem_recv(session_, reinterpret_cast<std::uint8_t*>(buffer.data()), *n);
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
    while (batch.size() < limits_.io_buffer) {
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
      if (const auto written = co_await transport_->write(batch); !written) {
        end(written.error().message);
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
  transport_->reset();
  wake();
  auto streams = std::move(streams_);
  streams_.clear();
  for (auto& [id, stream] : streams) stream->mark_closed(end_reason_);
}

Result<std::shared_ptr<Http2Stream>> SessionImpl::open(Http2Head request, bool end) {
  if (!alive_) return fail(ErrorCode::kUnavailable, end_reason_);
  if (server_) return fail(ErrorCode::kInternal, "a server opens no streams");
  HeaderList headers;
  headers.emplace_back(":method", request.method);
  if (request.method == "CONNECT" && request.protocol.empty()) {
    headers.emplace_back(":authority", request.path);
  } else {
    headers.emplace_back(":scheme", request.scheme.empty() ? "http" : request.scheme);
    headers.emplace_back(":authority", request.authority.empty() ? "sbx" : request.authority);
    headers.emplace_back(":path", request.path);
    if (!request.protocol.empty()) headers.emplace_back(":protocol", request.protocol);
  }
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
  if (server_ ? frame->headers.cat == NGHTTP2_HCAT_HEADERS : stream->response_.has_value()) {
    if (!name.starts_with(':')) stream->trailers_.emplace_back(name, value);
    return 0;
  }
  Http2Head& head = server_ ? stream->request_ : stream->arriving_;
  if (name == ":method") {
    head.method = value;
  } else if (name == ":path") {
    head.path = value;
  } else if (name == ":authority") {
    head.authority = value;
  } else if (name == ":scheme") {
    head.scheme = value;
  } else if (name == ":protocol") {
    head.protocol = value;
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
  if (server_ && stream->request_.method == "CONNECT" && stream->request_.protocol.empty())
    stream->request_.path = stream->request_.authority;
  if (!server_ && !stream->response_) {
    auto head = std::exchange(stream->arriving_, {});
    if (head.status >= 200) {
      stream->response_ = std::move(head);
    } else {
      stream->informational_.push_back(std::move(head));
    }
  }
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
  stream->reset_code_ = error;
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

std::shared_ptr<Http2Session> Http2Session::client(std::shared_ptr<ByteStream> transport,
                                                   const asio::any_io_executor& executor, Http2Limits limits) {
  return std::make_shared<SessionImpl>(std::move(transport), executor, nullptr, false, limits);
}

std::shared_ptr<Http2Session> Http2Session::server(std::shared_ptr<ByteStream> transport,
                                                   const asio::any_io_executor& executor, Handler handler,
                                                   Http2Limits limits) {
  return std::make_shared<SessionImpl>(std::move(transport), executor, std::move(handler), true, limits);
}

std::shared_ptr<Http2Session> Http2Session::client(asio::posix::stream_descriptor transport, Http2Limits limits) {
  const auto executor = transport.get_executor();
  return client(std::make_shared<DescriptorStream>(std::move(transport)), executor, limits);
}

std::shared_ptr<Http2Session> Http2Session::server(asio::posix::stream_descriptor transport, Handler handler,
                                                   Http2Limits limits) {
  const auto executor = transport.get_executor();
  return server(std::make_shared<DescriptorStream>(std::move(transport)), executor, std::move(handler), limits);
}

}  // namespace sbx::wire
