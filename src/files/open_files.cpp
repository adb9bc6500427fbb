#include "files/open_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace sbx::files {

OpenFiles::Open& OpenFiles::touch(NodeId node) {
  if (const auto found = index_.find(node); found != index_.end()) {
    recent_.splice(recent_.begin(), recent_, found->second);
    return recent_.front();
  }
  if (recent_.size() >= limit_ && !recent_.empty()) drop(recent_.back().node);
  recent_.emplace_front().node = node;
  index_[node] = recent_.begin();
  return recent_.front();
}

Outcome<SharedFd> OpenFiles::for_reading(NodeId node, int path_fd) {
  if (const auto found = index_.find(node); found != index_.end()) {
    const Open& open = touch(node);
    if (open.reader != nullptr) return open.reader;
    if (open.writer != nullptr && open.writer_reads) return open.writer;
  }
  auto fd = reopen(path_fd, O_RDONLY | O_NONBLOCK);
  if (!fd) return std::unexpected(fd.error());
  Open& open = touch(node);
  open.reader = std::make_shared<const UniqueFd>(std::move(*fd));
  return open.reader;
}

Outcome<SharedFd> OpenFiles::for_writing(NodeId node, int path_fd) {
  if (const auto found = index_.find(node); found != index_.end() && found->second->writer != nullptr) {
    Open& open = touch(node);
    open.written = Clock::now();
    return open.writer;
  }
  bool reads = true;
  auto fd = reopen(path_fd, O_RDWR | O_NONBLOCK);
  if (!fd && fd.error() == EACCES) {
    reads = false;
    fd = reopen(path_fd, O_WRONLY | O_NONBLOCK);
  }
  if (!fd) return std::unexpected(fd.error());
  Open& open = touch(node);
  open.writer = std::make_shared<const UniqueFd>(std::move(*fd));
  open.writer_reads = reads;
  open.writer_life = kWriterLife;
  open.written = Clock::now();
  ++writers_;
  return open.writer;
}

void OpenFiles::created(NodeId node, UniqueFd fd, int access_mode, bool writable) {
  Open& open = touch(node);
  auto shared = std::make_shared<const UniqueFd>(std::move(fd));
  if (access_mode == O_RDONLY) {
    open.reader = std::move(shared);
    return;
  }
  close_writer(open);
  open.writer = std::move(shared);
  open.writer_reads = access_mode == O_RDWR;
  open.writer_life = writable ? kWriterLife : kOnlyWriterLife;
  open.written = Clock::now();
  ++writers_;
}

void OpenFiles::close_writer(Open& open) {
  if (open.writer == nullptr) return;
  open.writer.reset();
  --writers_;
}

void OpenFiles::drop(NodeId node) {
  const auto found = index_.find(node);
  if (found == index_.end()) return;
  close_writer(*found->second);
  recent_.erase(found->second);
  index_.erase(found);
}

void OpenFiles::sweep(Clock::time_point now) {
  for (auto at = recent_.begin(); writers_ > 0 && at != recent_.end();) {
    Open& open = *at++;
    if (open.writer == nullptr || now - open.written < open.writer_life) continue;
    close_writer(open);
    if (open.reader == nullptr) drop(open.node);
  }
}

void OpenFiles::reset() {
  recent_.clear();
  index_.clear();
  writers_ = 0;
}

Outcome<OpenFolders::Listing*> OpenFolders::at(NodeId node, int path_fd, std::int64_t position) {
  auto found = std::find_if(recent_.begin(), recent_.end(), [&](const Listing& listing) {
    return listing.node == node && listing.position == position && position != 0;
  });
  if (found == recent_.end()) {
    // A listing that begins gets a descriptor of its own, so that two at once do not disturb each other.
    auto fd = reopen(path_fd, O_RDONLY | O_DIRECTORY | O_NONBLOCK);
    if (!fd) return std::unexpected(fd.error());
    if (position != 0 && ::lseek(fd->get(), position, SEEK_SET) < 0) return std::unexpected(errno);
    if (recent_.size() >= limit_ && !recent_.empty()) recent_.pop_back();
    recent_.push_front({node, std::move(*fd), position});
    return &recent_.front();
  }
  recent_.splice(recent_.begin(), recent_, found);
  return &*found;
}

}  // namespace sbx::files
