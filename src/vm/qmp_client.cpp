#include "vm/qmp_client.h"

#include <sys/socket.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <cstring>

namespace sbx::vm {

namespace asio = boost::asio;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

struct QmpClient::State {
  State(asio::any_io_executor ex, UniqueFd fd)
      : executor(std::move(ex)), socket(executor, fd.release()), turn(executor) {
    turn.expires_at(Clock::time_point::max());
    boost::system::error_code ignored;
    socket.non_blocking(true, ignored);
  }

  asio::any_io_executor executor;
  asio::posix::stream_descriptor socket;
  asio::steady_timer turn;  // never expires; cancelled when the next caller may try
  bool busy = false;
  bool broken = false;
  std::string buffer;
  std::deque<json> events;
  std::uint64_t events_seen = 0;
  std::uint64_t next_id = 1;
};

namespace {

// Cancels what waits on `socket` when the deadline passes. A cancellation that comes late hits somebody else's wait:
// so every wait that is aborted without its own deadline having passed is simply begun again.
template <typename Socket>
class Deadline {
 public:
  Deadline(asio::any_io_executor executor, Socket& socket, Clock::time_point when)
      : timer_(executor, when), passed_(std::make_shared<bool>(false)) {
    timer_.async_wait([&socket, passed = std::weak_ptr<bool>(passed_)](const boost::system::error_code& error) {
      const auto flag = passed.lock();
      if (error || !flag) return;
      *flag = true;
      boost::system::error_code ignored;
      socket.cancel(ignored);
    });
  }
  bool passed() const { return *passed_; }

 private:
  asio::steady_timer timer_;
  std::shared_ptr<bool> passed_;
};

std::string printable(std::string text) {
  if (text.size() > 500) text.resize(500);
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return text;
}

template <typename State>
std::unexpected<Error> break_off(State& state, ErrorCode code, std::string message) {
  state.broken = true;
  return fail(code, std::move(message));
}

// One line of the peer's. kTimeout leaves what has arrived in the buffer.
template <typename State>
Awaitable<Result<json>> read_message(std::shared_ptr<State> state, Clock::time_point when) {
  std::array<char, 16384> chunk;
  while (true) {
    if (state->broken) co_return fail(ErrorCode::kUnavailable, "the connection to QEMU is closed");
    const std::size_t end = state->buffer.find('\n');
    if (end != std::string::npos) {
      json message =
          json::parse(state->buffer.begin(), state->buffer.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
      state->buffer.erase(0, end + 1);
      if (!message.is_object()) co_return break_off(*state, ErrorCode::kInvalid, "QEMU sent a line that is no QMP");
      if (message.contains("event")) {
        state->events.push_back(message);
        ++state->events_seen;
        if (state->events.size() > QmpClient::kMaximumEvents) state->events.pop_front();
      }
      co_return message;
    }
    if (state->buffer.size() > QmpClient::kMaximumLine) {
      co_return break_off(*state, ErrorCode::kInvalid, "QEMU sent a QMP line of more than 1 MiB");
    }
    Deadline<asio::posix::stream_descriptor> deadline(state->executor, state->socket, when);
    boost::system::error_code error;
    const std::size_t n =
        co_await state->socket.async_read_some(asio::buffer(chunk), asio::redirect_error(asio::use_awaitable, error));
    state->buffer.append(chunk.data(), n);
    if (!error) continue;
    if (error == asio::error::operation_aborted && state->socket.is_open()) {
      if (!deadline.passed() && Clock::now() < when) continue;
      co_return fail(ErrorCode::kTimeout, "QEMU did not answer in time");
    }
    co_return break_off(*state, ErrorCode::kUnavailable, "QEMU closed its QMP connection: " + error.message());
  }
}

ssize_t send_with_fd(int socket, std::string_view data, int fd) {
  iovec part{const_cast<char*>(data.data()), data.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  if (fd >= 0) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  return ::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

template <typename State>
Awaitable<Result<void>> send(std::shared_ptr<State> state, std::string line, int fd, Clock::time_point when) {
  std::string_view rest = line;
  while (!rest.empty()) {
    const ssize_t n = send_with_fd(state->socket.native_handle(), rest, fd);
    if (n > 0) {
      rest.remove_prefix(static_cast<std::size_t>(n));
      fd = -1;
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) {
      co_return break_off(*state, ErrorCode::kUnavailable, std::string("writing to QEMU: ") + std::strerror(errno));
    }
    Deadline<asio::posix::stream_descriptor> deadline(state->executor, state->socket, when);
    boost::system::error_code error;
    co_await state->socket.async_wait(asio::posix::descriptor_base::wait_write,
                                      asio::redirect_error(asio::use_awaitable, error));
    // Half a line is sent: nothing that follows would be understood.
    if (deadline.passed() || Clock::now() >= when) {
      co_return break_off(*state, ErrorCode::kTimeout, "QEMU does not read its commands");
    }
  }
  co_return Result<void>{};
}

template <typename State>
class Turn {
 public:
  explicit Turn(std::shared_ptr<State> state) : state_(std::move(state)) { state_->busy = true; }
  ~Turn() {
    state_->busy = false;
    state_->turn.cancel_one();
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  std::shared_ptr<State> state_;
};

template <typename State>
Awaitable<void> wait_for_turn(std::shared_ptr<State> state) {
  while (state->busy) {
    boost::system::error_code ignored;
    co_await state->turn.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }
}

}  // namespace

QmpClient::QmpClient(asio::any_io_executor executor, UniqueFd socket)
    : state_(std::make_shared<State>(std::move(executor), std::move(socket))) {}
QmpClient::QmpClient(QmpClient&&) noexcept = default;
QmpClient& QmpClient::operator=(QmpClient&&) noexcept = default;
QmpClient::~QmpClient() {
  if (!state_) return;
  state_->broken = true;
  boost::system::error_code ignored;
  state_->socket.close(ignored);
}

std::deque<json>& QmpClient::events() { return state_->events; }

Awaitable<Result<void>> QmpClient::handshake(Duration deadline) {
  auto state = state_;
  const auto when = Clock::now() + deadline;
  SBX_CO_TRY(const json greeting, co_await read_message(state, when), "waiting for QEMU's greeting");
  if (!greeting.contains("QMP")) co_return break_off(*state, ErrorCode::kInvalid, "QEMU did not send its QMP greeting");
  json none = json::object();
  SBX_CO_CHECK(co_await execute("qmp_capabilities", std::move(none), -1, deadline), "negotiating with QEMU");
  co_return Result<void>{};
}

Awaitable<Result<json>> QmpClient::execute(std::string command, json arguments, int fd, Duration duration) {
  auto state = state_;
  co_await wait_for_turn(state);
  Turn<State> turn(state);
  if (state->broken) co_return fail(ErrorCode::kUnavailable, "the connection to QEMU is closed");
  const auto when = Clock::now() + duration;
  const std::uint64_t id = state->next_id++;
  json request = json::object();
  request["execute"] = command;
  if (!arguments.empty()) request["arguments"] = std::move(arguments);
  request["id"] = id;
  std::string line = request.dump() + "\n";
  SBX_CO_CHECK(co_await send(state, std::move(line), fd, when), "QMP " + command);
  while (true) {
    SBX_CO_TRY(json message, co_await read_message(state, when), "QMP " + command);
    const auto answered = message.find("id");
    // An event, or the late answer to a call that gave up.
    if (answered == message.end() || *answered != id) {
      if (message.contains("event") || answered != message.end()) continue;
      if (!message.contains("error")) continue;
    }
    if (const auto error = message.find("error"); error != message.end()) {
      std::string text = "no reason given";
      if (error->is_object() && error->contains("desc") && (*error)["desc"].is_string()) {
        text = printable((*error)["desc"].get<std::string>());
      }
      co_return fail(ErrorCode::kInternal, "QEMU refused '" + command + "': " + text);
    }
    const auto value = message.find("return");
    if (value == message.end()) co_return break_off(*state, ErrorCode::kInvalid, "QEMU's answer has no content");
    json result = std::move(*value);
    co_return result;
  }
}

Awaitable<void> QmpClient::readable() {
  auto state = state_;
  boost::system::error_code ignored;
  co_await state->socket.async_wait(asio::posix::descriptor_base::wait_read,
                                    asio::redirect_error(asio::use_awaitable, ignored));
}

Awaitable<Result<void>> QmpClient::wait_for_event(Duration duration) {
  auto state = state_;
  const auto when = Clock::now() + duration;
  const std::uint64_t before = state->events_seen;
  co_await wait_for_turn(state);
  Turn<State> turn(state);
  while (state->events_seen == before) {
    SBX_CO_CHECK(co_await read_message(state, when), "waiting for an event of QEMU's");
  }
  co_return Result<void>{};
}

}  // namespace sbx::vm
