// A bounded cache. An entry expires some time after its last use.
#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <string>
#include <utility>

template <class T>
class Memory {
 public:
  using Clock = std::chrono::steady_clock;

  Memory(std::size_t max_count, std::size_t max_weight, std::chrono::seconds time_to_live)
      : max_count_(max_count), max_weight_(max_weight), time_to_live_(time_to_live) {}

  std::chrono::seconds time_to_live() const { return time_to_live_; }

  // Counts as a use. Returns null if `id` is unknown or has expired.
  T* find(const std::string& id) {
    const auto found = kept_.find(id);
    if (found == kept_.end()) return nullptr;
    if (Clock::now() - found->second.used_at > time_to_live_) {
      erase(id);
      return nullptr;
    }
    found->second.used_at = Clock::now();
    return &found->second.thing;
  }

  // Evicts the least recently used entries. The new entry stays, whatever its weight.
  T& put(const std::string& id, T thing, std::size_t weight) {
    erase(id);
    while (!kept_.empty() && (kept_.size() >= max_count_ || weight_ + weight > max_weight_)) erase(oldest());
    weight_ += weight;
    return kept_.emplace(id, Entry{std::move(thing), weight, Clock::now()}).first->second.thing;
  }

  void erase(const std::string& id) {
    const auto found = kept_.find(id);
    if (found == kept_.end()) return;
    weight_ -= found->second.weight;
    kept_.erase(found);
  }

  // The number of entries that have not expired.
  std::size_t size() {
    const auto limit = Clock::now() - time_to_live_;
    std::erase_if(kept_, [&](const auto& item) {
      const bool expired = item.second.used_at < limit;
      if (expired) weight_ -= item.second.weight;
      return expired;
    });
    return kept_.size();
  }

  template <class Visit>
  void each(Visit visit) const {
    for (const auto& [id, entry] : kept_) visit(id, entry.thing);
  }

 private:
  struct Entry {
    T thing;
    std::size_t weight;
    Clock::time_point used_at;
  };

  std::string oldest() const {
    auto first = kept_.begin();
    for (auto item = kept_.begin(); item != kept_.end(); ++item)
      if (item->second.used_at < first->second.used_at) first = item;
    return first->first;
  }

  std::size_t max_count_, max_weight_, weight_ = 0;
  std::chrono::seconds time_to_live_;
  std::map<std::string, Entry> kept_;
};
