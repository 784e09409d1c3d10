// The spaces that a run searches: how z becomes prompts, and what of it changes the scores of the classes.
#pragma once

#include <string>
#include <vector>

#include "draws.h"
#include "fedbbpt/ptm/v1/ptm.pb.h"
#include "fedbbpt/v1/method.pb.h"

constexpr double kOffsetScale = 0.25;  // the change of a score per unit of an offset's entry of z

// The space of the entries of z that make a prompt and offsets, and of the readout after them.
class Space {
 public:
  // Throws UnsupportedPrompt for a space that this client does not have.
  explicit Space(const fedbbpt::v1::TaskSettings& task);

  // Writes the prompts of candidates into a request. Returns false if the space has none.
  bool write(const std::vector<Vector>& candidates, fedbbpt::ptm::v1::ScoreRequest& request) const;
  // Returns whether the readout of z uses the scores under its prompt, its last V columns.
  bool uses_prompt(const Vector& z) const;

  size_t dim = 0;           // the length of z without a readout
  size_t offsets = 0;       // the number of the last of these entries that are offsets
  int tokens = 0;           // the number of tokens that examples leave free
  size_t prompt_bytes = 0;  // the size of one prompt in a message
  std::vector<std::string> views;
  size_t classes = 0;  // K
  size_t texts = 0;    // V, the number of texts that the model scores
  size_t width = 0;    // C, the number of scores that a readout takes
  bool prompted = true;

 private:
  fedbbpt::v1::TaskSettings task_;
};
