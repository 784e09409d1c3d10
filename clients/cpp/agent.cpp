#include "agent.h"

#include <algorithm>
#include <thread>

using namespace fedbbpt::v1;

namespace {

constexpr auto kPause = std::chrono::seconds(2);

// Returns the finalists of a task, which are prompts z.
std::vector<Vector> finalists_of(const Task& task, size_t length) {
  std::vector<Vector> found;
  auto finalists = task.arrays.find("finalists");
  if (finalists == task.arrays.end()) return found;
  Vector numbers = finalists->second.numbers();
  size_t width = size_t(finalists->second.shape.at(1));
  for (size_t at = 0; at + width <= numbers.size() && width; at += width) {
    Vector z(numbers.begin() + long(at), numbers.begin() + long(at + width));
    found.push_back(width == length ? z : with_readout(z, task.arrays));
  }
  return found;
}

}  // namespace

Agent::Agent(ClientHalf half, Objectives& objectives, CodecChain codec, Keepsake& keepsake, const JoinResponse& run)
    : half_(std::move(half)),
      objectives_(objectives),
      codec_(std::move(codec)),
      keepsake_(keepsake),
      sampling_(run.sampling()),
      lost_(keepsake.lost(run.run_id())) {}

int Agent::run(Coordinator& coordinator) {
  int counted = 0;
  while (auto task = coordinator.next_task()) {
    Receipt receipt = coordinator.submit(answer_patiently(*task, coordinator));
    log_line("info", "round " + std::to_string(task->header.id().round()) + ": " + Receipt_Name(receipt));
    counted += receipt == RECEIPT_COUNTED;
  }
  return counted;
}

UpdateHeader Agent::answer_patiently(const Task& task, Coordinator& coordinator) {
  for (unsigned attempt = 1;; ++attempt) {
    try {
      return answer(task);
    } catch (const Error& error) {
      if (!error.retryable() && !error.is({"DeadlineExceeded"})) throw;
      if ((attempt & (attempt - 1)) == 0) {  // the first, the second, the fourth, ...
        log_line("warning", std::string(error.what()) + "; trying again");
        coordinator.report_trouble(error);
      }
      std::this_thread::sleep_for(kPause);
    }
  }
}

UpdateHeader Agent::answer(const Task& task) {
  if (auto saved = keepsake_.load(task.header.id())) {
    log_line("info", "answered before; sending the same update again");
    return *saved;
  }
  int64_t before = objectives_.scorer.queries;
  Lost lost = lost_;
  UpdateHeader update;
  *update.mutable_id() = task.header.id();
  update.mutable_measurement();
  if (task.header.id().phase() == PHASE_EVALUATE) evaluate(task, update);
  else search(task, update, lost);
  update.mutable_measurement()->set_queries(objectives_.scorer.queries - before);
  keepsake_.save(update, lost);
  lost_ = std::move(lost);
  return update;
}

void Agent::evaluate(const Task& task, UpdateHeader& update) {
  Vector prompt = broadcast_prompt(task);
  std::vector<Vector> prompts = finalists_of(task, prompt.size());
  prompts.insert(prompts.begin(), prompt);
  update.set_weight(objectives_.weight);
  std::vector<Measurement> measured = objectives_.measure_all(prompts);
  *update.mutable_measurement() = measured[0];
  for (size_t i = 1; i < measured.size(); ++i) *update.add_finalists() = measured[i];
}

void Agent::search(const Task& task, UpdateHeader& update, Lost& lost) {
  bool measures = task.header.id().round() % std::max(1, sampling_.dev_every()) == 0 || task.arrays.count("readouts");
  if (measures) *update.mutable_measurement() = objectives_.measure(broadcast_prompt(task));
  Found found = half_(task, objectives_);
  uint64_t seed = derive(task.header.seed(), {"codec", task.client_id()});
  int drawn = 0;
  Rounding rounding = [&](size_t count) { return uniforms(derive(seed, {std::to_string(drawn++)}), count); };
  update.set_weight(found.weight);
  write_bundle(travelling(found, task.arrays, codec_, rounding, lost), *update.mutable_arrays());
}
