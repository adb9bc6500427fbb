#include "gateway/ssh_agent.h"

#include <sys/socket.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>
#include <cstring>

#include "gateway/agent_message.h"
#include "wire/length_prefix.h"

namespace sbx::gateway {

namespace asio = boost::asio;

namespace {

constexpr auto kToken = asio::as_tuple(asio::use_awaitable);
constexpr std::string_view kSeen = "ssh-agent";  // the kind of its lines in the log
// Each may hold two messages of the longest kind.
constexpr std::size_t kMostClients = 32;
constexpr std::size_t kPiece = 16U << 10U;
constexpr std::size_t kLongestComment = 200;  // of a key, in the log

wire::HeaderList no_headers() { return {}; }

std::string failure() { return agent_message(AgentMessage::kFailure); }

// A connection that the supervisor sent along with its byte; none: it could not connect.
Result<UniqueFd> receive_connection(int connector) {
  char byte = 0;
  iovec data{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t got = ::recvmsg(connector, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (got < 0) return fail_errno("receiving a connection to the SSH agent", errno);
  UniqueFd connection;
  const auto* header = CMSG_FIRSTHDR(&message);
  if (header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
    connection.reset(fd);
  }
  if (!connection.valid()) return fail(ErrorCode::kUnavailable, "the host's SSH agent does not answer");
  return connection;
}

struct Counted {
  explicit Counted(std::size_t& the_count) : count(the_count) { ++count; }
  ~Counted() { --count; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  std::size_t& count;
};

}  // namespace

SshAgent::SshAgent(const asio::any_io_executor& executor, UniqueFd connector, DecisionLog& log,
                   std::chrono::milliseconds recorded_within)
    : executor_(executor), connector_(executor), log_(log), recorded_within_(recorded_within), asked_(executor) {
  if (connector.valid()) connector_.assign(connector.release());
}

Awaitable<void> SshAgent::serve(std::shared_ptr<wire::Http2Stream> stream) {
  if (!connector_.is_open()) {
    const Error error{ErrorCode::kDenied, "no SSH agent is forwarded to this sandbox", {}};
    co_return co_await wire::send_error(*stream, error);
  }
  if (clients_ >= kMostClients) {
    const Error error{ErrorCode::kUnavailable, "too many clients of the SSH agent", {}};
    co_return co_await wire::send_error(*stream, error);
  }
  const Counted counted(clients_);
  auto agent = co_await connect();
  if (!agent) co_return co_await wire::send_error(*stream, agent.error());
  if (!stream->respond(200, no_headers(), false)) co_return;
  // A session that ends withdraws what its clients have asked for.
  asio::co_spawn(
      executor_,
      [stream, connection = *agent]() -> Awaitable<void> {
        co_await stream->closed();
        boost::system::error_code ignored;
        connection->close(ignored);
      },
      asio::detached);
  co_await relay(stream, *agent);
  boost::system::error_code ignored;
  (*agent)->close(ignored);
  (void)co_await stream->finish();
  // What the client still says is for nobody. It is taken, or the client would wait for room and never learn of the
  // end.
  for (bool more = true; more;) {
    const auto rest = co_await stream->read_chunk();
    more = rest && !rest->empty();
  }
  co_await stream->closed();
}

// One request at a time: answers bear no names.
Awaitable<Result<std::shared_ptr<SshAgent::Descriptor>>> SshAgent::connect() {
  while (asking_) co_await asked_.wait();
  asking_ = true;
  auto connection = co_await ask();
  asking_ = false;
  asked_.notify();
  if (!connection) co_return std::unexpected(std::move(connection.error()));
  co_return std::make_shared<Descriptor>(executor_, connection->release());
}

Awaitable<Result<UniqueFd>> SshAgent::ask() {
  if (::send(connector_.native_handle(), "c", 1, MSG_NOSIGNAL | MSG_DONTWAIT) != 1) {
    co_return fail_errno("asking for the SSH agent", errno);
  }
  const auto [error] = co_await connector_.async_wait(Descriptor::wait_read, kToken);
  if (error) co_return fail(ErrorCode::kUnavailable, "asking for the SSH agent: " + error.message());
  co_return receive_connection(connector_.native_handle());
}

// Requests in their order; the next is read when the last has its answer.
Awaitable<void> SshAgent::relay(std::shared_ptr<wire::Http2Stream> stream, std::shared_ptr<Descriptor> agent) {
  AgentFrames frames;
  for (;;) {
    auto message = frames.next();
    if (!message) {
      log("", false, "the client is cut off: " + message.error().message);
      (void)co_await stream->write(wire::length_prefixed(failure()));
      co_return;
    }
    if (!*message) {
      const auto chunk = co_await stream->read_chunk();
      if (!chunk || chunk->empty()) co_return;
      frames.feed(*chunk);
      continue;
    }
    auto answered = co_await answer(agent, std::move(**message));
    if (!answered) co_return;
    if (!co_await stream->write(wire::length_prefixed(*answered))) co_return;
  }
}

// An Error: the agent is gone.
Awaitable<Result<std::string>> SshAgent::answer(std::shared_ptr<Descriptor> agent, std::string message) {
  const auto request = parse_agent_request(message);
  if (request.kind == AgentRequest::Kind::kRefused) {
    const int type = static_cast<unsigned char>(message.front());
    log("", false, "request " + std::to_string(type) + " is not let through: only listing keys and signing are");
    co_return failure();
  }
  const std::string framed = wire::length_prefixed(message);
  const auto [unwritten, sent] = co_await asio::async_write(*agent, asio::buffer(framed), kToken);
  if (unwritten) co_return fail(ErrorCode::kUnavailable, "the SSH agent is gone");
  AgentFrames frames;
  std::array<char, kPiece> buffer;
  std::string reply;
  for (;;) {
    auto next = frames.next();
    if (!next) co_return std::unexpected(std::move(next.error()));
    if (*next) {
      reply = std::move(**next);
      break;
    }
    const auto [unread, size] = co_await agent->async_read_some(asio::buffer(buffer), kToken);
    if (unread) co_return fail(ErrorCode::kUnavailable, "the SSH agent is gone");
    frames.feed({buffer.data(), size});
  }
  if (request.kind == AgentRequest::Kind::kIdentities) {
    const auto keys = parse_identities_answer(reply);
    if (!keys) co_return failure();
    comments_.clear();
    for (const auto& [blob, comment] : *keys) comments_[key_fingerprint(blob)] = comment.substr(0, kLongestComment);
    co_return reply;
  }
  const std::string key = key_fingerprint(request.key);
  const bool is_signed = is_sign_response(reply);
  const auto comment = comments_.find(key);
  const std::string named = comment == comments_.end() ? "" : " (" + comment->second + ")";
  const auto line =
      log(key, is_signed,
          (is_signed ? "a signature was made with this key" : "the agent did not sign with this key") + named);
  // Whoever floods the log or ends this process meanwhile does so without the signature.
  if (!is_signed || !co_await log_.recorded(line, recorded_within_)) co_return failure();
  co_return reply;
}

std::uint64_t SshAgent::log(const std::string& key, bool allowed, std::string reason) {
  policy::Target target;
  target.host = key.empty() ? std::string(kSeen) : key;
  if (!key.empty()) target.method = "sign";
  policy::Decision decision;
  decision.allowed = allowed;
  decision.reason = std::move(reason);
  return log_.add(kSeen, target, decision);
}

}  // namespace sbx::gateway
