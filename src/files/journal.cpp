#include "files/journal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <optional>
#include <utility>
#include <vector>

#include "files/confined.h"

namespace sbx::files {
namespace {

std::string escaped(std::string_view path) {
  std::string text;
  for (const unsigned char c : path) {
    if (c > ' ' && c < 0x7f && c != '%') {
      text += static_cast<char>(c);
    } else {
      std::array<char, 4> code{};
      std::snprintf(code.data(), code.size(), "%%%02X", c);
      text += code.data();
    }
  }
  return text;
}

std::string key_of(unsigned workspace, std::string_view path) {
  return std::to_string(workspace) + " " + escaped(path);
}

std::string counted(std::uint64_t count) {
  std::array<char, 32> text{};
  const auto now =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
  std::snprintf(text.data(), text.size(), "%010llu %013lld", static_cast<unsigned long long>(count % 10'000'000'000ULL),
                static_cast<long long>(now));
  return text.data();
}
constexpr std::size_t kCountedWidth = 24;

// The folder of git's objects that a path lies in.
std::optional<std::string_view> within_objects(std::string_view path) {
  constexpr std::string_view kObjects = ".git/objects/";
  for (auto at = path.find(kObjects); at != std::string_view::npos; at = path.find(kObjects, at + 1)) {
    if (at == 0 || path[at - 1] == '/') return path.substr(0, at + kObjects.size() - 1);
  }
  return std::nullopt;
}

}  // namespace

Journal::Journal(UniqueFd file, UniqueFd before, Limits limits)
    : file_(std::move(file)), before_(std::move(before)), limits_(limits) {
  load();
}

void Journal::load() {
  struct stat status {};
  if (::fstat(file_.get(), &status) != 0) return;
  std::string text(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = ::pread(file_.get(), text.data() + size, text.size() - size, static_cast<off_t>(size));
    if (got <= 0) break;
    size += static_cast<std::size_t>(got);
  }
  text.resize(size);
  while (true) {
    const auto end = text.find('\n', size_);
    if (end == std::string::npos) break;  // a line that was cut off is overwritten
    const std::string_view line = std::string_view(text).substr(size_, end - size_);
    if (line == "X changes") full_ = true;
    if (line == "X reports") reports_full_ = true;
    if (line.starts_with("N ")) {
      known_.emplace(line.substr(2));
      made_.emplace(line.substr(2));
    } else if (line.starts_with("O ")) {
      // The workspace and what follows the two numbers.
      const auto workspace = line.substr(2, line.find(' ', 2) - 2);
      const auto path = line.substr(line.rfind(' ') + 1);
      known_.insert(std::string(workspace) + " " + std::string(path));
    } else if (line.starts_with("P ") && line.size() > 3 + kCountedWidth) {
      Report report{size_, 0};
      std::from_chars(line.data() + 2, line.data() + 12, report.count);
      reports_.emplace(line.substr(3 + kCountedWidth), report);
      report_bytes_ += line.size() + 1;
    }
    size_ = end + 1;
  }
  if (before_.valid() && ::fstat(before_.get(), &status) == 0) before_size_ = static_cast<std::size_t>(status.st_size);
}

bool Journal::append(std::string_view line) {
  if (lost_) lost_ = !write_line("X lost\n");
  if (!lost_) lost_ = !write_line(line);
  return !lost_;
}

bool Journal::write_line(std::string_view line) {
  // Where the last whole line ends: one that a power cut has cut off is overwritten.
  if (::pwrite(file_.get(), line.data(), line.size(), static_cast<off_t>(size_)) != static_cast<ssize_t>(line.size())) {
    return false;
  }
  size_ += line.size();
  return true;
}

bool Journal::add_change(const std::string& key, const std::string& line) {
  full_ = size_ - report_bytes_ + line.size() > limits_.bytes || known_.size() >= limits_.paths;
  if (!append(full_ ? "X changes\n" : line) || full_) return false;
  known_.insert(key);
  return true;
}

bool Journal::knows(unsigned workspace, std::string_view path) const {
  const auto key = key_of(workspace, path);
  if (full_ || known_.contains(key)) return true;
  // In a folder that the guest has made itself?
  for (auto slash = key.rfind('/'); slash != std::string::npos && slash > 0; slash = key.rfind('/', slash - 1)) {
    if (made_.contains(key.substr(0, slash))) return true;
  }
  return false;
}

void Journal::made(unsigned workspace, std::string_view path) {
  if (knows(workspace, path)) return;
  if (within_objects(path)) return changed(workspace, path, -1);
  const auto key = key_of(workspace, path);
  if (add_change(key, "N " + key + "\n")) made_.insert(key);
}

void Journal::changed(unsigned workspace, std::string_view path, int path_fd) {
  if (const auto objects = within_objects(path)) {
    path = *objects;
    path_fd = -1;
  }
  if (knows(workspace, path)) return;
  add_change(key_of(workspace, path),
             "O " + std::to_string(workspace) + " " + describe_before(path_fd) + " " + escaped(path) + "\n");
}

std::string Journal::describe_before(int path_fd) {
  const auto status = path_fd < 0 ? std::unexpected(EBADF) : status_of(path_fd);
  if (!status) return "- - -";
  std::array<char, 16> mode{};
  std::snprintf(mode.data(), mode.size(), " %o", static_cast<unsigned>(status->stx_mode));
  return keep_before(path_fd, *status) + mode.data();
}

std::string Journal::keep_before(int path_fd, const struct statx& status) {
  const std::string none = "- -";
  if (!before_.valid() || !S_ISREG(status.stx_mode) || status.stx_size > limits_.before_each ||
      before_size_ + status.stx_size > limits_.before_all) {
    return none;
  }
  const auto fd = reopen(path_fd, O_RDONLY | O_NONBLOCK);
  if (!fd) return none;
  std::vector<char> contents(status.stx_size);
  std::size_t done = 0;
  while (done < contents.size()) {
    const ssize_t got = ::pread(fd->get(), contents.data() + done, contents.size() - done, static_cast<off_t>(done));
    if (got <= 0) return none;
    done += static_cast<std::size_t>(got);
  }
  const auto wrote = ::pwrite(before_.get(), contents.data(), done, static_cast<off_t>(before_size_));
  if (wrote != static_cast<ssize_t>(done)) return none;
  const auto from = std::exchange(before_size_, before_size_ + done);
  return std::to_string(from) + " " + std::to_string(done);
}

void Journal::protected_change(unsigned workspace, std::string_view path, std::string_view kind) {
  const auto key = std::string(kind) + " " + key_of(workspace, path);
  auto found = reports_.find(key);
  if (found != reports_.end()) {
    const auto text = counted(++found->second.count);
    (void)!::pwrite(file_.get(), text.data(), text.size(), static_cast<off_t>(found->second.at + 2));
    return;
  }
  if (reports_full_) return;
  const auto line = "P " + counted(1) + " " + key + "\n";
  reports_full_ = reports_.size() >= limits_.reports || report_bytes_ + line.size() > limits_.report_bytes;
  if (!append(reports_full_ ? "X reports\n" : line) || reports_full_) return;
  report_bytes_ += line.size();
  reports_[key] = {size_ - line.size(), 1};
}

}  // namespace sbx::files
