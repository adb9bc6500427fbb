// PktLines: what a sandbox's `git upload-pack` says, on its way to the host's git (gitprotocol-common(5), pkt-line).
// git shows progress and errors of a server as they are. Here every packet that is no pack data has its control
// characters masked, so that none reaches a terminal; the packets keep their lengths.
// Holds one packet of text at most (64 KiB). Thread safety: none.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace sbx::cli {

class PktLines {
 public:
  // What may be passed on of the stream so far. kInvalid once it is no sequence of packets, such as a pack outside of
  // the side band, which the host's git never asks for.
  Result<std::string> feed(std::string_view bytes);

 private:
  std::string held_;           // the length, then a packet of text
  std::size_t expected_ = 0;   // of the packet that has begun, its length included; 0 between packets
  std::size_t pack_left_ = 0;  // of a packet of pack data
};

}  // namespace sbx::cli
