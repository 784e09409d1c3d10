#include "examples.h"

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <map>
#include <sstream>

#include "channels.h"
#include "error.h"

namespace {

// Every fourth example of each class measures prompts, unless there is a file of dev examples.
constexpr size_t kDevStride = 4;

std::string field(const google::protobuf::Struct& row, const std::string& name, const std::string& where) {
  auto found = row.fields().find(name);
  if (found == row.fields().end())
    throw Error("InvalidData", "no column '" + name + "'", where, "--text-column and --label-column name others");
  if (found->second.kind_case() != google::protobuf::Value::kStringValue)
    throw Error("InvalidData", "'" + name + "' is no text", where, "a text in quotes");
  return found->second.string_value();
}

}  // namespace

Table read_table(const std::string& path, const Columns& columns) {
  Table table{path, {}, {}};
  std::istringstream lines(contents(path, "data file"));
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    std::string where = path + ": line " + std::to_string(number);
    google::protobuf::Struct row;
    if (!google::protobuf::util::JsonStringToMessage(line, &row).ok())
      throw Error("InvalidData", "is no JSON object", where, R"({"text": ..., "label": ...})");
    fedbbpt::ptm::v1::Example example;
    example.set_text(field(row, columns.text, where));
    if (example.text().find_first_not_of(" \t\r\n") == std::string::npos)
      throw Error("InvalidData", "the text is blank", where, "a text");
    if (row.fields().count(columns.pair)) example.set_text_pair(field(row, columns.pair, where));
    table.examples.push_back(example);
    table.labels.push_back(field(row, columns.label, where));
  }
  if (table.labels.empty()) throw Error("InvalidData", "no examples", path, "at least one");
  return table;
}

Labelled labelled(const Table& table, const std::vector<std::string>& names) {
  Labelled found{table.examples, {}};
  for (size_t i = 0; i < table.labels.size(); ++i) {
    auto place = std::find(names.begin(), names.end(), table.labels[i]);
    if (place == names.end()) {
      std::string known;
      for (const auto& name : names) known += (known.empty() ? "" : ", ") + name;
      throw Error("InvalidData", "the label '" + printable(table.labels[i]) + "'",
                  table.source + ": example " + std::to_string(i + 1), "one of the run's: " + printable(known));
    }
    found.labels.push_back(static_cast<int>(place - names.begin()));
  }
  return found;
}

Rows hold_out(const Table& table) {
  std::map<std::string, size_t> seen;
  Rows rows;
  for (size_t i = 0; i < table.labels.size(); ++i)
    (seen[table.labels[i]]++ % kDevStride == kDevStride - 1 ? rows.dev : rows.train).push_back(i);
  if (rows.dev.empty())
    throw Error("InvalidData", std::to_string(table.labels.size()) + " examples are too few to hold some out",
                table.source, "more examples, or --dev FILE");
  return rows;
}

Labelled Labelled::take(const std::vector<size_t>& rows) const {
  Labelled found;
  for (size_t row : rows) {
    found.examples.push_back(examples[row]);
    found.labels.push_back(labels[row]);
  }
  return found;
}
