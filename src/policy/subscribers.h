// Who wants to hear of an event. One thread; a callback may subscribe and unsubscribe while it is called.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>

namespace sbx::policy {

// Ends when it is destroyed or reset; may outlive what it was subscribed to.
using Subscription = std::shared_ptr<void>;

template <typename... Arguments>
class Subscribers {
 public:
  using Callback = std::function<void(Arguments...)>;

  [[nodiscard]] Subscription add(Callback callback) {
    const std::uint64_t key = next_++;
    callbacks_->emplace(key, std::move(callback));
    return Subscription(nullptr, [key, weak = std::weak_ptr(callbacks_)](void*) {
      if (const auto callbacks = weak.lock()) callbacks->erase(key);
    });
  }

  void notify(Arguments... arguments) const {
    const auto copy = *callbacks_;
    for (const auto& [key, callback] : copy) {
      if (callbacks_->contains(key)) callback(arguments...);
    }
  }

 private:
  std::shared_ptr<std::map<std::uint64_t, Callback>> callbacks_ = std::make_shared<std::map<std::uint64_t, Callback>>();
  std::uint64_t next_ = 0;
};

}  // namespace sbx::policy
