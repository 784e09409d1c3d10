// Replays: a client computes each broadcast from the one before. docs/protocol.md, "Replays".
#pragma once

#include <functional>
#include <stdexcept>

#include "codecs.h"
#include "fedbbpt/v1/coordinator.pb.h"

// The coordinator's search cannot be followed here, so the client needs whole broadcasts.
struct CannotReplay : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// How one step of a method is replayed.
struct Steps {
  // Returns the state after a step, by its news and the seed of the task before it.
  std::function<Arrays(const Arrays& held, const Arrays& news, uint64_t seed)> replayed;
  // Returns the broadcast of a state.
  std::function<Arrays(const Arrays& held)> broadcast;
};

// Returns the steps of fed-cma with `expansion_sent`.
Steps newton_steps(size_t population, size_t offsets);
// Returns the steps of a run whose points travel as encoded differences.
Steps coded_steps(const std::string& point, const CodecChain& codec);
// Returns the digest of a state and of its task's seed.
std::string digest(const Arrays& arrays, uint64_t seed);

// The state after the client's last task.
class HeldSearch {
 public:
  explicit HeldSearch(Steps steps) : steps_(std::move(steps)) {}
  // Returns the broadcast of a task. Throws CannotReplay.
  Arrays broadcast(const fedbbpt::v1::Replay& replay, const Arrays& arrays, uint64_t seed);
  const std::string& after() const { return after_; }

 private:
  Arrays following(const fedbbpt::v1::Replay& replay, const Arrays& arrays) const;

  Steps steps_;
  Arrays held_;
  uint64_t seed_ = 0;
  std::string after_;
};
