// Linked into every unit test: like every program of the project, a test meets a peer that is gone as EPIPE, not as the
// signal.
#include <signal.h>

namespace {

[[maybe_unused]] const auto kIgnored = ::signal(SIGPIPE, SIG_IGN);

}  // namespace
