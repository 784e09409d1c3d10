// Reads tasks and examples from messages of ptm.proto and checks them. Throws a Refusal for those that the model cannot
// take.
#pragma once

#include <string>
#include <vector>

#include "fedbbpt/ptm/v1/ptm.pb.h"
#include "model.h"

namespace pb = fedbbpt::ptm::v1;

constexpr int kMaxExamples = 1000;

struct Task {
  Tokens literal;  // the template's own words
  bool pairs;      // whether it has a {text_pair}
  std::vector<Vector> classes;
};

struct Row {
  Vector text;
  int tokens;
};

struct Examples {
  std::string task_id;
  std::vector<Row> rows;

  long tokens() const;
  int longest() const;
};

// Throws InvalidTask.
Task read_task(const pb::Task& message);

// Truncates texts that leave no room for the prompt. Throws InvalidExamples, PromptTooLong.
std::vector<Row> read_examples(const Task& task, const pb::ExampleSet& message);
