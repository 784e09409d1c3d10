// A client's private examples, from files of JSON lines with text and label.
#pragma once

#include <string>
#include <vector>

#include "fedbbpt/ptm/v1/ptm.pb.h"

struct Columns {
  std::string text = "text", pair = "text_pair", label = "label";
};

// Examples with the names of their classes.
struct Table {
  std::string source;
  std::vector<fedbbpt::ptm::v1::Example> examples;
  std::vector<std::string> labels;
};

// Examples with the indices of their classes.
struct Labelled {
  std::vector<fedbbpt::ptm::v1::Example> examples;
  std::vector<int> labels;

  Labelled take(const std::vector<size_t>& rows) const;
  size_t size() const { return labels.size(); }
};

// Returns the examples of a file. Throws InvalidData.
Table read_table(const std::string& path, const Columns& columns);
// Returns the examples with the classes as indices. Throws InvalidData for a label that the run does not have.
Labelled labelled(const Table& table, const std::vector<std::string>& names);

struct Rows {
  std::vector<size_t> train, dev;
};
// Returns the rows to train on and the rows to measure prompts on, the same at every start.
Rows hold_out(const Table& table);
