// Searches of fed-bpt: CMA-ES with a diagonal or identity covariance, as docs/protocol.md prescribes it, or a full one.
#pragma once

#include <functional>
#include <vector>

#include "draws.h"

enum class Covariance { kFull, kDiagonal, kIdentity };

// How a search is made.
struct Search {
  Vector mean;
  double sigma;
  Covariance covariance;
  size_t population, iterations;
  uint64_t seed;
  double limit;  // the largest Euclidean norm of a candidate; infinity if there is none
  // Returns the losses of a generation's candidates, all finite.
  std::function<Vector(const std::vector<Vector>&, size_t)> losses;
};

// What a search found: its final mean, the step sizes of its generations, and their mu best candidates, best first.
struct Searched {
  Vector mean, sigmas;
  std::vector<std::vector<size_t>> orders;
};

Searched search(const Search& options);
// Returns sqrt(2) Gamma((n + 1) / 2) / Gamma(n / 2).
double expected_length(size_t n);
