#include "sandbox/spare_plan.h"

#include <algorithm>
#include <sstream>

#include "base/file.h"

namespace sbx::sandbox {

void SparePlan::create_ended(const std::optional<TemplateChoice>& kind, Clock::time_point now) {
  --creating_;
  last_create_ = now;
  if (!kind || limits_.most == 0) return;
  auto& entry = kinds_[kind->id];
  entry.choice = *kind;
  entry.asked = now;
}

bool SparePlan::failed(const TemplateChoice& kind, Clock::time_point now) {
  const auto found = kinds_.find(kind.id);
  if (found == kinds_.end()) return false;  // its template is gone
  auto& entry = found->second;
  entry.held = false;
  ++entry.failures;
  entry.again =
      now + (entry.failures >= limits_.failures ? limits_.given_up : limits_.first_pause * (1 << (entry.failures - 1)));
  return entry.failures == 1;
}

void SparePlan::made(const TemplateChoice& kind) {
  if (const auto found = kinds_.find(kind.id); found != kinds_.end()) found->second.held = true;
}

void SparePlan::gone(const TemplateChoice& kind) {
  if (const auto found = kinds_.find(kind.id); found != kinds_.end()) found->second.held = false;
}

void SparePlan::adopted(const TemplateChoice& kind) {
  if (const auto found = kinds_.find(kind.id); found != kinds_.end()) found->second.failures = 0;
}

bool SparePlan::short_of_memory(std::uint64_t available) {
  if (available < limits_.keep_above) short_ = true;
  if (available >= limits_.make_above) short_ = false;
  return short_;
}

std::vector<SparePlan::Kind*> SparePlan::by_recency() {
  std::vector<Kind*> kinds;
  for (auto& [id, kind] : kinds_) kinds.push_back(&kind);
  std::ranges::sort(kinds, std::ranges::greater(), &Kind::asked);
  return kinds;
}

std::optional<TemplateChoice> SparePlan::to_make(Clock::time_point now, std::uint64_t available) {
  // Between the two limits what is there stays, and nothing is made.
  if (short_of_memory(available) || available < limits_.make_above) return std::nullopt;
  if (creating_ > 0 || now < last_create_ + limits_.after_create) return std::nullopt;
  const auto kinds = by_recency();
  for (std::size_t i = 0; i < std::min(kinds.size(), limits_.most); ++i) {
    const Kind& kind = *kinds[i];
    const bool may = now >= kind.again && now < kind.asked + limits_.unused;
    if (!kind.held && may) return kind.choice;
  }
  return std::nullopt;
}

std::vector<std::string> SparePlan::to_drop(Clock::time_point now, std::uint64_t available) {
  std::vector<std::string> drop;
  const bool all = short_of_memory(available);
  const auto kinds = by_recency();
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    const Kind& kind = *kinds[i];
    if (kind.held && (all || i >= limits_.most || now >= kind.asked + limits_.unused)) drop.push_back(kind.choice.id);
  }
  // What nobody asks for any more is not remembered, once it could be made again.
  std::erase_if(kinds_, [&](const auto& entry) {
    const Kind& kind = entry.second;
    return !kind.held && now >= kind.again && now >= kind.asked + limits_.unused;
  });
  return drop;
}

std::optional<std::uint64_t> available_memory() {
  const auto text = read_file("/proc/meminfo", 64U << 10U);
  if (!text) return std::nullopt;
  std::istringstream lines(*text);
  for (std::string word; lines >> word;) {
    std::uint64_t kib = 0;
    if (word == "MemAvailable:" && lines >> kib) return kib << 10U;
  }
  return std::nullopt;
}

}  // namespace sbx::sandbox
