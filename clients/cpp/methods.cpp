#include "methods.h"

using fedbbpt::v1::JoinResponse;
using fedbbpt::v1::MethodSettings;

namespace {

ClientHalf search_of(const JoinResponse& run) {
  const auto& method = run.method();
  switch (method.method_case()) {
    case MethodSettings::kFedCma: return fed_cma(method.fed_cma());
    case MethodSettings::kFedBpt: return fed_bpt(method.fed_bpt());
    case MethodSettings::kFedReadout: return nullptr;
    case MethodSettings::kExtension:
      throw Error("PluginMissing", "the run uses the method " + printable(method.extension().name()) + " in version " +
                  printable(method.extension().version()), "method", "a client that has this plug-in");
    default:
      throw Error("PluginMissing", "this client does not have the run's method", "method",
                  "the client of the Python package");
  }
}

}  // namespace

ClientHalf client_half(const JoinResponse& run) {
  ClientHalf search = search_of(run);
  if (run.task().views_size()) return fed_readout(search);
  if (!search) throw Error("InvalidRequest", "fed-readout without views", "task.views", "at least one");
  return search;
}

std::string point_of(const JoinResponse& run) { return run.method().has_fed_bpt() ? "mean" : ""; }

bool needs_scores(const JoinResponse& run) {
  return run.method().fed_cma().expansion_sent() || run.method().fed_bpt().perturb_rate() > 0;
}

Vector broadcast_prompt(const Task& task) { return with_readout(need(task.arrays, "mean").numbers(), task.arrays); }

Vector with_readout(Vector z, const Arrays& arrays) {
  auto readout = arrays.find("readout");
  if (readout == arrays.end()) return z;
  Vector numbers = readout->second.numbers();
  z.insert(z.end(), numbers.begin(), numbers.end());
  return z;
}

std::vector<Vector> with_readouts(std::vector<Vector> candidates, const Arrays& arrays) {
  for (Vector& z : candidates) z = with_readout(std::move(z), arrays);
  return candidates;
}
