#include "criterion.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace {

constexpr double kWorstLoss = 100;

// Adds an example's X_i (p - e) and X_i (diag(p) - p p') X_j.
void add_example(const std::vector<Vector>& x, const Vector& p, int label, Vector& gradient, Vector& full) {
  size_t size = x.size();
  std::vector<Vector> centred = x;
  for (size_t i = 0; i < size; ++i) {
    double expected = 0;
    for (size_t k = 0; k < p.size(); ++k) expected += x[i][k] * p[k];
    gradient[i] += expected - x[i][label];
    for (size_t k = 0; k < p.size(); ++k) centred[i][k] = (x[i][k] - expected) * std::sqrt(p[k]);
  }
  for (size_t i = 0; i < size; ++i)
    for (size_t j = i; j < size; ++j) {
      double sum = 0;
      for (size_t k = 0; k < p.size(); ++k) sum += centred[i][k] * centred[j][k];
      full[i * size + j] += sum;
    }
}

}  // namespace

template <typename T>
double cross_entropy(const T* scores, size_t classes, int label) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  double top = -infinity, sum = 0;
  for (size_t k = 0; k < classes; ++k) {
    if (std::isnan(scores[k])) return infinity;
    top = std::max(top, double(scores[k]));
  }
  for (size_t k = 0; k < classes; ++k) sum += std::exp(double(scores[k]) - top);
  double loss = std::log(sum) - (double(scores[label]) - top);
  return std::isnan(loss) ? infinity : loss;
}

template double cross_entropy(const float*, size_t, int);
template double cross_entropy(const double*, size_t, int);

std::vector<Vector> cross_entropies(const Scores& scores, const std::vector<int>& labels) {
  std::vector<Vector> found(scores.prompts, Vector(scores.examples));
  for (size_t p = 0; p < scores.prompts; ++p)
    for (size_t b = 0; b < scores.examples; ++b)
      found[p][b] = cross_entropy(scores.at(p, b), scores.classes, labels[b]);
  return found;
}

double mean(const Vector& numbers) {
  double sum = 0;
  for (double x : numbers) sum += x;
  return sum / double(numbers.size());
}

std::vector<int> correct(const Scores& scores, const std::vector<int>& labels) {
  std::vector<int> found(scores.prompts);
  for (size_t p = 0; p < scores.prompts; ++p)
    for (size_t b = 0; b < scores.examples; ++b) {
      const float *own = scores.at(p, b), *end = own + scores.classes;
      bool broken = std::any_of(own, end, [](float s) { return std::isnan(s); });
      found[p] += !broken && std::max_element(own, end) - own == labels[b];
    }
  return found;
}

Vector finite(Vector losses) {
  double worst = kWorstLoss;
  for (double loss : losses)
    if (std::isfinite(loss)) worst = std::max(worst, loss);
  for (double& loss : losses)
    if (!std::isfinite(loss)) loss = worst;
  return losses;
}

template <typename T>
Vector probabilities(const T* scores, size_t classes) {
  double top = *std::max_element(scores, scores + classes), sum = 0;
  Vector found(classes);
  for (size_t k = 0; k < classes; ++k) sum += found[k] = std::exp(double(scores[k]) - top);
  for (double& p : found) p /= sum;
  return found;
}

template Vector probabilities(const float*, size_t);
template Vector probabilities(const double*, size_t);

Expansion expansion(const Scores& scores, const std::vector<int>& labels, size_t offsets, double offset_scale) {
  size_t candidates = scores.prompts - 1, size = candidates + offsets, each = scores.examples * scores.classes;
  Expansion found{{}, Vector(size), {}};
  for (const Vector& losses : cross_entropies(scores, labels)) found.losses.push_back(mean(losses));
  std::vector<bool> broken(scores.prompts);
  for (size_t p = 0; p < scores.prompts; ++p) {
    const float* own = scores.at(p, 0);
    broken[p] = std::any_of(own, own + each, [](float s) { return !std::isfinite(s); });
  }
  Vector full(size * size);
  std::vector<Vector> x(size, Vector(scores.classes));  // changes of scores per unit of a
  for (size_t j = 0; j < offsets; ++j) x[candidates + j][j] = offset_scale;
  for (size_t b = 0; b < scores.examples && !broken[0]; ++b) {
    const float* base = scores.at(0, b);
    for (size_t i = 0; i < candidates; ++i)
      for (size_t k = 0; k < scores.classes && !broken[i + 1]; ++k)
        x[i][k] = double(scores.at(i + 1, b)[k]) - double(base[k]);
    add_example(x, probabilities(base, scores.classes), labels[b], found.gradient, full);
  }
  for (double& g : found.gradient) g /= double(scores.examples);
  for (size_t i = 0; i < size; ++i)
    for (size_t j = i; j < size; ++j) found.hessian.push_back(full[i * size + j] / double(scores.examples));
  return found;
}
