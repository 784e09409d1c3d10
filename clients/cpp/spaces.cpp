#include "spaces.h"

#include <algorithm>

#include "error.h"
#include "tensors.h"

using fedbbpt::v1::TaskSettings;

Space::Space(const TaskSettings& task) : task_(task) {
  classes = static_cast<size_t>(task.classes_size());
  texts = classes + static_cast<size_t>(task.columns_size());
  views = {task.views().begin(), task.views().end()};
  switch (task.prompt_case()) {
    case TaskSettings::kLatent: {
      const auto& space = task.latent();
      dim = static_cast<size_t>(space.dim());
      offsets = static_cast<size_t>(space.offsets());
      tokens = space.projection().injection() == fedbbpt::v1::INJECTION_CLASS ? 0 : space.projection().tokens();
      prompt_bytes = 4 * (dim - offsets);
      break;
    }
    case TaskSettings::kText: {
      dim = static_cast<size_t>(task.text().dim());
      tokens = task.text().prompt_tokens();
      size_t longest = 0;
      for (const auto& word : task.text().candidates()) longest = std::max(longest, word.size());
      prompt_bytes = dim * (longest + 1);
      break;
    }
    case TaskSettings::kNone:
      tokens = task.none().room();
      prompted = false;
      break;
    default:
      throw Error("UnsupportedPrompt", "this client has no prompts of this kind", "task.prompt",
                  "the client of the Python package");
  }
  if (!views.empty()) {
    tokens = std::max(tokens, task.view_tokens());
    width = (views.size() + prompted) * texts;
  }
}

bool Space::write(const std::vector<Vector>& candidates, fedbbpt::ptm::v1::ScoreRequest& request) const {
  if (task_.has_latent()) {
    size_t length = dim - offsets;
    Vector numbers;
    for (const Vector& z : candidates) numbers.insert(numbers.end(), z.begin(), z.begin() + long(length));
    Shape shape = {static_cast<int64_t>(candidates.size()), static_cast<int64_t>(length)};
    Array::of(fedbbpt::v1::D_TYPE_FLOAT32, shape, numbers).write(*request.mutable_latent()->mutable_z());
    *request.mutable_latent()->mutable_projection() = task_.latent().projection();
  }
  if (task_.has_text())
    for (const Vector& z : candidates) {
      std::string text;
      for (size_t i = 0; i < dim; ++i) text += (i ? " " : "") + task_.text().candidates(static_cast<int>(z[i]));
      request.mutable_text()->add_texts(text);
    }
  return prompted;
}

bool Space::uses_prompt(const Vector& z) const {
  for (size_t k = 0; k < classes; ++k)
    for (size_t c = views.size() * texts; c < width; ++c)
      if (z[dim + k * (width + 1) + c] != 0) return true;
  return false;
}
