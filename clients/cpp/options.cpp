#include "options.h"

#include <getopt.h>

#include <set>
#include <vector>

const char* const kHelp =
    R"(Usage: fedbbpt-client --coordinator HOST:PORT --data FILE [options]

Take part in a fedbbpt run with private data. Inputs go to the PTM service; labels stay here.
A client that was killed continues when you give the same command again.

  --coordinator HOST:PORT   the coordinator, or with commas it and its standby
  --data FILE               training examples: JSON lines with text and label
  --dev FILE                examples to measure prompts on; by default a quarter of --data
  --ptm HOST:PORT,...       the PTM service; by default the one that the coordinator names
  --run NAME                the name of the run, if the coordinator has several
  --name ID                 this client's id in the run; by default the data file's name with a random end
  --state DIR               the folder for what outlives a crash; by default .fedbbpt/NAME
  --text-column NAME        the field with the input (text)
  --pair-column NAME        the field with a second input (text_pair), if there is one
  --label-column NAME       the field with the label (label)
  --json                    print the result as one JSON object
  --log-level LEVEL         debug, info, warning, error (info)
  --help, -h                show this message
  --version                 show the version

Security
  --tls-ca FILE             the authority that signed the coordinator's certificate (PEM)
  --client-cert FILE        the certificate to show to the coordinator (PEM)
  --client-key FILE         the private key of --client-cert (PEM)
  --token-file FILE         the token to show to the coordinator
  --ptm-tls-ca FILE         the authority that signed the PTM service's certificate (PEM)
  --ptm-client-cert FILE    the certificate to show to the PTM service (PEM)
  --ptm-client-key FILE     the private key of --ptm-client-cert (PEM)
  --ptm-token-file FILE     the token to show to the PTM service
  --accept-ptm              send the inputs to the PTM service that the coordinator names, wherever it is
  --send-labels-to-ptm      send the labels to a PTM service that returns losses only

Exit codes: 0 success, 1 a bug, 2 a wrong command line, 3 bad input, 4 a service is down,
5 not authenticated or not safe, 6 the state folder, 8 any other expected failure.
)";

namespace {

const std::vector<const char*> kTexts = {
    "coordinator", "data", "dev", "ptm", "run", "name", "state", "text-column", "pair-column", "label-column",
    "log-level", "tls-ca", "client-cert", "client-key", "token-file", "ptm-tls-ca", "ptm-client-cert",
    "ptm-client-key", "ptm-token-file"};
const std::vector<const char*> kFlags = {"json", "accept-ptm", "send-labels-to-ptm", "help", "version"};

}  // namespace

Options::Options(int argc, char** argv) {
  std::vector<option> known;
  for (const char* name : kTexts) known.push_back({name, required_argument, nullptr, 0});
  for (const char* name : kFlags) known.push_back({name, no_argument, nullptr, 0});
  known.push_back({});
  opterr = 0;
  for (int index = 0, found; (found = getopt_long(argc, argv, ":h", known.data(), &index)) != -1;) {
    if (found == 'h') values_["help"] = "yes";
    else if (found == 0) values_[known[size_t(index)].name] = optarg ? optarg : "yes";
    else throw UsageError(std::string(argv[optind - 1]) + (found == ':' ? " needs a value" : " is no option"));
  }
  if (optind < argc) throw UsageError(std::string(argv[optind]) + " is no option");
  if (has("help") || has("version")) return;
  for (const char* name : {"coordinator", "data"})
    if (!has(name)) throw UsageError("--" + std::string(name) + " is missing");
  if (!std::set<std::string>{"debug", "info", "warning", "error"}.count(get("log-level", "info")))
    throw UsageError("--log-level " + get("log-level") + ": one of debug, info, warning, error");
}

std::string Options::get(const std::string& name, const std::string& otherwise) const {
  auto found = values_.find(name);
  return found == values_.end() ? otherwise : found->second;
}
