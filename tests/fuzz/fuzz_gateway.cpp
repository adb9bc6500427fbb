// What a guest (or a server) may send to a gateway: ClientHello, HTTP/1 heads and chunks, compressed bodies, DNS
// messages, first bytes, messages for the SSH agent.
// The first byte chooses.
#include <cstddef>
#include <cstdint>

#include "gateway/agent_message.h"
#include "gateway/base64.h"
#include "gateway/chunked_decoder.h"
#include "gateway/client_hello.h"
#include "gateway/content_decoder.h"
#include "gateway/dns_message.h"
#include "gateway/first_bytes.h"
#include "gateway/http1_head.h"
#include "gateway/replacer.h"

using namespace sbx::gateway;

namespace {

void check(bool holds) {
  if (!holds) __builtin_trap();
}

// What was understood is written so that it is understood again, and the same.
void head(std::string_view bytes) {
  const auto size = head_size(bytes);
  if (!size || *size == 0) return;
  const auto request = parse_request_head(bytes.substr(0, *size));
  if (request) {
    const auto text = write_head(*request);
    if (!request->http10) {
      const auto again = parse_request_head(text);
      check(again && again->method == request->method && again->target == request->target &&
            again->headers == request->headers);
    }
    auto headers = request->headers;
    remove_hop_headers(headers);
    check(find_header(headers, "transfer-encoding") == nullptr);
  }
  if (const auto response = parse_response_head(bytes.substr(0, *size))) {
    (void)response_body(*response, "GET");
    check(parse_response_head(write_head(*response)).has_value());
  }
}

// Whole or in pieces, the body is the same.
void chunks(std::string_view bytes) {
  std::string bodies[2];
  bool good[2] = {true, true};
  const std::size_t steps[2] = {bytes.size() + 1, 3};
  for (std::size_t which = 0; which < 2; ++which) {
    const std::size_t step = steps[which];
    ChunkedDecoder decoder;
    for (std::size_t at = 0; at < bytes.size() && good[which] && !decoder.done(); at += step) {
      auto input = bytes.substr(at, step);
      while (!input.empty() && !decoder.done()) {
        const auto piece = decoder.feed(input);
        if (!piece) {
          good[which] = false;
          break;
        }
        bodies[which] += *piece;
      }
    }
  }
  check(good[0] == good[1]);
  if (good[0]) check(bodies[0] == bodies[1]);
}

void dns(std::string_view bytes) {
  if (const auto question = parse_dns_query(bytes)) {
    check(!question->name.empty() && question->name.size() <= 253);
    const auto answer = write_dns_answer(*question, DnsCode::kNoError, {address_record(1, 1)});
    check(answer.size() <= kMaxDnsReply);
  }
  for (const auto type : {DnsType::kMx, DnsType::kTxt, DnsType::kSrv, DnsType::kNs}) {
    for (const auto& record : parse_dns_records(bytes, type)) check(record.data.size() <= 65535 + 256);
  }
}

void replace(std::string_view bytes) {
  Replacer replacer;
  replacer.add("secret", "******");
  replacer.add("crets", "-----");
  check(replacer.keeps_length());
  std::string out;
  for (std::size_t at = 0; at < bytes.size(); at += 2) out += replacer.feed(bytes.substr(at, 2));
  out += replacer.finish();
  check(out.size() == bytes.size() && out.find("secret") == std::string::npos);
}

// In pieces and whole, a compressed body is the same.
void decode(std::string_view bytes) {
  std::string bodies[2];
  bool good[2] = {true, true};
  const std::size_t steps[2] = {bytes.size() + 1, 7};
  for (std::size_t which = 0; which < 2; ++which) {
    const auto decoder = ContentDecoder::make("gzip");
    for (std::size_t at = 0; at < bytes.size() && good[which]; at += steps[which]) {
      const auto piece = decoder->feed(bytes.substr(at, steps[which]));
      good[which] = piece.has_value();
      if (piece) bodies[which] += *piece;
    }
    good[which] = good[which] && decoder->finish();
  }
  check(good[0] == good[1] && (!good[0] || bodies[0] == bodies[1]));
}

// Whole or byte by byte, the messages are the same; and what passes to the agent is one of two, whole.
void agent(std::string_view bytes) {
  std::string cut[2];
  for (std::size_t which = 0; which < 2; ++which) {
    AgentFrames frames;
    const std::size_t step = which == 0 ? bytes.size() + 1 : 1;
    bool good = true;
    for (std::size_t at = 0; at < bytes.size() && good; at += step) {
      frames.feed(bytes.substr(at, step));
      for (;;) {
        const auto message = frames.next();
        good = message.has_value();
        if (!good || !*message) break;
        check(!(*message)->empty() && (*message)->size() <= kLongestAgentMessage);
        cut[which] += std::to_string((*message)->size()) + **message;
        const auto request = parse_agent_request(**message);
        if (request.kind == AgentRequest::Kind::kIdentities) check((*message)->size() == 1 && **message == "\x0b");
        if (request.kind == AgentRequest::Kind::kSign) {
          check((*message)->front() == 13 && !request.key.empty());
          check((*message)->size() >= 13 + request.key.size());
        }
        (void)is_sign_response(**message);
        if (const auto keys = parse_identities_answer(**message)) check(keys->size() <= (*message)->size() / 8);
      }
    }
  }
  check(cut[0] == cut[1]);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 8) {
    case 0:
      if (const auto hello = parse_client_hello(bytes)) check(hello->server_name.size() <= 255);
      break;
    case 1:
      head(bytes);
      break;
    case 2:
      chunks(bytes);
      break;
    case 3:
      dns(bytes);
      break;
    case 4:
      replace(bytes);
      break;
    case 5:
      decode(bytes);
      break;
    case 6:
      agent(bytes);
      break;
    default:
      (void)classify(bytes);
      if (const auto decoded = base64_decode(bytes)) check(base64_encode(*decoded) == bytes);
  }
  return 0;
}
