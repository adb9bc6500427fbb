// Serves one FUSE session over a byte stream: replies, and notifications of what has changed on the host.
#pragma once

#include "base/result.h"
#include "files/dispatcher.h"

namespace sbx::files {

// Returns at the stream's end. Fails when the peer breaks the framing or the stream fails: the session is over then,
// and what it had open is released with the dispatcher. Sets `stream`, a socket, to non-blocking.
//
// `control`, if it is not -1, is a stream socket on which each byte 'b' (barrier) is answered with 8 bytes, little
// endian: how many notifications this session has sent, those for everything that happened on the host before the
// question included. When it closes, it is not used any more.
//
// While the guest does not take what is sent, no further requests are read, and notifications wait in the dispatcher.
Result<void> serve(int stream, Dispatcher& dispatcher, int control = -1);

}  // namespace sbx::files
