#include "policy/host.h"

#include <gtest/gtest.h>

#include "rapidcheck/gtest.h"

namespace sbx::policy {
namespace {

std::string host(std::string_view text) { return canonical_host(text).value_or("refused"); }

TEST(Host, HasOneSpelling) {
  EXPECT_EQ(host("Example.COM."), "example.com");
  EXPECT_EQ(host("[2001:DB8::0001]"), "2001:db8::1");
  EXPECT_EQ(host("2001:db8::1"), "2001:db8::1");
  EXPECT_EQ(host("::ffff:127.0.0.1"), "127.0.0.1");
  EXPECT_EQ(host("0x7f.1"), "127.0.0.1");
  EXPECT_EQ(host("2130706433"), "127.0.0.1");
  EXPECT_EQ(host("127.1."), "127.0.0.1");
  EXPECT_EQ(host("Host.Docker.Internal."), "localhost");
  EXPECT_EQ(host("xn--bcher-kva.example"), "xn--bcher-kva.example");
  EXPECT_EQ(host("_dmarc.a-.example"), "_dmarc.a-.example");
}

TEST(Host, RefusesWhatNoHostNameIs) {
  for (const std::string text : {"",
                                 ".",
                                 "..",
                                 "a..b",
                                 ".a",
                                 "a b",
                                 "a\tb",
                                 "b\xc3\xbc"
                                 "cher.example",
                                 "ex\xe2\x80\x8b"
                                 "ample.com",
                                 "a/b",
                                 "a:80",
                                 "fe80::1%eth0",
                                 "[fe80::1%eth0]",
                                 "[1.2.3.4]",
                                 "[::1",
                                 "1.2.3.4.5",
                                 "256.256.256.256",
                                 "a.08",
                                 "a.0x",
                                 "foo%2ecom",
                                 "user@host",
                                 "*.example.com",
                                 "a,b"}) {
    EXPECT_EQ(host(text), "refused") << text;
  }
  EXPECT_EQ(host(std::string("a\0b", 3)), "refused");
  EXPECT_EQ(host(std::string(64, 'a') + ".com"), "refused");
  std::string longest(62, 'a');
  for (int i = 0; i < 3; ++i) longest += "." + std::string(62, 'b');
  EXPECT_EQ(host(longest), longest);
  EXPECT_EQ(host(longest + ".ccc"), "refused");
}

RC_GTEST_PROP(Host, CanonicalFormIsItsOwnCanonicalForm, (const std::string& text)) {
  if (const auto once = canonical_host(text)) RC_ASSERT(canonical_host(*once).value_or("refused") == *once);
}

RC_GTEST_PROP(Host, CaseAndTrailingDotChangeNothing, ()) {
  const auto name = *rc::gen::container<std::string>(rc::gen::elementOf(std::string("abcXYZ019-_.")));
  const auto plain = canonical_host(name);
  std::string loud = name;
  for (char& c : loud) c = static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c);
  RC_ASSERT(canonical_host(loud).value_or("-") == plain.value_or("-"));
  if (!name.ends_with('.')) RC_ASSERT(canonical_host(name + ".").value_or("-") == plain.value_or("-"));
}

struct Written {
  const char* text;
  const char* host;
  int port;
};

TEST(Target, IsReadFromWhatPeopleWrite) {
  for (const Written& w : {Written{"example.com", "example.com", 443},
                           {"example.com:22", "example.com", 22},
                           {"http://example.com/x?y=z", "example.com", 80},
                           {"https://example.com", "example.com", 443},
                           {"https://u:p@Example.com:8443/a:b@c", "example.com", 8443},
                           {"10.1.2.3", "10.1.2.3", 443},
                           {"10.1.2.3:80", "10.1.2.3", 80},
                           {"2001:db8::1", "2001:db8::1", 443},
                           {"[2001:db8::1]:80", "2001:db8::1", 80},
                           {"[2001:db8::1]", "2001:db8::1", 443},
                           {"host.docker.internal:3000", "localhost", 3000},
                           {"wss://x.y", "x.y", 443},
                           {"https://good.com\\@evil.com", "good.com", 443}}) {
    const auto target = parse_target(w.text);
    ASSERT_TRUE(target) << w.text << ": " << target.error().message;
    EXPECT_EQ(target->host, w.host) << w.text;
    EXPECT_EQ(target->port, w.port) << w.text;
  }
  for (const char* text : {"", "a:b", "a:0", "a:65536", "ftp://x", "https://", "a:80:80", "a:+80", "a: 80"})
    EXPECT_FALSE(parse_target(text)) << text;
}

}  // namespace
}  // namespace sbx::policy
