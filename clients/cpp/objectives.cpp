#include "objectives.h"

#include <algorithm>
#include <set>

namespace {

// Returns the scores of the same prompts on several sets of examples, with all labels.
std::pair<Scores, std::vector<int>> scored(Scorer& scorer, const Parts& parts, const std::vector<Vector>& candidates) {
  std::vector<Scores> answers;
  std::vector<int> labels;
  for (const auto& part : parts) {
    answers.push_back(scorer.scores(*part, candidates));
    labels.insert(labels.end(), part->data.labels.begin(), part->data.labels.end());
  }
  if (answers.size() == 1) return {std::move(answers[0]), labels};
  Scores found{candidates.size(), labels.size(), answers[0].classes, {}};
  for (size_t p = 0; p < candidates.size(); ++p)
    for (const Scores& one : answers)
      found.values.insert(found.values.end(), one.at(p, 0), one.at(p, 0) + one.examples * one.classes);
  return {found, labels};
}

std::vector<fedbbpt::v1::Measurement> measurements(const Judgement& judged) {
  std::vector<fedbbpt::v1::Measurement> found(judged.losses.size());
  for (size_t p = 0; p < found.size(); ++p) {
    found[p].set_dev_loss_sum(judged.losses[p] * double(judged.examples));
    found[p].set_dev_examples(int64_t(judged.examples));
    if (!judged.right.empty()) found[p].set_dev_correct(judged.right[p]);
  }
  return found;
}

Judgement merged(const std::vector<Judgement>& parts) {
  Judgement found{Vector(parts[0].losses.size()), std::vector<int>(parts[0].right.size()), 0};
  for (const auto& part : parts) found.examples += part.examples;
  for (const auto& part : parts) {
    double share = double(part.examples) / double(found.examples);
    for (size_t p = 0; p < found.losses.size(); ++p) found.losses[p] += share * part.losses[p];
    for (size_t p = 0; p < found.right.size(); ++p) found.right[p] += part.right[p];
  }
  return found;
}

}  // namespace

Batches::Batches(Scorer& scorer, Labelled data, size_t size, uint64_t seed, const std::string& name)
    : scorer_(scorer), data_(std::move(data)) {
  size_t length = data_.size(), number = size ? std::max<size_t>(1, (length + size - 1) / size) : 1;
  std::vector<size_t> order = permutation(derive(seed, {"batches"}), length);
  for (size_t i = 0; i < number; ++i) {
    auto begin = order.begin() + long(i * length / number), end = order.begin() + long((i + 1) * length / number);
    rows_.emplace_back(begin, end);
    std::sort(rows_.back().begin(), rows_.back().end());
    std::set<std::string> different;
    for (size_t row : rows_.back()) different.insert(data_.examples[row].SerializeAsString());
    if (different.size() < scorer.fewest())
      throw Error("InvalidData", std::to_string(different.size()) + " different ones in a batch", name,
                  "at least " + std::to_string(scorer.fewest()) + ": the PTM gives only mean losses, over so many");
  }
}

Parts& Batches::drawn(uint64_t draw, const pb::Perturbation* perturbation) {
  return batch(derive(draw, {"batch"}) % rows_.size(), perturbation);
}

Parts& Batches::batch(size_t index, const pb::Perturbation* perturbation) {
  if (long(index) != current_) {
    // The batch is forgotten first: a call that fails is not made again, and the examples expire.
    Parts before = std::move(registered_), others = std::move(perturbed_);
    registered_ = perturbed_ = {};
    perturbed_by_.clear();
    current_ = -1;
    scorer_.release(before);
    scorer_.release(others);
    registered_ = scorer_.enrol(data_.take(rows_[index]));
    current_ = long(index);
  }
  if (!perturbation) return registered_;
  std::string key = perturbation->SerializeAsString();
  if (key != perturbed_by_) {
    Parts before = std::move(perturbed_);
    perturbed_ = {};
    perturbed_by_.clear();
    scorer_.release(before);
    perturbed_ = scorer_.enrol(data_.take(rows_[index]), perturbation);
    perturbed_by_ = key;
  }
  return perturbed_;
}

void Batches::whole(const std::function<void(Part&)>& use) {
  if (rows_.size() == 1) {
    for (const auto& part : batch(0)) use(*part);
    return;
  }
  // A PTM that gives losses only may reject sets of examples that overlap, so these parts are those of the batches.
  std::vector<Labelled> sets;
  if (scorer_.loss_only())
    for (const auto& rows : rows_) sets.push_back(data_.take(rows));
  else
    sets.push_back(data_);
  for (const auto& set : sets) {
    Parts parts = scorer_.enrol(set);
    for (const auto& part : parts) use(*part);
    scorer_.release(parts);
  }
}

Objectives::Objectives(Scorer& scorer, Labelled train, Labelled dev, const fedbbpt::v1::Sampling& sampling)
    : scorer(scorer),
      train(scorer, std::move(train), size_t(sampling.batch_examples()), sampling.seed(), "training examples"),
      dev(scorer, std::move(dev), size_t(sampling.batch_examples()), sampling.seed(), "dev examples"),
      weight(double(this->train.size())) {}

Judgement Objectives::judge(const Parts& parts, const std::vector<Vector>& candidates) {
  if (scorer.gives_scores()) {
    auto [scores, labels] = scored(scorer, parts, candidates);
    Judgement found{{}, correct(scores, labels), labels.size()};
    for (const Vector& losses : cross_entropies(scores, labels)) found.losses.push_back(mean(losses));
    return found;
  }
  std::vector<Judgement> found;
  for (const auto& part : parts) {
    const auto& labels = part->data.labels;
    Judgement own{{}, {}, labels.size()};
    if (scorer.loss_only()) {
      own.losses = scorer.losses(*part, candidates);
    } else {
      for (const auto& row : scorer.choices(*part, candidates)) {
        int right = 0;
        for (size_t b = 0; b < row.size(); ++b) right += row[b] == labels[b];
        own.right.push_back(right);
        own.losses.push_back(1 - right / double(labels.size()));
      }
    }
    found.push_back(own);
  }
  return merged(found);
}

Vector Objectives::loss(const std::vector<Vector>& candidates, uint64_t draw) {
  return judge(train.drawn(draw), candidates).losses;
}

std::vector<Vector> Objectives::each(const std::vector<Vector>& candidates, const pb::Perturbation* perturbation,
                                     uint64_t draw) {
  auto [scores, labels] = scored(scorer, train.drawn(draw, perturbation), candidates);
  return cross_entropies(scores, labels);
}

::Expansion Objectives::expansion(const std::vector<Vector>& candidates, uint64_t draw) {
  auto [scores, labels] = scored(scorer, train.drawn(draw), candidates);
  return ::expansion(scores, labels, scorer.space.offsets, kOffsetScale);
}

fedbbpt::v1::Measurement Objectives::measure(const Vector& z) { return measurements(judge(dev.batch(0), {z}))[0]; }

std::vector<fedbbpt::v1::Measurement> Objectives::measure_all(const std::vector<Vector>& prompts) {
  std::vector<Judgement> found;
  dev.whole([&](Part& part) {
    std::shared_ptr<Part> borrowed(&part, [](Part*) {});
    found.push_back(judge({borrowed}, prompts));
  });
  return measurements(merged(found));
}
