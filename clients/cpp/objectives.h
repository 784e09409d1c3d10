// The loss of prompts on a client's training examples, and the measurement of prompts on its dev examples.
#pragma once

#include <functional>

#include "fedbbpt/v1/coordinator.pb.h"
#include "scorer.h"

// Examples, divided once by the run's seed into batches. Only the batch that was asked for last stays registered.
class Batches {
 public:
  // `size` is the most examples of a batch; 0 for all. `name` says what the examples are, for messages.
  Batches(Scorer& scorer, Labelled data, size_t size, uint64_t seed, const std::string& name);

  // Returns the batch of a generation, in parts that fit the PTM.
  Parts& drawn(uint64_t draw, const pb::Perturbation* perturbation = nullptr);
  Parts& batch(size_t index, const pb::Perturbation* perturbation = nullptr);
  // Calls `use` with all examples, a part at a time.
  void whole(const std::function<void(Part&)>& use);
  size_t size() const { return data_.size(); }

 private:
  Scorer& scorer_;
  Labelled data_;
  std::vector<std::vector<size_t>> rows_;
  long current_ = -1;
  Parts registered_, perturbed_;
  std::string perturbed_by_;
};

// The measure of prompts on labelled examples.
struct Judgement {
  Vector losses;           // means, or shares of wrong answers
  std::vector<int> right;  // empty if the PTM gives losses only
  size_t examples = 0;
};

// What the search asks of a client's examples.
class Objectives {
 public:
  Objectives(Scorer& scorer, Labelled train, Labelled dev, const fedbbpt::v1::Sampling& sampling);

  // Returns the mean loss of each candidate over the training examples of a draw.
  Vector loss(const std::vector<Vector>& candidates, uint64_t draw);
  // Returns the cross-entropies [P][B] of candidates on the drawn training examples, perhaps perturbed.
  std::vector<Vector> each(const std::vector<Vector>& candidates, const pb::Perturbation* perturbation, uint64_t draw);
  // Returns the loss around the first candidate, in mixtures of the others' scores and in the offsets.
  ::Expansion expansion(const std::vector<Vector>& candidates, uint64_t draw);
  // Returns the measurement of a prompt on the run's dev sample.
  fedbbpt::v1::Measurement measure(const Vector& z);
  // Returns the measurements of prompts on all dev examples.
  std::vector<fedbbpt::v1::Measurement> measure_all(const std::vector<Vector>& prompts);

  Scorer& scorer;
  Batches train, dev;
  double weight;  // B, the number of training examples

 private:
  Judgement judge(const Parts& parts, const std::vector<Vector>& candidates);
};
