#include "scorer.h"

#include <algorithm>
#include <cmath>

#include "tensors.h"

namespace {

constexpr size_t kEnvelopeBytes = 4096;  // more than a message holds besides its numbers and texts
constexpr size_t kExampleBytes = 32;

// Returns the scores under the views [B, m V], and after them those under each prompt [P, B, V], if there are any.
Scores side_by_side(const std::vector<float>& fixed, const Scores* prompted, size_t prompts, size_t examples) {
  size_t first = fixed.size() / examples, second = prompted ? prompted->classes : 0;
  Scores found{prompts, examples, first + second, {}};
  for (size_t i = 0; i < prompts * examples; ++i) {
    auto from = fixed.begin() + long(i % examples * first);
    found.values.insert(found.values.end(), from, from + long(first));
    if (prompted) {
      auto own = prompted->values.begin() + long(i * second);
      found.values.insert(found.values.end(), own, own + long(second));
    }
  }
  return found;
}

}  // namespace

Scorer::Scorer(Ptm& ptm, const fedbbpt::v1::TaskSettings& task, bool send_labels)
    : space(task), ptm_(ptm), room_(size_t(ptm.card().max_message_bytes()) - kEnvelopeBytes) {
  if (loss_only() && !send_labels)
    throw Error("LabelsWithheld", "the PTM returns losses only, so it needs every example's label", "labels",
                "--send-labels-to-ptm if it may have the labels, or a service with scores");
  if (space.offsets || !space.views.empty()) require_scores("a search of offsets or readouts");
}

bool Scorer::gives_scores() const {
  auto output = ptm_.card().output();
  return output == pb::OUTPUT_LABEL_LOGITS || output == pb::OUTPUT_LABEL_LOGPROBS;
}

void Scorer::require_scores(const std::string& wanting) const {
  if (!gives_scores())
    throw Error("OutputWithheld", "the PTM gives no scores, which " + wanting + " needs", "ptm",
                "a run that needs losses only, or another agreement with the provider");
}

Parts Scorer::enrol(const Labelled& data, const pb::Perturbation* perturbation) {
  const auto& card = ptm_.card();
  size_t longest = 0;
  for (const auto& one : data.examples) longest = std::max(longest, one.text().size() + one.text_pair().size());
  size_t fits = std::min(room_ / 2 / (kExampleBytes + longest), room_ / (4 * space.texts));
  if (card.max_pairs()) fits = std::min(fits, size_t(card.max_pairs()));
  size_t limit = std::max<size_t>(1, std::min(fits, size_t(card.max_examples())));
  size_t number = std::max<size_t>(1, (data.size() + limit - 1) / limit);
  Parts parts;
  for (size_t i = 0; i < number; ++i) {
    std::vector<size_t> rows;
    for (size_t row = i * data.size() / number; row < (i + 1) * data.size() / number; ++row) rows.push_back(row);
    auto part = std::make_shared<Part>();
    part->data = data.take(rows);
    pb::ExampleSet examples;
    for (size_t b = 0; b < part->data.size(); ++b) {
      auto& example = *examples.add_examples();
      example = part->data.examples[b];
      if (loss_only()) example.set_label(part->data.labels[b]);
    }
    examples.set_prompt_tokens(space.tokens);
    if (perturbation) *examples.mutable_perturbation() = *perturbation;
    part->handle = ptm_.register_examples(std::move(examples));
    parts.push_back(part);
  }
  return parts;
}

void Scorer::release(const Parts& parts) {
  for (const auto& part : parts) ptm_.release(part->handle);
}

size_t Scorer::prompts_per_call(size_t bytes, size_t examples) const {
  const auto& card = ptm_.card();
  size_t most = std::min({room_ / 2 / std::max<size_t>(1, bytes), room_ / (4 * examples * space.texts),
                          size_t(card.max_prompts())});
  if (card.max_pairs()) most = std::min(most, size_t(card.max_pairs()) / examples);
  return std::max<size_t>(1, most);
}

std::vector<std::vector<Vector>> Scorer::calls(const Part& part, const std::vector<Vector>& candidates) const {
  std::vector<std::vector<Vector>> found;
  size_t size = prompts_per_call(space.prompt_bytes, part.data.size());
  for (size_t start = 0; start < candidates.size(); start += size) {
    size_t end = std::min(start + size, candidates.size());
    found.emplace_back(candidates.begin() + long(start), candidates.begin() + long(end));
  }
  return found;
}

pb::ScoreResponse Scorer::ask(Part& part, const pb::ScoreRequest& request, size_t prompts) {
  pb::ScoreResponse answer = ptm_.score(part.handle, request);
  queries += int64_t(prompts * part.data.size());
  const std::string& marks = answer.bounds().data();
  if (!warned_ && marks.find_first_not_of('\0') != std::string::npos) {
    warned_ = true;
    log_line("warning", "some answers rest on bounds, since the model's server did not tell every label's score");
  }
  return answer;
}

Scores Scorer::scores_of(const pb::ScoreResponse& answer, size_t prompts, const Part& part, bool pessimistic) const {
  size_t examples = part.data.size();
  Array array = Array::from(answer.scores(), "scores");
  if (array.shape != Shape{int64_t(prompts), int64_t(examples), int64_t(space.texts)})
    throw Error("InvalidTensor", "scores of another shape", "scores", "prompts, examples, texts");
  Scores found{prompts, examples, space.texts, {}};
  for (double score : array.numbers()) found.values.push_back(to_float32(score));
  const std::string& marks = answer.bounds().data();
  if (pessimistic && !marks.empty())
    for (size_t i = 0; i < prompts * examples; ++i) {
      size_t own = i * space.texts + size_t(part.data.labels[i % examples]);
      if (marks[own]) found.values[own] -= to_float32(std::log(10.0));
    }
  return found;
}

Scores Scorer::scores(Part& part, const std::vector<Vector>& candidates) {
  require_scores("the method");
  Scores found;
  for (const std::vector<Vector>& some : calls(part, candidates)) {
    bool prompted = space.views.empty();
    for (const Vector& z : some) prompted = prompted || space.uses_prompt(z);
    Scores own = columns(part, some, prompted);
    if (!space.views.empty()) own = read_out(own, some);
    shift(own, some);
    found.values.insert(found.values.end(), own.values.begin(), own.values.end());
    found = {found.prompts + own.prompts, own.examples, own.classes, std::move(found.values)};
  }
  return found;
}

void Scorer::shift(Scores& scores, const std::vector<Vector>& candidates) const {
  if (!space.offsets || !space.views.empty()) return;
  size_t each = scores.examples * scores.classes;
  for (size_t p = 0; p < scores.prompts; ++p)
    for (size_t i = 0; i < each; ++i) {
      // Offsets are float32, and so is the sum.
      double offset = candidates[p][space.dim - space.offsets + i % scores.classes];
      scores.values[p * each + i] += to_float32(kOffsetScale * double(to_float32(offset)));
    }
}

Scores Scorer::read_out(const Scores& columns, const std::vector<Vector>& candidates) const {
  Scores found{columns.prompts, columns.examples, space.classes, {}};
  for (size_t p = 0; p < columns.prompts; ++p)
    for (size_t b = 0; b < columns.examples; ++b)
      for (size_t k = 0; k < space.classes; ++k) {
        const float* s = columns.at(p, b);
        const double* row = candidates[p].data() + space.dim + k * (space.width + 1);
        double sum = s[k];
        for (size_t c = 0; c < columns.classes; ++c) sum += double(s[c]) * row[c];
        found.values.push_back(to_float32(sum + row[space.width]));
      }
  return found;
}

Scores Scorer::columns(Part& part, const std::vector<Vector>& candidates, bool prompted) {
  size_t examples = part.data.size(), prompts = candidates.size();
  pb::ScoreRequest request;
  if (space.views.empty()) {
    space.write(candidates, request);
    return scores_of(ask(part, request, prompts), prompts, part, true);
  }
  const std::vector<float>& fixed = views(part);
  if (!prompted || !space.write(candidates, request)) return side_by_side(fixed, nullptr, prompts, examples);
  Vector key(candidates[0].begin(), candidates[0].begin() + long(space.dim));
  if (prompts == 1 && part.kept && part.kept_z == key) return *part.kept;
  Scores asked = scores_of(ask(part, request, prompts), prompts, part, false);
  Scores found = side_by_side(fixed, &asked, prompts, examples);
  if (prompts == 1) {
    part.kept_z = key;
    part.kept = found;
  }
  return found;
}

const std::vector<float>& Scorer::views(Part& part) {
  size_t examples = part.data.size(), number = space.views.size();
  if (!part.views.empty()) return part.views;
  std::vector<float> found(examples * number * space.texts);
  size_t longest = 1;
  for (const auto& view : space.views) longest = std::max(longest, view.size());
  size_t size = prompts_per_call(longest, examples);
  for (size_t start = 0; start < number; start += size) {
    pb::ScoreRequest request;
    size_t some = std::min(size, number - start);
    for (size_t m = start; m < start + some; ++m) request.mutable_text()->add_texts(space.views[m]);
    Scores scores = scores_of(ask(part, request, some), some, part, false);
    for (size_t m = 0; m < some; ++m)
      for (size_t b = 0; b < examples; ++b)
        std::copy_n(scores.at(m, b), space.texts, found.data() + (b * number + start + m) * space.texts);
  }
  return part.views = std::move(found);
}

std::vector<std::vector<int>> Scorer::choices(Part& part, const std::vector<Vector>& candidates) {
  std::vector<std::vector<int>> found;
  size_t examples = part.data.size();
  for (const std::vector<Vector>& some : calls(part, candidates)) {
    pb::ScoreRequest request;
    space.write(some, request);
    pb::ScoreResponse answer = ask(part, request, some.size());
    Vector classes = Array::from(answer.choices(), "choices").numbers();
    if (classes.size() != some.size() * examples)
      throw Error("InvalidTensor", std::to_string(classes.size()) + " choices", "choices", "prompts, examples");
    const std::string& marks = answer.bounds().data();
    for (size_t p = 0; p < some.size(); ++p) {
      std::vector<int> row;
      for (size_t i = p * examples; i < (p + 1) * examples; ++i)
        row.push_back(!marks.empty() && marks[i] ? -1 : static_cast<int>(classes[i]));
      found.push_back(row);
    }
  }
  return found;
}

Vector Scorer::losses(Part& part, const std::vector<Vector>& candidates) {
  Vector found;
  for (const std::vector<Vector>& some : calls(part, candidates)) {
    pb::ScoreRequest request;
    space.write(some, request);
    Vector own = Array::from(ask(part, request, some.size()).losses(), "losses").numbers();
    if (own.size() != some.size())
      throw Error("InvalidTensor", std::to_string(own.size()) + " losses", "losses", "one for each prompt");
    found.insert(found.end(), own.begin(), own.end());
  }
  return found;
}
