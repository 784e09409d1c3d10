// Scores prompts of a run's space on labelled examples, within the limits of the PTM's card.
#pragma once

#include <memory>
#include <optional>

#include "criterion.h"
#include "examples.h"
#include "ptm.h"
#include "spaces.h"

// Examples under one handle.
struct Part {
  Handle handle;
  Labelled data;
  std::vector<float> views;  // the scores under the views [B, m V], once they are asked
  Vector kept_z;             // the only prompt that was asked last, and its columns
  std::optional<Scores> kept;
};

using Parts = std::vector<std::shared_ptr<Part>>;

// Every query of the client is counted here.
class Scorer {
 public:
  Scorer(Ptm& ptm, const fedbbpt::v1::TaskSettings& task, bool send_labels);

  bool gives_scores() const;
  bool loss_only() const { return ptm_.card().output() == pb::OUTPUT_LOSS_ONLY; }
  // Throws OutputWithheld if the PTM gives no score for each class.
  void require_scores(const std::string& wanting) const;
  // Returns the number of different examples that a handle must hold.
  size_t fewest() const { return loss_only() ? size_t(ptm_.card().min_examples()) : 0; }

  // Registers examples in parts of about equal length, each of which fits one handle.
  Parts enrol(const Labelled& data, const pb::Perturbation* perturbation = nullptr);
  void release(const Parts& parts);

  // Returns the scores [P, B, K] of candidates, with their offsets or readouts.
  Scores scores(Part& part, const std::vector<Vector>& candidates);
  // Returns the scores without offsets and readouts: [P, B, V], or with views [P, B, C] or [P, B, m V].
  Scores columns(Part& part, const std::vector<Vector>& candidates, bool prompted);
  // Returns the chosen classes [P][B], or -1 where another may be likelier, of a PTM that gives classes only.
  std::vector<std::vector<int>> choices(Part& part, const std::vector<Vector>& candidates);
  // Returns the mean losses [P], of a PTM that gives losses only.
  Vector losses(Part& part, const std::vector<Vector>& candidates);

  const Space space;
  int64_t queries = 0;

 private:
  // Returns candidates in groups, each of which fits one call.
  std::vector<std::vector<Vector>> calls(const Part& part, const std::vector<Vector>& candidates) const;
  size_t prompts_per_call(size_t bytes, size_t examples) const;
  pb::ScoreResponse ask(Part& part, const pb::ScoreRequest& request, size_t prompts);
  Scores scores_of(const pb::ScoreResponse& answer, size_t prompts, const Part& part, bool pessimistic) const;
  void shift(Scores& scores, const std::vector<Vector>& candidates) const;
  Scores read_out(const Scores& columns, const std::vector<Vector>& candidates) const;
  const std::vector<float>& views(Part& part);

  Ptm& ptm_;
  size_t room_;
  bool warned_ = false;
};
