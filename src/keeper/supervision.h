// What the two halves of a keeper say to each other, over a socket pair of whole messages (SOCK_SEQPACKET).
//
// The supervisor (sbx-keeper) has the user's rights and never reads a byte of the guest's or of QEMU's; the worker
// (sbx-keeper-worker) reads them all and has no rights. So this is the boundary that a guest must cross after it has
// taken the worker: messages of one fixed size, numbers, and a text that is only ever shown to people. The supervisor
// accepts no descriptor and does each step only where it belongs in a sandbox's life (Supervisor::answer).
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace sbx::keeper {

// Worker to supervisor. Those marked "answered" get exactly one kAnswer.
enum class Request : std::uint32_t {
  kConnectControl = 1,  // answered with a connection to the control port
  kGuestRuns,           // answered; the servers of the other ports are started
  kMemoryLoaded,        // answered; kResume: the image is used up (removed, folder synced): now the guest may run
  kBootInstead,         // answered with QMP of a machine that boots from the disk; the one that was there is gone
  kReady,               // `value`: the template's boot time in ms, else 0
  kFailed,              // `value`: ErrorCode, and a text: the sandbox did not start
  kStopping,            // `value`: StopMode; what ends from now on was meant to
  kSaveMemory,          // answered with a pipe for QEMU's stream
  kCommitMemory,        // answered; stream written and QEMU asked to quit: the image gets its name
  kEndMachine,          // answered; QEMU is killed and gone
  kSealTemplate,        // answered; kTemplate, state written and QEMU asked to quit; `value`: boot time in ms
  kConnectFiles,        // answered with the control socket of sbx-files; once for each one that was started
  kMountsChanged,       // answered; mounts.json of the runtime folder says what is to be mounted now
  kAdopted,  // answered; a spare's: adopt.json of the runtime folder says what it has become, and the servers start
  kRehearseFiles,  // answered; a spare's, before kReady: sbx-files serves an empty folder (kRehearsedPath)
  kRehearsed,      // answered; that is over, and nothing of it is left
  kLeave,          // the sandbox has ended; a text if something about that was wrong
};

// In the guest; it has the index 0.
inline constexpr const char* kRehearsedPath = "/run/sbx/rehearsal";

enum class StopMode : std::int32_t { kMemory, kClean, kKill };

// Supervisor to worker.
enum class Event : std::uint32_t {
  kAnswer = 101,   // `value` 0 and perhaps a descriptor, or 1 + ErrorCode and a text
  kMachineEnded,   // by itself; `value` its exit code, `more` its signal
  kFilesReplaced,  // another sbx-files is connected: the workspaces must be mounted anew
  kProcesses,      // `value` QEMU's pid, `more` that of sbx-files, 0 for none; to show to people
  kPublish,        // `value`: port in the sandbox, `more`: an id; of TCP with the listening socket
  kWithdraw,       // `more`: the id
  kFlow,           // a client of the UDP port with the id `value`; `more`: an id; with a socket connected to it
  kPacket,         // that it sent: `value`, `more` as of its kFlow; with a pipe that holds the bytes
};

struct Message {
  std::uint32_t kind = 0;
  std::int32_t value = 0;
  std::int32_t more = 0;
  char text[1012] = {};  // bytes up to the first NUL
};
static_assert(sizeof(Message) == 1024);

Message message(Request request, std::int32_t value = 0, std::string_view text = {});
Message message(Event event, std::int32_t value = 0, std::int32_t more = 0);
Message answer(const Result<void>& result);
// The text as something that may be shown: control characters are blanks.
std::string text_of(const Message& message);
// Of a kAnswer: what answer() was made from. An error code out of range is kInternal.
Result<void> result_of(const Message& answer);

// Does not block: kUnavailable if the peer is gone or does not read. `fd` >= 0 is passed along.
Result<void> send_message(int socket, const Message& message, int fd = -1);

struct Received {
  Message message;
  UniqueFd fd;
};
enum class Descriptors { kRefused, kAccepted };
// One message, blocking unless the socket is non-blocking (then kTimeout if there is none). kUnavailable at the peer's
// end, kInvalid for what is no message. With kRefused descriptors sent along never come to be.
Result<Received> receive_message(int socket, Descriptors descriptors);

}  // namespace sbx::keeper
