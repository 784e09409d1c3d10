// Reads prompts from messages of prompt.proto and checks them. Throws a Refusal for prompts that the model cannot take.
#pragma once

#include <vector>

#include "fedbbpt/ptm/v1/ptm.pb.h"
#include "model.h"

namespace pb = fedbbpt::ptm::v1;
namespace prompt_pb = fedbbpt::v1;

constexpr int kMaxPrompts = 256;
constexpr double kMaxLatent = 1e4;
constexpr double kMaxVectorNorm = 1e4;

struct Prompt {
  Vector m;  // the sum of its vectors over sqrt(L), the only part that the model uses
  int tokens;
};

// Throws InvalidRequest, InvalidTensor, UnsupportedPrompt, PromptTooLong.
std::vector<Prompt> read_prompts(const pb::ScoreRequest& request);
