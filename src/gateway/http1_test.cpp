// Heads and chunks of HTTP/1.1, among them those that two readers could read differently.
#include <gtest/gtest.h>

#include "gateway/chunked_decoder.h"
#include "gateway/http1_head.h"

namespace sbx::gateway {
namespace {

TEST(Http1Head, ARequestIsReadAndWrittenAnew) {
  const auto request =
      parse_request_head("POST /a?b=1 HTTP/1.1\r\nHOST: example.com\r\nX-A:  b \r\ncontent-length: 3\r\n\r\n");
  ASSERT_TRUE(request) << request.error().describe();
  EXPECT_EQ(request->method, "POST");
  EXPECT_EQ(request->target, "/a?b=1");
  EXPECT_EQ(write_head(*request), "POST /a?b=1 HTTP/1.1\r\nhost: example.com\r\nx-a: b\r\ncontent-length: 3\r\n\r\n");
  EXPECT_EQ(request_body(*request)->size, 3U);
}

TEST(Http1Head, WhatCanSmuggleARequestIsRefused) {
  const std::string host = "Host: a\r\n";
  for (const auto& bad : std::vector<std::string>{
           "GET / HTTP/1.1\r\n\r\n",                                                        // no Host
           "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",                                  //
           "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",                                  //
           "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",  //
           "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",                    //
           "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",                      //
           "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n",                     //
           "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",    //
           "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",                         //
           "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
           "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
           "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
           "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
           "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n",
           "POST / HTTP/1.1\r\nHost: a\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n",
           "POST / HTTP/1.1\r\nHost: a\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n",
           "POST / HTTP/1.1\r\nHost: a\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n",
           "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
           "GET / HTTP/1.1\nHost: a\n\r\n\r\n",
           "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
           "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
           "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
           "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
           "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
           "GET / http/1.1\r\nHost: a\r\n\r\n",
           "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
           "GET / HTTP/1.1\r\n: a\r\nHost: a\r\n\r\n",
           "GET / HTTP/1.1\r\nHo st: a\r\n\r\n",
           std::string("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 35),
       }) {
    const auto request = parse_request_head(bad);
    EXPECT_FALSE(request) << bad;
  }
}

TEST(Http1Head, HowAResponseEndsDependsOnTheRequest) {
  const auto counted = parse_response_head("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").value();
  EXPECT_EQ(response_body(counted, "GET")->size, 5U);
  EXPECT_EQ(response_body(counted, "HEAD")->kind, BodyLength::Kind::kNone);
  const auto open = parse_response_head("HTTP/1.0 200\r\n\r\n").value();
  EXPECT_EQ(response_body(open, "GET")->kind, BodyLength::Kind::kUntilClose);
  const auto none = parse_response_head("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n").value();
  EXPECT_EQ(response_body(none, "GET")->kind, BodyLength::Kind::kNone);
  EXPECT_FALSE(parse_response_head("HTTP/1.1 2000 OK\r\n\r\n"));
  EXPECT_FALSE(parse_response_head("HTTP/1.1 20x OK\r\n\r\n"));
}

TEST(Http1Head, HopHeadersGoAndNobodyNamesTheHostAway) {
  HeaderList headers = parse_fields(
                           "connection: close, x-mine, host, content-length\r\nhost: a\r\nx-mine: 1\r\n"
                           "keep-alive: 5\r\nproxy-authorization: x\r\ncontent-length: 2\r\naccept: b\r\n")
                           .value();
  remove_hop_headers(headers);
  EXPECT_EQ(headers.size(), 3U);
  EXPECT_NE(find_header(headers, "host"), nullptr);
  EXPECT_NE(find_header(headers, "content-length"), nullptr);
}

std::string decode(std::string_view bytes, std::size_t step, bool& ok, ChunkedDecoder& decoder) {
  std::string body;
  ok = true;
  for (std::size_t at = 0; at < bytes.size() && !decoder.done(); at += step) {
    auto input = bytes.substr(at, step);
    while (!input.empty() && !decoder.done()) {
      const auto piece = decoder.feed(input);
      if (!piece) {
        ok = false;
        return body;
      }
      body += *piece;
    }
  }
  return body;
}

TEST(ChunkedDecoder, AnyCuttingGivesTheSameBody) {
  const std::string_view bytes =
      "5;name=value\r\nhello\r\n06\r\n world\r\n0\r\nChecksum: 1\r\nContent-Length: 9\r\n\r\n";
  for (std::size_t step = 1; step < bytes.size(); ++step) {
    ChunkedDecoder decoder;
    bool ok = false;
    EXPECT_EQ(decode(bytes, step, ok, decoder), "hello world");
    EXPECT_TRUE(ok && decoder.done());
    ASSERT_EQ(decoder.trailers().size(), 1U);
    EXPECT_EQ(decoder.trailers()[0].first, "checksum");
  }
}

TEST(ChunkedDecoder, MalformedChunksAreRefused) {
  for (const std::string_view bad :
       {"5\nhello\r\n0\r\n\r\n", "5\r\nhelloX0\r\n\r\n", "+5\r\nhello\r\n", "0x5\r\nhello\r\n", " 5\r\nhello\r\n",
        "5 \r\nhello\r\n", "\r\n", "-1\r\n", "ffffffffffffffff\r\n", "0\r\nfoo\r\n\r\n", "0\r\nX: y\r\n z: a\r\n\r\n",
        "5;a\rb\r\nhello\r\n"}) {
    ChunkedDecoder decoder;
    bool ok = true;
    (void)decode(bad, bad.size(), ok, decoder);
    EXPECT_FALSE(ok) << bad;
  }
}

TEST(ChunkedDecoder, WhatIsWrittenIsReadBack) {
  ChunkedDecoder decoder;
  bool ok = false;
  HeaderList trailers;
  trailers.emplace_back("grpc-status", "0");
  EXPECT_EQ(
      decode(write_chunk("abc") + write_chunk(std::string(300, 'x')) + write_last_chunk(trailers), 7, ok, decoder),
      "abc" + std::string(300, 'x'));
  EXPECT_TRUE(ok && decoder.done());
  EXPECT_EQ(decoder.trailers(), trailers);
}

}  // namespace
}  // namespace sbx::gateway
