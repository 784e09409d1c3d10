#include "prompts.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "projection.h"
#include "refusal.h"

namespace {

using fedbbpt::v1::Tensor;

Refusal invalid_tensor(std::string what, std::string where, std::string fix) {
  return invalid("InvalidTensor", what, where, fix);
}

void check_count(long count) {
  if (count < 1 || count > kMaxPrompts)
    throw invalid_tensor(std::to_string(count) + " prompts", "prompts", "1 to " + std::to_string(kMaxPrompts));
}

void check_tokens(long tokens) {
  const std::string what = std::to_string(tokens) + " tokens", fix = "less than " + std::to_string(kMaxTokens);
  if (tokens >= kMaxTokens) throw invalid("PromptTooLong", what, "prompts", fix);
}

void check_injection(prompt_pb::Injection injection, const std::string& where) {
  if (injection != prompt_pb::INJECTION_PREFIX) throw unsupported("another injection", where, "INJECTION_PREFIX");
}

// Returns the elements of a float32 tensor of that rank. Throws InvalidTensor unless all sizes are 1 or more and all
// elements finite.
std::vector<float> floats(const Tensor& tensor, int rank, const std::string& where) {
  static_assert(std::endian::native == std::endian::little, "tensors travel little-endian");
  if (tensor.dtype() != fedbbpt::v1::D_TYPE_FLOAT32 || tensor.shape_size() != rank)
    throw invalid_tensor("another type or rank", where, "float32 of rank " + std::to_string(rank));
  const Refusal other_shape = invalid_tensor("another shape than its bytes have", where, "sizes of 1 or more");
  const auto elements = tensor.data().size() / sizeof(float);
  std::size_t product = 1;
  for (const auto size : tensor.shape()) {
    if (size < 1 || std::uint64_t(size) > elements / product) throw other_shape;
    product *= size;
  }
  if (product * sizeof(float) != tensor.data().size()) throw other_shape;
  std::vector<float> read(product);
  std::memcpy(read.data(), tensor.data().data(), tensor.data().size());
  for (const float element : read)
    if (!std::isfinite(element)) throw invalid_tensor("NaN or infinite elements", where, "finite numbers");
  return read;
}

// `vectors` holds [L, D] numbers, row-major.
template <class Number>
Prompt prompt_of(const Number* vectors, int tokens) {
  Prompt prompt{{}, tokens};
  for (int l = 0; l < tokens; ++l)
    for (int d = 0; d < kWidth; ++d) prompt.m[d] += vectors[l * kWidth + d];
  for (double& element : prompt.m) element /= std::sqrt(std::max(tokens, 1));
  return prompt;
}

std::vector<double> embed(const Tokens& words) {
  std::vector<double> vectors;
  for (const int token : words)
    for (const double element : word_vector(token)) vectors.push_back(element);
  return vectors;
}

std::vector<Prompt> read_text(const prompt_pb::TextPrompts& message) {
  check_count(message.texts_size());
  std::vector<Prompt> prompts;
  for (const std::string& text : message.texts()) {
    const Tokens words = tokenize(text);
    check_tokens(words.size());
    prompts.push_back(prompt_of(embed(words).data(), words.size()));
  }
  return prompts;
}

std::vector<Prompt> read_soft(const prompt_pb::SoftPrompts& message) {
  const std::string where = "soft.embeddings";
  check_injection(message.injection(), "soft.injection");
  const std::vector<float> vectors = floats(message.embeddings(), 3, where);
  const long count = message.embeddings().shape(0), tokens = message.embeddings().shape(1);
  if (message.embeddings().shape(2) != kWidth) throw invalid_tensor("another width", where, std::to_string(kWidth));
  check_count(count);
  check_tokens(tokens);
  for (auto vector = vectors.begin(); vector != vectors.end(); vector += kWidth) {
    double squares = 0;
    for (int d = 0; d < kWidth; ++d) squares += double(vector[d]) * vector[d];
    if (std::sqrt(squares) > kMaxVectorNorm) throw invalid_tensor("a long vector", where, "a norm of 10000 at most");
  }
  std::vector<Prompt> prompts;
  for (long p = 0; p < count; ++p) prompts.push_back(prompt_of(&vectors[p * tokens * kWidth], tokens));
  return prompts;
}

std::vector<Prompt> read_latent(const prompt_pb::LatentPrompts& message) {
  const std::string where = "latent.projection";
  const prompt_pb::Projection& projection = message.projection();
  check_injection(projection.injection(), where + ".injection");
  const bool normal = projection.kind() == prompt_pb::PROJECTION_KIND_NORMAL;
  if (!normal && projection.kind() != prompt_pb::PROJECTION_KIND_RADEMACHER)
    throw unsupported("another kind of projection", where + ".kind",
                      "PROJECTION_KIND_RADEMACHER or PROJECTION_KIND_NORMAL");
  const std::vector<float> z = floats(message.z(), 2, "latent.z");
  const long count = message.z().shape(0), n = message.z().shape(1);
  check_count(count);
  for (const float element : z)
    if (std::abs(element) > kMaxLatent) throw invalid_tensor("a large element", "latent.z", "10000 at most");
  if (projection.tokens() < 1) throw invalid_tensor("no tokens", where + ".tokens", "1 or more");
  check_tokens(projection.tokens());
  const long size = long{projection.tokens()} * kWidth;  // L D
  if (size * n > kMaxProjection)
    throw invalid_tensor("a large projection", "latent.z", std::to_string(kMaxProjection) + " elements at most");
  if (!std::isfinite(projection.scale())) throw invalid_tensor("no number", where + ".scale", "a finite number");

  std::vector<double> initial(size);
  if (const auto words = embed(tokenize(projection.initial_text())); !words.empty())
    for (long i = 0; i < size; ++i) initial[i] = words[i % words.size()];
  const std::vector<double> a = normal ? normals(projection.seed(), size * n) : signs(projection.seed(), size * n);
  const double factor = projection.scale() * kStd / std::sqrt(n);
  std::vector<Prompt> prompts;
  for (long p = 0; p < count; ++p) {
    std::vector<double> vectors = initial;
    for (long i = 0; i < size; ++i) {
      double sum = 0;
      for (long j = 0; j < n; ++j) sum += a[i * n + j] * z[p * n + j];
      vectors[i] += factor * sum;
      if (!(std::abs(vectors[i]) < 1e30)) throw invalid_tensor("an overflow", "latent.z", "a smaller z or scale");
    }
    prompts.push_back(prompt_of(vectors.data(), projection.tokens()));
  }
  return prompts;
}

}  // namespace

std::vector<Prompt> read_prompts(const pb::ScoreRequest& request) {
  switch (request.prompts_case()) {
    case pb::ScoreRequest::kText:
      return read_text(request.text());
    case pb::ScoreRequest::kSoft:
      return read_soft(request.soft());
    case pb::ScoreRequest::kLatent:
      return read_latent(request.latent());
    case pb::ScoreRequest::PROMPTS_NOT_SET:
      throw invalid("InvalidRequest", "no prompts", "prompts", "text, soft or latent");
    default:
      throw unsupported("another kind of prompts", "prompts", "text, soft or latent");
  }
}
