// PktLines: what a sandbox's `git upload-pack` says, on its way to the host's git (gitprotocol-common(5), pkt-line).
// git shows progress of a server as it is, and quotes what it did not expect with the control characters beyond ASCII
// left in (U+009B is one that terminals obey). Here every packet that is no data of a pack has its control characters
// masked, so that none reaches a terminal; the packets keep their lengths. A pack is known by its beginning, not by
// the number of the side band, which any packet can have.
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
  std::size_t bytes_to_hold() const;
  bool is_pack_data() const;

  std::string held_;           // the length, then a packet of text
  std::size_t expected_ = 0;   // of the packet that has begun, its length included; 0 between packets
  std::size_t pack_left_ = 0;  // of a packet of pack data
  bool in_pack_ = false;       // between the beginning of a pack in the side band and the flush packet after it
};

}  // namespace sbx::cli
