// A request's work on the contents of a file, cut loose from the dispatcher so that any thread may do it, and a few
// threads that do.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/unique_fd.h"
#include "files/message.h"

namespace sbx::files {

struct Job {
  std::uint64_t unique = 0;
  // Fills the reply; 0 or a positive errno. Owns or shares all that it uses but the request's bytes.
  std::move_only_function<int(Reply&)> work;
  std::string request;  // what `work` refers to; the session moves the message in here

  std::string run();  // the finished reply
};

// Thread safety: any thread. Destroying it waits for the jobs that have begun and drops the others.
class Workers {
 public:
  explicit Workers(unsigned threads);
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  void add(Job job);
  // The replies that are ready, in any order.
  std::deque<std::string> take_finished();
  // An eventfd, readable when there may be some.
  int fd() const { return ready_.get(); }

 private:
  void serve();

  UniqueFd ready_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> waiting_;
  std::deque<std::string> finished_;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace sbx::files
