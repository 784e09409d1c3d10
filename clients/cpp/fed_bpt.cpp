// fed-bpt (FedBPT, arXiv 2310.01467): the client runs a CMA-ES of its own from the broadcast distribution.
#include <algorithm>
#include <cmath>

#include "cmaes.h"
#include "methods.h"

using fedbbpt::v1::FedBptSettings;

namespace {

constexpr double kLeastPerturbedLoss = 1e-6;  // the least divisor in the perturbed objective, in nats

// NaN if a perturbed loss is not finite: a ratio of 0 would rank such a candidate best.
double ratio(double loss, double other) {
  return std::isfinite(other) ? loss / std::max(other, kLeastPerturbedLoss) : NAN;
}

// Returns the losses of a generation: the plain ones, or their ratio to those of perturbed inputs.
Vector losses_of(const FedBptSettings& settings, const Task& task, uint64_t seed, Objectives& objectives,
                 const std::vector<Vector>& drawn, size_t generation) {
  std::vector<Vector> candidates = with_readouts(drawn, task.arrays);
  uint64_t draw = derive(task.header.seed(), {task.client_id(), std::to_string(generation)});
  if (settings.perturb_rate() == 0) return finite(objectives.loss(candidates, draw));
  pb::Perturbation perturbation;
  perturbation.set_rate(settings.perturb_rate());
  perturbation.set_seed(derive(seed, {"perturbation"}));
  std::vector<Vector> clean = objectives.each(candidates, nullptr, draw);
  std::vector<Vector> perturbed = objectives.each(candidates, &perturbation, draw);
  Vector found;
  for (size_t p = 0; p < clean.size(); ++p) {
    if (settings.ratio_of_means()) {
      found.push_back(ratio(mean(clean[p]), mean(perturbed[p])));
      continue;
    }
    for (size_t b = 0; b < clean[p].size(); ++b) clean[p][b] = ratio(clean[p][b], perturbed[p][b]);
    found.push_back(mean(clean[p]));
  }
  return finite(found);
}

Array orders_of(const Searched& found) {
  Vector flat;
  for (const auto& order : found.orders) flat.insert(flat.end(), order.begin(), order.end());
  Shape shape = {int64_t(found.orders.size()), int64_t(found.orders[0].size())};
  return Array::of(fedbbpt::v1::D_TYPE_UINT8, shape, flat);
}

}  // namespace

ClientHalf fed_bpt(const FedBptSettings& settings) {
  bool full = settings.local_covariance() == FedBptSettings::COVARIANCE_FULL;
  bool diagonal = settings.local_covariance() == FedBptSettings::COVARIANCE_DIAGONAL;
  if (full && settings.common_seed())
    throw Error("PluginMissing", "all clients of this run must draw the same candidates of a full covariance, "
                "so all run one program", "method.common_seed", "the client of the Python package");
  return [=](const Task& task, Objectives& objectives) {
    uint64_t seed = task.header.seed();
    if (!settings.common_seed()) seed = derive(seed, {task.client_id()});
    Search options;
    options.mean = need(task.arrays, "mean").numbers();
    options.sigma = need(task.arrays, "sigma").numbers()[0];
    options.covariance = full ? Covariance::kFull : diagonal ? Covariance::kDiagonal : Covariance::kIdentity;
    options.population = size_t(settings.local_population());
    options.iterations = size_t(settings.local_iterations());
    options.seed = seed;
    options.limit = task.arrays.count("limit") ? need(task.arrays, "limit").numbers()[0] : INFINITY;
    options.losses = [&](const std::vector<Vector>& candidates, size_t generation) {
      return losses_of(settings, task, seed, objectives, candidates, generation);
    };
    Searched searched = search(options);
    Found found;
    found.arrays["loss"] = {{1}, options.losses({searched.mean}, options.iterations)};
    if (settings.orders_sent()) {
      found.orders = orders_of(searched);
    } else {
      found.arrays["mean"] = {{int64_t(searched.mean.size())}, searched.mean};
      found.arrays["sigmas"] = {{int64_t(searched.sigmas.size())}, searched.sigmas};
    }
    return found;
  };
}
