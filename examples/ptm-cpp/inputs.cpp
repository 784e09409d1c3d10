#include "inputs.h"

#include <algorithm>
#include <set>

#include "refusal.h"

namespace {

constexpr int kMaxClasses = 256;
constexpr std::size_t kMaxTaskBytes = 20'000;

struct Template {
  std::string literal;
  std::set<std::string> places;
};

Refusal invalid_template(std::string what, std::string fix = "for example \"{prompt} {text}\"") {
  return invalid("InvalidTask", what, "template", fix);
}

Template parse(const std::string& text) {
  static const std::set<std::string> known = {"prompt", "text", "text_pair", "mask"};
  Template parsed;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool twice = i + 1 < text.size() && text[i + 1] == text[i];
    if ((text[i] != '{' && text[i] != '}') || twice) {
      parsed.literal += text[i];
      i += text[i] == '{' || text[i] == '}';
      continue;
    }
    const std::size_t end = text.find('}', i + 1);
    if (text[i] == '}' || end == std::string::npos) throw invalid_template("a brace alone", "{{ or }} for one");
    const std::string place = text.substr(i + 1, end - i - 1);
    if (!known.contains(place)) throw invalid_template("an unknown place", "{prompt} {text} {text_pair}");
    if (!parsed.places.insert(place).second) throw invalid_template("a place twice");
    parsed.literal += ' ';
    i = end;
  }
  if (!parsed.places.contains("text")) throw invalid_template("no {text}");
  if (parsed.places.contains("mask")) throw invalid_template("{mask}, but the model fills no masks");
  return parsed;
}

std::string at(int row) { return "examples[" + std::to_string(row) + "]"; }

Refusal invalid_example(std::string what, std::string where, std::string fix) {
  return invalid("InvalidExamples", what, where, fix);
}

Tokens words(const std::string& text, const std::string& where) {
  Tokens tokens = tokenize(text);
  if (tokens.empty()) throw invalid_example("an empty text", where, "leave the example out");
  return tokens;
}

Row read_example(const Task& task, const pb::ExampleSet& set, int index) {
  const pb::Example& example = set.examples(index);
  if (example.has_label()) throw invalid_example("a label", at(index) + ".label", "none; labels stay with the caller");
  if (example.has_image()) throw invalid_example("an image", at(index) + ".image", "a text, which this model takes");
  if (example.has_text_pair() != task.pairs) {
    const std::string where = at(index) + ".text_pair";
    if (task.pairs) throw invalid_example("no second text", where, "one; the template has a {text_pair}");
    throw invalid_example("a second text", where, "none; the template has no {text_pair}");
  }
  Tokens tokens = words(example.text(), at(index) + ".text");
  const Tokens pair = task.pairs ? words(example.text_pair(), at(index) + ".text_pair") : Tokens{};
  const long room = long{kMaxTokens} - set.prompt_tokens() - long(task.literal.size()) - long(pair.size());
  if (room < 1) throw invalid("PromptTooLong", "no room for the text", at(index), "fewer prompt tokens, or less text");
  tokens.resize(std::min<std::size_t>(tokens.size(), room));
  tokens.insert(tokens.end(), pair.begin(), pair.end());
  if (set.has_perturbation()) {
    const std::uint64_t seed = set.perturbation().seed() ^ (std::uint64_t(index) << 32);
    perturb(tokens, set.perturbation().rate(), seed);
  }
  tokens.insert(tokens.end(), task.literal.begin(), task.literal.end());
  return {bag(tokens), static_cast<int>(tokens.size())};
}

}  // namespace

long Examples::tokens() const {
  long sum = 0;
  for (const Row& row : rows) sum += row.tokens;
  return sum;
}

int Examples::longest() const {
  int most = 0;
  for (const Row& row : rows) most = std::max(most, row.tokens);
  return most;
}

Task read_task(const pb::Task& message) {
  if (message.ByteSizeLong() > kMaxTaskBytes)
    throw invalid("InvalidTask", "a large task", "classes", std::to_string(kMaxTaskBytes) + " bytes at most");
  const Template parsed = parse(message.template_());
  const std::set<std::string> different(message.classes().begin(), message.classes().end());
  const int count = message.classes_size();
  if (count < 2 || count > kMaxClasses || different.size() < std::size_t(count)) {
    const std::string what = std::to_string(different.size()) + " different classes of " + std::to_string(count);
    throw invalid("InvalidTask", what, "classes", "2 to " + std::to_string(kMaxClasses) + " different texts");
  }
  Task task{tokenize(parsed.literal), parsed.places.contains("text_pair"), {}};
  for (const std::string& text : message.classes()) {
    const Tokens tokens = tokenize(text);
    if (tokens.empty()) throw invalid("InvalidTask", "an empty class", "classes", "a text for each class");
    task.classes.push_back(bag(tokens));
  }
  return task;
}

std::vector<Row> read_examples(const Task& task, const pb::ExampleSet& message) {
  if (message.examples_size() < 1 || message.examples_size() > kMaxExamples) {
    const std::string what = std::to_string(message.examples_size()) + " examples";
    throw invalid_example(what, "examples", "1 to " + std::to_string(kMaxExamples));
  }
  if (message.prompt_tokens() < 0) throw invalid_example("a negative number", "prompt_tokens", "0 or more");
  const double rate = message.perturbation().rate();
  if (!(rate >= 0 && rate <= 1)) throw invalid_example("no fraction", "perturbation.rate", "0 to 1");
  std::vector<Row> rows;
  for (int index = 0; index < message.examples_size(); ++index) rows.push_back(read_example(task, message, index));
  return rows;
}
