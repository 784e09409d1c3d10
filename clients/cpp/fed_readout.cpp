// Rounds that fit a readout: sums over the client's examples, in fed-readout and between the rounds of a search.
#include <optional>

#include "methods.h"

namespace {

// The columns [B][C] of examples with their classes. Examples with columns that are not finite are left out.
struct ColumnSet {
  std::vector<Vector> rows;
  std::vector<int> labels;
};

struct Kept {
  Vector z;
  bool prompted;
  ColumnSet train, dev;
};

ColumnSet columns_of(Objectives& objectives, Batches& part, const Vector& z, bool prompted) {
  ColumnSet found;
  part.whole([&](Part& registered) {
    Scores scores = objectives.scorer.columns(registered, {z}, prompted);
    for (size_t b = 0; b < scores.examples; ++b) {
      Vector row(scores.at(0, b), scores.at(0, b) + scores.classes);
      if (!all_finite(row)) continue;
      found.rows.push_back(row);
      found.labels.push_back(registered.data.labels[b]);
    }
  });
  return found;
}

// Returns the loss of a readout summed over examples, and adds its derivatives (p - e) (s, 1)' to a gradient, if any.
double add(const ColumnSet& part, const double* readout, size_t classes, size_t width, double* gradient) {
  double loss = 0;
  Vector scores(classes);
  for (size_t b = 0; b < part.rows.size(); ++b) {
    const Vector& s = part.rows[b];
    for (size_t k = 0; k < classes; ++k) {
      scores[k] = s[k];
      for (size_t c = 0; c + 1 < width; ++c) scores[k] += readout[k * width + c] * s[c];
      scores[k] += readout[k * width + width - 1];
    }
    loss += cross_entropy(scores.data(), classes, part.labels[b]);
    if (!gradient) continue;
    Vector p = probabilities(scores.data(), classes);
    p[size_t(part.labels[b])] -= 1;
    for (size_t k = 0; k < classes; ++k) {
      for (size_t c = 0; c + 1 < width; ++c) gradient[k * width + c] += p[k] * s[c];
      gradient[k * width + width - 1] += p[k];
    }
  }
  return loss;
}

Found sums(const ColumnSet& train, const ColumnSet& dev, const Array& readouts, bool whole) {
  size_t number = size_t(readouts.shape[0]), classes = size_t(readouts.shape[1]), width = size_t(readouts.shape[2]);
  Vector values = readouts.numbers(), loss(number), dev_loss(number), gradient(values.size());
  Vector moments(2 * (width - 1));
  std::vector<const ColumnSet*> counted = {&train};
  if (whole) counted.push_back(&dev);
  for (size_t r = 0; r < number; ++r) {
    const double* readout = values.data() + r * classes * width;
    double* into = &gradient[r * classes * width];
    for (const ColumnSet* part : counted) loss[r] += add(*part, readout, classes, width, into);
    dev_loss[r] = add(dev, readout, classes, width, nullptr);
  }
  Found found;
  found.weight = 0;
  found.sums = true;
  for (const ColumnSet* part : counted) {
    found.weight += double(part->labels.size());
    for (const Vector& row : part->rows)
      for (size_t c = 0; c + 1 < width; ++c) {
        moments[c] += row[c];
        moments[width - 1 + c] += row[c] * row[c];
      }
  }
  auto size = [](size_t each) { return static_cast<int64_t>(each); };
  found.arrays["loss"] = {{size(number)}, loss};
  found.arrays["gradient"] = {readouts.shape, gradient};
  found.arrays["moments"] = {{2, size(width - 1)}, moments};
  found.arrays["dev_loss"] = {{size(number)}, dev_loss};
  found.arrays["dev_weight"] = {{1}, {double(dev.labels.size())}};
  return found;
}

}  // namespace

ClientHalf fed_readout(ClientHalf search) {
  auto kept = std::make_shared<std::optional<Kept>>();
  return [search, kept](const Task& task, Objectives& objectives) {
    if (search && !task.arrays.count("readouts")) return search(task, objectives);
    const Array& readouts = need(task.arrays, "readouts");
    const Space& space = objectives.scorer.space;
    bool prompted = space.prompted && size_t(readouts.shape.at(2)) == space.width + 1;
    Vector mean = need(task.arrays, "mean").numbers(), z(mean.begin(), mean.begin() + long(space.dim));
    if (!*kept || (*kept)->prompted != prompted || (prompted && (*kept)->z != z)) {
      ColumnSet train = columns_of(objectives, objectives.train, z, prompted);
      *kept = Kept{z, prompted, train, columns_of(objectives, objectives.dev, z, prompted)};
    }
    if ((*kept)->train.labels.empty())
      throw Error("InvalidTensor", "no training example has scores that are all finite", "scores",
                  "a model, or a precision, that gives finite ones");
    return sums((*kept)->train, (*kept)->dev, readouts, task.arrays.count("whole") > 0);
  };
}
