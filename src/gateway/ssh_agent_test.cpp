// The SSH agent of the host behind a real gateway, and a guest that asks it for more than lists and signatures.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstring>
#include <future>
#include <mutex>

#include "gateway/agent_message.h"
#include "gateway/test_world.h"

namespace sbx::gateway::test {
namespace {

std::string number(std::uint32_t value) {
  std::string text;
  for (int shift = 24; shift >= 0; shift -= 8) text.push_back(static_cast<char>(value >> static_cast<unsigned>(shift)));
  return text;
}
std::string field(const std::string& text) { return number(static_cast<std::uint32_t>(text.size())) + text; }
std::string sign(const std::string& key) { return field("\x0d" + field(key) + field("data") + number(0)); }
const std::string kList = field("\x0b");
const std::string kFailure = field("\x05");
const std::string kKeys = field("\x0c" + number(1) + field("key") + field("me@\x1bhost"));
const std::string kSigned = field("\x0e" + field("signature"));

// What the keeper's supervisor and the agent are to a gateway: connections for the asking, and answers.
class FakeAgent {
 public:
  FakeAgent() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    ours_.reset(ends[0]);
    theirs_.reset(ends[1]);
    thread_ = std::thread([this] { connect(); });
  }
  ~FakeAgent() {
    ::shutdown(ours_.get(), SHUT_RDWR);
    thread_.join();
    for (auto& client : clients_) client.join();
  }
  int connector() const { return theirs_.get(); }
  // The messages that it got, their lengths left out.
  std::vector<std::string> got() {
    const std::lock_guard guard(mutex_);
    return got_;
  }

 private:
  void connect() {
    char byte = 0;
    while (::recv(ours_.get(), &byte, 1, 0) == 1) {
      int ends[2];
      if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return;
      const UniqueFd away(ends[1]);
      iovec data{&byte, 1};
      alignas(cmsghdr) char room[CMSG_SPACE(sizeof(int))] = {};
      msghdr message{};
      message.msg_iov = &data;
      message.msg_iovlen = 1;
      message.msg_control = room;
      message.msg_controllen = sizeof room;
      auto* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(header), &ends[1], sizeof(int));
      if (::sendmsg(ours_.get(), &message, MSG_NOSIGNAL) != 1) return;
      clients_.emplace_back([this, fd = ends[0]] { serve(UniqueFd(fd)); });
    }
  }
  void serve(UniqueFd client) {
    AgentFrames frames;
    char buffer[4096];
    for (ssize_t size = 0; (size = ::read(client.get(), buffer, sizeof buffer)) > 0;) {
      frames.feed({buffer, static_cast<std::size_t>(size)});
      for (auto next = frames.next(); next && *next; next = frames.next()) {
        {
          const std::lock_guard guard(mutex_);
          got_.push_back(**next);
        }
        const char type = (**next)[0];
        const bool known = parse_agent_request(**next).key == "key";
        (void)write_all(client.get(), type == 11 ? kKeys : type == 13 && known ? kSigned : kFailure);
      }
    }
  }

  UniqueFd ours_, theirs_;
  std::thread thread_;
  std::vector<std::thread> clients_;
  std::mutex mutex_;
  std::vector<std::string> got_;
};

struct Said {
  int status = 0;
  std::string bytes;
};

class SshAgentTest : public GatewayTest {
 protected:
  static std::unique_ptr<TestGateway> start_with(int connector, const std::vector<std::string>& options = {}) {
    return std::make_unique<TestGateway>(std::vector<nlohmann::json>(), world_->authority.root(),
                                         nlohmann::json::object(), TestGateway::Port::kSession, connector, options);
  }
  // What a client in the sandbox is told that says `words` and then nothing more.
  static Said say(TestGateway& gateway, const std::string& words) {
    const auto flow = [&]() -> wire::Awaitable<Said> {
      Said said;
      wire::Http2Head head;
      head.method = "POST";
      head.path = "/ssh-agent";
      auto stream = gateway.port()->open(std::move(head), false);
      if (!stream) co_return said;
      const auto response = co_await (*stream)->response();
      if (!response) co_return said;
      said.status = response->status;
      (void)co_await (*stream)->write(words);
      (void)co_await (*stream)->finish();
      for (;;) {
        const auto chunk = co_await (*stream)->read_chunk();
        if (!chunk || chunk->empty()) co_return said;
        said.bytes += *chunk;
      }
    };
    return gateway.run(flow());
  }
};

TEST_F(SshAgentTest, ListsItsKeysAndSignsAndEachSignatureIsInTheLog) {
  FakeAgent agent;
  const auto gateway = start_with(agent.connector());
  auto said = std::async(std::launch::async, [&] { return say(*gateway, kList + sign("key") + sign("other")); });
  const std::string id = gateway->log(1)[0]["id"];
  EXPECT_EQ(agent.got().size(), 2U) << "the next is not asked before the first is answered";
  EXPECT_FALSE(gateway->told("1-1")) << "a line of another gateway";
  EXPECT_FALSE(gateway->told(id + "1")) << "a line that there is not";
  EXPECT_FALSE(gateway->told(id + "x"));
  EXPECT_EQ(said.wait_for(std::chrono::seconds(0)), std::future_status::timeout) << "answered before it was recorded";
  EXPECT_TRUE(gateway->told(id));
  EXPECT_EQ(said.get().bytes, kKeys + kSigned + kFailure);
  EXPECT_EQ(agent.got().size(), 3U);
  const auto log = gateway->log(2);
  EXPECT_EQ(log[0]["kind"], "ssh-agent");
  EXPECT_EQ(log[0]["host"], key_fingerprint("key"));
  EXPECT_EQ(log[0]["method"], "sign");
  EXPECT_EQ(log[0]["allowed"], true);
  EXPECT_NE(log[0]["reason"].get<std::string>().find("me@"), std::string::npos) << "the key's comment";
  EXPECT_EQ(log[1]["host"], key_fingerprint("other"));
  EXPECT_EQ(log[1]["allowed"], false);
}

// The guest floods the log, so that the line is dropped before the daemon has it.
TEST_F(SshAgentTest, ASignatureWhoseLineIsLostIsNotGivenOut) {
  FakeAgent agent;
  const auto gateway = start_with(agent.connector());
  auto flooded = std::async(std::launch::async, [&] { return say(*gateway, sign("key")); });
  const std::string id = gateway->log(1)[0]["id"];
  std::string words;
  for (int i = 0; i < 1000; ++i) words += field("\x11");
  EXPECT_EQ(say(*gateway, words).bytes.size(), 1000 * kFailure.size());
  EXPECT_EQ(flooded.get().bytes, kFailure);
  EXPECT_TRUE(gateway->told(id)) << "too late";
}

// The daemon is not there.
TEST_F(SshAgentTest, ASignatureWhoseLineIsNotRecordedIsNotGivenOut) {
  FakeAgent agent;
  const auto gateway = start_with(agent.connector(), {"--recorded-ms", "300"});
  EXPECT_EQ(say(*gateway, sign("key")).bytes, kFailure);
  EXPECT_EQ(agent.got().size(), 1U) << "the agent was not asked";
}

TEST_F(SshAgentTest, NothingElseReachesIt) {
  FakeAgent agent;
  const auto gateway = start_with(agent.connector());
  std::string words, answers;
  for (int type = 0; type < 256; ++type) {
    if (type == 11 || type == 13) continue;
    words += field(std::string(1, static_cast<char>(type)) + field("anything"));
    answers += kFailure;
  }
  words += field("\x0b\x0b") + field("\x0d" + number(0xffffffff) + "key") + kList;
  EXPECT_EQ(say(*gateway, words).bytes, answers + kFailure + kFailure + kKeys);
  EXPECT_EQ(agent.got(), std::vector<std::string>{"\x0b"});
}

TEST_F(SshAgentTest, ALengthThatLiesEndsTheClientAndNobodyElse) {
  FakeAgent agent;
  const auto gateway = start_with(agent.connector());
  for (const std::uint32_t lie : {0U, 0xffffffffU, 0x40001U})
    EXPECT_EQ(say(*gateway, number(lie) + kList).bytes, kFailure);
  EXPECT_EQ(say(*gateway, number(100) + kList).bytes, "") << "the rest never comes";
  EXPECT_EQ(agent.got(), std::vector<std::string>{});
  EXPECT_EQ(say(*gateway, kList).bytes, kKeys);
}

// More clients than there are places, each with more to say than a stream holds.
TEST_F(SshAgentTest, AClientThatIsCutOffLeavesItsPlace) {
  FakeAgent agent;
  const auto gateway = start_with(agent.connector());
  const std::string flood = number(0xffffffffU) + std::string(300'000, 'x');
  for (int i = 0; i < 40; ++i) EXPECT_EQ(say(*gateway, flood).bytes, kFailure);
  EXPECT_EQ(say(*gateway, kList).bytes, kKeys);
}

TEST_F(SshAgentTest, IsNotThereUnlessForwarded) {
  const auto gateway = start_with(-1);
  EXPECT_EQ(say(*gateway, kList).status, 403);
}

TEST_F(SshAgentTest, ManyClientsAreServedAndTooManyRefused) {
  FakeAgent agent;
  const auto gateway = start_with(agent.connector());
  const auto open = [&]() -> wire::Awaitable<std::vector<int>> {
    std::vector<std::shared_ptr<wire::Http2Stream>> streams;
    std::vector<int> counts(2);
    for (int i = 0; i < 100; ++i) {
      wire::Http2Head head;
      head.method = "POST";
      head.path = "/ssh-agent";
      auto stream = gateway->port()->open(std::move(head), false);
      if (stream) streams.push_back(*stream);
    }
    for (const auto& stream : streams) {
      const auto response = co_await stream->response();
      if (response) ++counts[response->status == 200 ? 0 : 1];
    }
    for (const auto& stream : streams) stream->reset();
    co_return counts;
  };
  EXPECT_EQ(gateway->run(open()), (std::vector<int>{32, 68}));
  Said said;
  for (int i = 0; i < 1000 && said.status != 200; ++i) {
    said = say(*gateway, kList);
    if (said.status != 200) ::poll(nullptr, 0, 20);
  }
  EXPECT_EQ(said.bytes, kKeys) << "when they are gone there is room again";
}

}  // namespace
}  // namespace sbx::gateway::test
