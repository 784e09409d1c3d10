// fed-cma: the losses of the round's candidates, or the expansion of the loss that a Newton step needs.
#include "methods.h"
#include "tensors.h"

namespace {

Plain vector_of(Vector numbers) {
  auto size = static_cast<int64_t>(numbers.size());
  return {{size}, std::move(numbers)};
}

// Returns candidates mean + scale D, computed in float64 and rounded to float32.
std::vector<Vector> sample(const Vector& mean, const Vector& scale, uint64_t seed, size_t population) {
  Vector drawn = normals(seed, population * mean.size());
  std::vector<Vector> found(population, Vector(mean.size()));
  for (size_t p = 0; p < population; ++p)
    for (size_t i = 0; i < mean.size(); ++i) found[p][i] = to_float32(mean[i] + scale[i] * drawn[p * mean.size() + i]);
  return found;
}

std::vector<Vector> candidates_of(const fedbbpt::v1::FedCmaSettings& settings, const Task& task) {
  auto population = static_cast<size_t>(settings.population());
  if (!settings.candidates_sent())
    return sample(need(task.arrays, "mean").numbers(), need(task.arrays, "scale").numbers(), task.header.seed(),
                  population);
  Vector sent = need(task.arrays, "candidates").numbers();
  size_t n = sent.size() / population;
  std::vector<Vector> found;
  for (size_t p = 0; p < population; ++p)
    found.emplace_back(sent.begin() + long(p * n), sent.begin() + long((p + 1) * n));
  return found;
}

}  // namespace

std::vector<Vector> near(const Arrays& arrays, uint64_t seed, size_t population, size_t offsets) {
  Vector mean = need(arrays, "mean").numbers(), scales(mean.size());
  double scale = need(arrays, "scale").numbers()[0];
  for (size_t i = 0; i + offsets < mean.size(); ++i) scales[i] = scale;
  std::vector<Vector> found = sample(mean, scales, seed, population - 1);
  found.insert(found.begin(), need(arrays, "center").numbers());
  return found;
}

ClientHalf fed_cma(const fedbbpt::v1::FedCmaSettings& settings) {
  return [settings](const Task& task, Objectives& objectives) {
    uint64_t draw = derive(task.header.seed(), {task.client_id(), "0"});
    Found found;
    found.weight = objectives.weight;
    if (!settings.expansion_sent()) {
      std::vector<Vector> candidates = with_readouts(candidates_of(settings, task), task.arrays);
      found.arrays["losses"] = vector_of(finite(objectives.loss(candidates, draw)));
      return found;
    }
    size_t offsets = objectives.scorer.space.offsets;
    std::vector<Vector> candidates = near(task.arrays, task.header.seed(), size_t(settings.population()), offsets);
    candidates.insert(candidates.begin(), need(task.arrays, "mean").numbers());
    Expansion expansion = objectives.expansion(with_readouts(candidates, task.arrays), draw);
    Vector both = finite({expansion.losses[0], expansion.losses[1]});
    found.arrays["loss"] = vector_of({both[0]});
    found.arrays["decrease"] = vector_of({both[1] - both[0]});
    found.arrays["gradient"] = vector_of(expansion.gradient);
    found.arrays["hessian"] = vector_of(expansion.hessian);
    return found;
  };
}
