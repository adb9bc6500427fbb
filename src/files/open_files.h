// Descriptors for reading and writing, by node: the guest opens and closes files without telling (see
// Dispatcher::op_open), so they are opened when first used and kept while they are among the most recently used.
//
// One that can write is kept for a moment only: as long as it is open, the host cannot execute the file (ETXTBSY).
// Thread safety: none; the descriptors that it hands out may be used by any thread and outlive their eviction.
#pragma once

#include <chrono>
#include <cstdint>
#include <list>
#include <unordered_map>

#include "files/confined.h"
#include "files/node_table.h"

namespace sbx::files {

class OpenFiles {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kWriterLife{100};
  // Of one that could not be opened again: a file that was created with a mode without write.
  static constexpr std::chrono::milliseconds kOnlyWriterLife{10'000};

  explicit OpenFiles(std::size_t limit) : limit_(limit) {}

  // `path_fd` is the node's own; it is a regular file's. The errno of open(2).
  Outcome<SharedFd> for_reading(NodeId node, int path_fd);
  Outcome<SharedFd> for_writing(NodeId node, int path_fd);
  // A file that was created and opened with this access mode; whether open(2) would let us write to it now.
  void created(NodeId node, UniqueFd fd, int access_mode, bool writable);
  // The node is gone, or who may open it has changed.
  void forget(NodeId node) { drop(node); }
  // Closes writers that were not used for their time.
  void sweep(Clock::time_point now);
  // Whether sweep() has something to wait for.
  bool has_writers() const { return writers_ > 0; }
  void reset();
  std::size_t size() const { return recent_.size(); }

 private:
  struct Open {
    NodeId node = 0;
    SharedFd reader;
    SharedFd writer;
    bool writer_reads = false;
    std::chrono::milliseconds writer_life = kWriterLife;
    Clock::time_point written;
  };
  Open& touch(NodeId node);
  void drop(NodeId node);
  void close_writer(Open& open);

  std::size_t limit_;
  std::size_t writers_ = 0;
  std::list<Open> recent_;
  std::unordered_map<NodeId, std::list<Open>::iterator> index_;
};

// Folders that are being listed, by node: a listing goes on where it stopped without a seek, since on some file systems
// a position means something only to the descriptor that it was read from. Thread safety: none.
class OpenFolders {
 public:
  struct Listing {
    NodeId node = 0;
    UniqueFd fd;
    std::int64_t position = -1;  // where the descriptor is, if known
  };

  explicit OpenFolders(std::size_t limit) : limit_(limit) {}
  // A descriptor of this folder at this position. The errno of open(2) or lseek(2).
  Outcome<Listing*> at(NodeId node, int path_fd, std::int64_t position);
  void forget(NodeId node) {
    std::erase_if(recent_, [node](const Listing& listing) { return listing.node == node; });
  }
  void reset() { recent_.clear(); }

 private:
  std::size_t limit_;
  std::list<Listing> recent_;
};

}  // namespace sbx::files
