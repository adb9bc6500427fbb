// Serves one FUSE session over a byte stream.
#pragma once

#include "base/result.h"
#include "files/dispatcher.h"

namespace sbx::files {

// Blocking; returns at the stream's end. Fails when the peer breaks the framing or the stream fails: the session is
// over then, and what it had open is released with the dispatcher.
Result<void> serve(int stream, Dispatcher& dispatcher);

}  // namespace sbx::files
