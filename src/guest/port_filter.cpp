#include "guest/port_filter.h"

#include <algorithm>
#include <cstring>

#include "wire/resync.h"

namespace sbx::guest {
namespace {
constexpr std::size_t kPrefaceSize = 24;     // RFC 9113, 3.4
constexpr std::size_t kFrameHeaderSize = 9;  // RFC 9113, 4.1
constexpr char kFirst = wire::kResyncMagic[0];
}  // namespace

std::optional<Nonce> SynMatcher::push(char byte, std::string& rejected) {
  const auto magic = wire::kResyncMagic;
  if (held_.size() < magic.size() && byte != magic[held_.size()]) {
    rejected += held_;
    held_.clear();
    // The first byte of the magic occurs in it only once, so that a match can begin nowhere but here.
    if (byte != kFirst) {
      rejected += byte;
      return std::nullopt;
    }
  }
  held_ += byte;
  if (held_.size() < kSynSize) return std::nullopt;
  Nonce nonce;
  std::memcpy(nonce.data(), held_.data() + magic.size(), nonce.size());
  held_.clear();
  return nonce;
}

void PortFilter::reset() {
  state_ = State::kScanning;
  matcher_.reset();
}

void PortFilter::begin(const Nonce& nonce) {
  nonce_ = nonce;
  state_ = State::kLeading;
  matcher_.reset();
  shadow_.reset();
  seen_once_.reset();
  remaining_ = peer_ == PortPeer::kClient ? kPrefaceSize : 0;
  header_.clear();
}

std::optional<Nonce> PortFilter::watch_payload(char byte) {
  std::string rejected;
  const auto nonce = shadow_.push(byte, rejected);
  if (!rejected.empty()) seen_once_.reset();
  if (!nonce || *nonce == nonce_) return std::nullopt;
  if (seen_once_ == nonce) return nonce;
  seen_once_ = nonce;
  return std::nullopt;
}

void PortFilter::pass(std::string_view bytes, std::string& clean) {
  clean += bytes;
  for (const char byte : bytes) {
    header_ += byte;
    if (header_.size() < kFrameHeaderSize) continue;
    const auto at = [&](std::size_t i) { return static_cast<std::size_t>(static_cast<unsigned char>(header_[i])); };
    remaining_ = at(0) << 16U | at(1) << 8U | at(2);
    header_.clear();
  }
}

std::optional<Nonce> PortFilter::feed(std::string_view& input, std::string& clean) {
  while (!input.empty()) {
    // The bulk: payload without the first byte of the magic.
    if (state_ == State::kFrames && remaining_ > 0 && shadow_.idle() && !seen_once_) {
      auto bulk = input.substr(0, remaining_);
      bulk = bulk.substr(0, bulk.find(kFirst));
      clean += bulk;
      remaining_ -= bulk.size();
      input.remove_prefix(bulk.size());
      if (input.empty()) break;
    }
    const char byte = input.front();
    input.remove_prefix(1);

    if (state_ == State::kFrames && remaining_ > 0) {
      clean += byte;
      --remaining_;
      if (const auto nonce = watch_payload(byte)) {
        begin(*nonce);
        return nonce;
      }
      continue;
    }
    // Here a SYN may stand alone: before a session, before its first byte, or between two frames.
    if (state_ == State::kFrames && !(header_.empty() && byte == kFirst) && matcher_.idle()) {
      pass({&byte, 1}, clean);
      if (const auto nonce = watch_payload(byte)) {
        begin(*nonce);
        return nonce;
      }
      continue;
    }
    rejected_.clear();
    if (const auto nonce = matcher_.push(byte, rejected_)) {
      if (state_ != State::kScanning && *nonce == nonce_) continue;
      begin(*nonce);
      return nonce;
    }
    if (rejected_.empty() || state_ == State::kScanning) continue;
    if (state_ == State::kLeading) {
      state_ = State::kFrames;
      const std::string_view bytes = rejected_;
      const auto preface = std::min(remaining_, bytes.size());
      clean += bytes.substr(0, preface);
      remaining_ -= preface;
      pass(bytes.substr(preface), clean);
    } else {
      pass(rejected_, clean);
    }
    shadow_.reset();
    seen_once_.reset();
  }
  return std::nullopt;
}

}  // namespace sbx::guest
