// Cross-entropy of class scores, the number of right answers, and the expansion that a Newton step needs.
#pragma once

#include <vector>

#include "draws.h"

// Scores [P, B, K], row-major.
struct Scores {
  size_t prompts = 0, examples = 0, classes = 0;
  std::vector<float> values;

  const float* at(size_t p, size_t b) const { return values.data() + (p * examples + b) * classes; }
};

// Returns log sum exp(s) - s[label] of one example's scores, in nats; infinity if it would be NaN.
template <typename T>
double cross_entropy(const T* scores, size_t classes, int label);
// Returns the cross-entropies [P][B] of prompts on examples.
std::vector<Vector> cross_entropies(const Scores& scores, const std::vector<int>& labels);
double mean(const Vector& numbers);
// Returns the number of examples with the highest score, the first of equals, at their label, for each prompt.
std::vector<int> correct(const Scores& scores, const std::vector<int>& labels);
// Returns losses with the worst finite one, or 100 if that is larger, in place of those that are not finite.
Vector finite(Vector losses);
// Returns the softmax of scores.
template <typename T>
Vector probabilities(const T* scores, size_t classes);

// The loss around a prompt to second order in the mixtures of candidates' scores and in offsets.
struct Expansion {
  Vector losses;    // the mean loss of each of the 1 + P prompts
  Vector gradient;  // [Q], Q = P + offsets
  Vector hessian;   // the rows of the upper triangle, one after the other
};

// Returns the expansion of the mean cross-entropy of S_0 + sum a_i (S_i - S_0) + offset_scale (offsets of a).
Expansion expansion(const Scores& scores, const std::vector<int>& labels, size_t offsets, double offset_scale);
