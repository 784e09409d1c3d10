// The command line.
#pragma once

#include <map>
#include <stdexcept>
#include <string>

extern const char* const kHelp;

// A command line that cannot be understood.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The values of the options by their names without dashes; flags that are given have the value "yes".
class Options {
 public:
  // Throws UsageError.
  Options(int argc, char** argv);
  std::string get(const std::string& name, const std::string& otherwise = "") const;
  bool has(const std::string& name) const { return values_.count(name) > 0; }

 private:
  std::map<std::string, std::string> values_;
};
