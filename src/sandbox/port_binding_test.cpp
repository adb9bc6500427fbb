#include "sandbox/port_binding.h"

#include <gtest/gtest.h>
#include <unistd.h>

namespace sbx::sandbox {
namespace {

std::vector<BoundPort> bound(const std::string& spec) { return bind_spec(parse_port_spec(spec).value()).value(); }

TEST(PortBinding, AnEphemeralPortIsTheSameOnBothAddressesAndIsHadAgain) {
  auto ports = bound("3000/tcp");
  const auto number = ports.front().port.host_port;
  EXPECT_NE(number, 0);
  for (const auto& entry : ports) EXPECT_EQ(entry.port.host_port, number);
  const auto stored = ports.front().port;
  EXPECT_TRUE(stored.ephemeral);
  const auto other = bind_again(stored).value();
  EXPECT_NE(other.port.host_port, number) << "it is taken";
  ports.clear();
  EXPECT_EQ(bind_again(stored)->port.host_port, number);
}

TEST(PortBinding, APortThatIsTakenIsAConflictThatSaysByWhom) {
  for (const std::string protocol : {"/tcp4", "/udp4"}) {
    const auto first = bound("3000" + protocol);
    const std::string number = std::to_string(first.front().port.host_port);
    const auto second = bind_spec(parse_port_spec(number + ":3000" + protocol).value());
    ASSERT_FALSE(second) << protocol;
    EXPECT_EQ(second.error().code, ErrorCode::kConflict);
    const auto& message = second.error().message;
    EXPECT_NE(message.find("process " + std::to_string(::getpid())), std::string::npos) << message;
    EXPECT_NE(message.find("choose another"), std::string::npos) << message;
    const auto again = bind_again({"127.0.0.1", first.front().port.host_port, 3000, protocol.substr(1, 3), false});
    ASSERT_FALSE(again) << "it was asked for by number";
    EXPECT_EQ(again.error().code, ErrorCode::kConflict);
  }
}

TEST(PortBinding, AnAddressThatTheHostDoesNotHaveIsRefused) {
  const auto spec = bind_spec(parse_port_spec("192.0.2.7:0:80").value());
  ASSERT_FALSE(spec);
  EXPECT_EQ(spec.error().code, ErrorCode::kInvalid);
}

}  // namespace
}  // namespace sbx::sandbox
