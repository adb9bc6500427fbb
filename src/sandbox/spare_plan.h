// SparePlan: when a spare clone is made and when one is given up. Passive: it is told what happens, with the time and
// the host's memory, and answers what is to be done. No thread safety; no I/O.
//
// A spare is of a kind (the template and the size), and there is one of each kind that was asked for lately: not while
// sandboxes are being created nor right after that, not while the host is short of memory, and not again and again
// where it fails.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "sandbox/artifacts.h"

namespace sbx::sandbox {

class SparePlan {
 public:
  using Clock = std::chrono::steady_clock;
  struct Limits {
    std::size_t most = 0;  // spares at a time; those of the kinds that were asked for last
    std::chrono::milliseconds after_create{2'000};
    std::chrono::milliseconds unused{600'000};      // one that nobody has asked for in that time goes
    std::chrono::milliseconds first_pause{30'000};  // after a failure; doubled with each
    int failures = 4;                               // in a row: then none of this kind for a long while
    std::chrono::milliseconds given_up{3'600'000};
    // Of the memory that is there: below the first every spare goes, and none is made again before the second.
    std::uint64_t keep_above = 768ULL << 20U;
    std::uint64_t make_above = 1536ULL << 20U;
  };

  explicit SparePlan(Limits limits) : limits_(limits) {}

  void create_began() { ++creating_; }
  // `kind`: of what has been created; none if that failed.
  void create_ended(const std::optional<TemplateChoice>& kind, Clock::time_point now);
  void made(const TemplateChoice& kind);
  // It could not be made, or has ended by itself. True if it is the first time in a row (to be logged).
  bool failed(const TemplateChoice& kind, Clock::time_point now);
  // It has been taken for a sandbox, or given up.
  void gone(const TemplateChoice& kind);
  // It has become a sandbox: what spares of this kind had failed at is forgiven.
  void adopted(const TemplateChoice& kind);
  // The template is to go: no more spares of it until it is asked for again.
  void forget(const std::string& template_id) { kinds_.erase(template_id); }

  // `available`: bytes of memory that the host can give.
  std::optional<TemplateChoice> to_make(Clock::time_point now, std::uint64_t available);
  // Ids of the templates whose spares are to go.
  std::vector<std::string> to_drop(Clock::time_point now, std::uint64_t available);
  // False after forget().
  bool knows(const std::string& template_id) const { return kinds_.contains(template_id); }
  // Nothing to do until something is created.
  bool at_rest() const { return kinds_.empty(); }

 private:
  struct Kind {
    TemplateChoice choice;
    Clock::time_point asked = {};
    bool held = false;
    int failures = 0;
    Clock::time_point again = {};
  };
  bool short_of_memory(std::uint64_t available);
  std::vector<Kind*> by_recency();

  Limits limits_;
  std::map<std::string, Kind> kinds_;  // by template id, which the size is part of
  int creating_ = 0;
  bool short_ = false;
  Clock::time_point last_create_ = {};
};

// Bytes that programs can still get without others losing theirs (MemAvailable of proc_meminfo(5)); nullopt if the host
// does not say.
std::optional<std::uint64_t> available_memory();

}  // namespace sbx::sandbox
