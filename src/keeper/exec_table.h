// The commands that run in a sandbox, as its keeper knows them. One executor.
//
// Output passes through a ring of the last kRingBytes, so that logs can be read afterwards and by more than one reader;
// a client that is attached also holds the command back (it is written to before more is read from the guest).
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/result.h"
#include "keeper/guest_link.h"
#include "keeper/rfc3339.h"
#include "wire/http2_session.h"
#include "wire/signal.h"
#include "wire/stdcopy.h"

namespace sbx::keeper {

inline constexpr std::size_t kRingBytes = 1U << 20U;
inline constexpr std::size_t kMaxHeadBytes = 1U << 20U;
inline constexpr std::size_t kFinishedKept = 256;

// The last bytes of a command's output, as whole stdcopy frames with running numbers.
class OutputRing {
 public:
  void push(std::string frame);
  std::uint64_t first() const { return first_; }                  // number of the oldest frame held
  std::uint64_t next() const { return first_ + frames_.size(); }  // number the next one will get
  const std::string& at(std::uint64_t number) const { return frames_[number - first_]; }

 private:
  std::deque<std::string> frames_;
  std::uint64_t first_ = 0;
  std::size_t bytes_ = 0;
};

struct Exec {
  explicit Exec(const boost::asio::any_io_executor& executor) : changed(executor) {}
  std::string id;
  std::uint64_t number = 0;  // in the order of their starts
  nlohmann::json argv = nlohmann::json::array();
  bool detach = false;
  std::string started_at;
  OutputRing ring;
  std::optional<nlohmann::json> status;  // ExecStatus once it has ended
  std::shared_ptr<wire::Http2Stream> guest;
  Parking::Hold awake;  // until it has ended
  wire::Signal changed;
};

class ExecTable {
 public:
  // How many of the file server's notifications the guest must have had before a command starts (FilesBarrier).
  using FilesSeen = std::function<wire::Awaitable<std::optional<std::uint64_t>>()>;

  ExecTable(boost::asio::any_io_executor executor, GuestLink& guest, FilesSeen files_seen = {})
      : executor_(std::move(executor)),
        guest_(guest),
        files_seen_(std::move(files_seen)),
        idle_since_(std::chrono::system_clock::now()) {}

  // POST /exec and everything under /exec/. A command waits for a guest whose session has just ended; 409 if it has
  // been lost, 503 if it does not come back: nothing was started then. `daemon` is the session that the stream belongs
  // to: if it has ended, a command whose client is gone runs on.
  wire::Awaitable<void> handle(std::shared_ptr<wire::Http2Stream> stream, std::weak_ptr<wire::Http2Session> daemon);

  std::size_t attached() const { return attached_; }
  std::size_t detached_running() const;
  // When the last attached command ended (or the start); nullopt while there is one.
  std::optional<std::chrono::system_clock::time_point> idle_since() const;
  // Fails what still runs, and what comes: the guest is gone.
  void guest_lost(const std::string& why);

 private:
  wire::Awaitable<void> start(std::shared_ptr<wire::Http2Stream> client, std::weak_ptr<wire::Http2Session> daemon);
  wire::Awaitable<Result<nlohmann::json>> read_head(wire::Http2Stream& client, std::string& rest);
  wire::Awaitable<void> pump_output(std::shared_ptr<Exec> exec, std::shared_ptr<wire::Http2Stream> client,
                                    std::weak_ptr<wire::Http2Session> daemon);
  wire::Awaitable<void> send_logs(std::shared_ptr<Exec> exec, std::shared_ptr<wire::Http2Stream> client, bool follow);
  wire::Awaitable<void> control(std::string id, std::string action, std::shared_ptr<wire::Http2Stream> client);
  std::shared_ptr<const bool> watch_client(std::shared_ptr<Exec> exec, std::shared_ptr<wire::Http2Stream> client);
  nlohmann::json record(const Exec& exec) const;
  std::shared_ptr<Exec> add(const nlohmann::json& head);
  void finish(Exec& exec, nlohmann::json status);
  void forget_old();

  boost::asio::any_io_executor executor_;
  GuestLink& guest_;
  FilesSeen files_seen_;
  std::map<std::string, std::shared_ptr<Exec>> execs_;
  std::deque<std::string> finished_;
  std::uint64_t next_id_ = 1;
  std::uint64_t started_ = 0;
  std::size_t attached_ = 0;
  std::chrono::system_clock::time_point idle_since_;
};

}  // namespace sbx::keeper
