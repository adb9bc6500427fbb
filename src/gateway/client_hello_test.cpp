#include "gateway/client_hello.h"

#include <gtest/gtest.h>
#include <openssl/ssl.h>

namespace sbx::gateway {
namespace {

// What OpenSSL sends first.
std::string real_hello(const std::string& name, const std::string& alpn) {
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  SSL* ssl = SSL_new(context);
  SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
  if (!name.empty()) SSL_set_tlsext_host_name(ssl, name.c_str());
  if (!alpn.empty()) SSL_set_alpn_protos(ssl, reinterpret_cast<const unsigned char*>(alpn.data()), alpn.size());
  SSL_set_connect_state(ssl);
  (void)SSL_do_handshake(ssl);
  char* data = nullptr;
  const auto size = BIO_get_mem_data(SSL_get_wbio(ssl), &data);
  std::string hello(data, static_cast<std::size_t>(size));
  SSL_free(ssl);
  SSL_CTX_free(context);
  return hello;
}

std::string number(std::size_t value, int size) {
  std::string text;
  for (int shift = (size - 1) * 8; shift >= 0; shift -= 8) text.push_back(static_cast<char>(value >> shift));
  return text;
}
std::string counted(const std::string& text, int size) { return number(text.size(), size) + text; }
std::string extension(int type, const std::string& body) { return number(type, 2) + counted(body, 2); }
std::string server_name(const std::string& name) {
  return extension(0, counted(std::string(1, '\0') + counted(name, 2), 2));
}
std::string hello_with(const std::string& extensions) {
  const auto body = "\x03\x03" + std::string(32, 'r') + counted("", 1) + counted("\x13\x01", 2) +
                    counted(std::string(1, '\0'), 1) + counted(extensions, 2);
  return std::string("\x16\x03\x01") + counted("\x01" + counted(body, 3), 2);
}

TEST(ClientHello, NameAndProtocolsOfARealClientAreRead) {
  const auto hello = parse_client_hello(real_hello("Example.COM", std::string("\x02h2\x08http/1.1")));
  ASSERT_TRUE(hello) << hello.error().describe();
  EXPECT_EQ(hello->server_name, "example.com");
  EXPECT_EQ(hello->alpn, (std::vector<std::string>{"h2", "http/1.1"}));
  EXPECT_FALSE(hello->encrypted_hello);
}

TEST(ClientHello, WithoutANameThereIsNone) {
  const auto hello = parse_client_hello(real_hello("", ""));
  ASSERT_TRUE(hello);
  EXPECT_EQ(hello->server_name, "");
  EXPECT_TRUE(hello->alpn.empty());
}

TEST(ClientHello, EveryPrefixAsksForMore) {
  const auto bytes = real_hello("example.com", std::string("\x02h2"));
  for (std::size_t n = 0; n < bytes.size(); ++n) {
    const auto hello = parse_client_hello(std::string_view(bytes).substr(0, n));
    ASSERT_FALSE(hello);
    EXPECT_EQ(hello.error().code, ErrorCode::kUnavailable) << n;
  }
}

TEST(ClientHello, RecordsOfOneByteAreputTogether) {
  const auto whole = hello_with(server_name("a.example"));
  std::string cut;
  for (const char c : whole.substr(5)) cut += std::string("\x16\x03\x01") + counted(std::string(1, c), 2);
  const auto hello = parse_client_hello(cut);
  ASSERT_TRUE(hello) << hello.error().describe();
  EXPECT_EQ(hello->server_name, "a.example");
}

TEST(ClientHello, AnEncryptedHelloIsSeen) {
  const auto hello = parse_client_hello(hello_with(server_name("a.example") + extension(0xfe0d, "x")));
  ASSERT_TRUE(hello);
  EXPECT_TRUE(hello->encrypted_hello);
}

TEST(ClientHello, WhatTwoReadersCouldReadDifferentlyIsRefused) {
  const auto two_names =
      extension(0, counted(std::string(1, '\0') + counted("a", 2) + std::string(1, '\0') + counted("b", 2), 2));
  for (const auto& bad : {
           hello_with(server_name("a.example") + server_name("b.example")),
           hello_with(two_names),
           hello_with(server_name(std::string("a\0b", 3))),
           hello_with(server_name("a b")),
           hello_with(server_name("")),
           hello_with(extension(0, "\xff")),
           hello_with(extension(16, counted("", 2))),
           hello_with(server_name("a.example") + "x"),
           hello_with(server_name("a.example")).insert(5, "\x02"),
           std::string("\x16\x03\x01\x00\x00", 5),
           std::string("\x16\x03\x01\xff\xff", 5),
       }) {
    const auto hello = parse_client_hello(bad);
    ASSERT_FALSE(hello);
    EXPECT_EQ(hello.error().code, ErrorCode::kInvalid);
  }
}

TEST(ClientHello, AnEndlessOneIsRefused) {
  std::string bytes;
  const auto body = "\x01" + number(0xffffff, 3) + std::string(16000, 'x');
  bytes += std::string("\x16\x03\x01") + counted(body, 2);
  const auto hello = parse_client_hello(bytes);
  ASSERT_FALSE(hello);
  EXPECT_EQ(hello.error().code, ErrorCode::kInvalid);
}

}  // namespace
}  // namespace sbx::gateway
