// fedbbpt-client: one client of one run, from its files to the end of the run.

#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <iostream>
#include <regex>

#include "agent.h"
#include "options.h"

using namespace fedbbpt::v1;

namespace {

constexpr const char* kVersion = "0.1.0";

Access access_of(const Options& options, const std::string& prefix, std::string address, std::string option) {
  return {std::move(address),
          std::move(option),
          options.get(prefix + "tls-ca"),
          options.get(prefix + "client-cert"),
          options.get(prefix + "client-key"),
          options.get(prefix + "token-file")};
}

Access ptm_access(const Options& options, const std::string& announced) {
  std::string address = options.get("ptm", announced);
  if (address.empty())
    throw Error("InvalidInput", "neither the coordinator nor this client knows the address of the PTM", "--ptm",
                "--ptm HOST:PORT");
  bool local = true;
  for (const auto& list : {address, options.get("coordinator")})
    for (const auto& each : addresses_of(list, "--ptm")) local = local && is_loopback(each);
  if (!options.has("ptm") && !options.has("accept-ptm") && !local)
    throw Error("PtmNotAccepted", "the coordinator wants this client's inputs at " + printable(announced), "--ptm",
                "--ptm with this address if you know the service, or --accept-ptm for any that the coordinator names");
  return access_of(options, "ptm-", address, "--ptm");
}

// Throws PluginMissing for a run that needs what this client does not have.
void check_supported(const JoinResponse& run) {
  const char* fix = "the client of the Python package";
  if (run.has_secure()) throw Error("PluginMissing", "this client has no secure aggregation", "privacy", fix);
  if (run.clip_norm() > 0) throw Error("PluginMissing", "this client clips no examples", "privacy", fix);
}

std::vector<Link> links_of(const google::protobuf::RepeatedField<int>& numbers) {
  std::vector<Link> found;
  for (int number : numbers) found.push_back(static_cast<Link>(number));
  return found;
}

std::unique_ptr<HeldSearch> held_search(const JoinResponse& run) {
  std::vector<Link> links = links_of(run.down_codec());
  std::string point = point_of(run);
  bool coded = !links.empty() && links != std::vector<Link>{CODEC_FLOAT32};
  const auto& settings = run.method().fed_cma();
  if (run.task().views_size()) return nullptr;
  if (coded && !point.empty())
    return std::make_unique<HeldSearch>(coded_steps(point, CodecChain(links, run.kept(), point)));
  if (coded || !settings.expansion_sent()) return nullptr;
  return std::make_unique<HeldSearch>(
      newton_steps(size_t(settings.population()), size_t(run.task().latent().offsets())));
}

// A client's files.
struct Own {
  Keepsake keepsake;
  Table table;
  std::optional<Table> dev_table;
  std::optional<Rows> rows;
  std::string name;
};

Own own_files(const Options& options) {
  std::string stem = std::filesystem::path(options.get("data")).stem();
  stem = std::regex_replace(stem, std::regex("[^A-Za-z0-9._@-]"), "-");
  stem = std::regex_replace(stem, std::regex("^[^A-Za-z0-9]+"), "");
  if (stem.empty()) stem = "client";
  Columns columns{options.get("text-column", "text"), options.get("pair-column", "text_pair"),
                  options.get("label-column", "label")};
  Own own{Keepsake(options.get("state", ".fedbbpt/" + options.get("name", stem))),
          read_table(options.get("data"), columns), {}, {}, options.get("name")};
  if (options.has("dev")) own.dev_table = read_table(options.get("dev"), columns);
  else own.rows = hold_out(own.table);
  if (own.name.empty()) own.name = own.keepsake.client_name(stem);
  return own;
}

std::string answer_tasks(const JoinResponse& run, Coordinator& coordinator, const Options& options, Own& own) {
  check_supported(run);
  ClientHalf half = client_half(run);
  Space space(run.task());
  std::vector<std::string> labels(run.task().labels().begin(), run.task().labels().end());
  Labelled whole = labelled(own.table, labels);
  Labelled train = own.rows ? whole.take(own.rows->train) : whole;
  Labelled dev = own.rows ? whole.take(own.rows->dev) : labelled(*own.dev_table, labels);
  pb::Task task;
  task.set_template_(run.task().template_());
  for (const auto& text : run.task().classes()) task.add_classes(text);
  for (const auto& text : run.task().columns()) task.add_classes(text);
  Ptm ptm(ptm_access(options, run.ptm_address()), run.ptm_revision(), task);
  ReportPtmRequest identity;
  identity.set_model(ptm.card().model());
  identity.set_revision(ptm.card().revision());
  identity.set_precision(ptm.card().precision());
  coordinator.report_ptm(identity);
  Scorer scorer(ptm, run.task(), options.has("send-labels-to-ptm"));
  if (needs_scores(run)) scorer.require_scores("the method");
  Objectives objectives(scorer, train, dev, run.sampling());
  objectives.train.batch(0);  // shows unsuitable examples before the first round
  objectives.dev.batch(0);
  coordinator.held = held_search(run);
  log_line("info", "joined " + printable(run.run_id()) + " as " + own.name);
  CodecChain codec(links_of(run.codec()), run.kept(), point_of(run));
  int updates = Agent(half, objectives, codec, own.keepsake, run).run(coordinator);
  std::string numbers = std::to_string(updates) + (options.has("json") ? R"(, "queries": )" : " updates, ");
  numbers += std::to_string(scorer.queries);
  if (!options.has("json")) return "finished " + printable(run.run_id()) + ": " + numbers + " queries\n";
  return R"({"run": ")" + run.run_id() + R"(", "client": ")" + own.name + R"(", "updates": )" + numbers + "}\n";
}

int take_part(const Options& options) {
  set_log_level(options.get("log-level", "info"));
  Own own = own_files(options);
  JoinRequest hello;
  hello.set_protocol_version(1);
  hello.set_client_id(own.name);
  hello.set_client_key(own.keepsake.client_key());
  for (Link link : known_links()) hello.add_codecs(link);
  hello.set_examples(int64_t(own.rows ? own.rows->train.size() : own.table.labels.size()));
  hello.set_run(options.get("run"));
  Coordinator coordinator(access_of(options, "", options.get("coordinator"), "--coordinator"), hello);
  JoinResponse run = coordinator.join();
  try {
    std::cout << answer_tasks(run, coordinator, options, own);
    return 0;
  } catch (const Error& error) {
    // The coordinator learns why this client stops, if it can do nothing about it in this run.
    if (error.is({"PluginMissing", "UnsupportedPrompt"})) coordinator.leave();
    else if (!error.is({"SessionEvicted", "SessionUnknown", "UnknownRun", "CoordinatorUnavailable", "InvalidUpdate"}))
      coordinator.report_trouble(error);
    throw;
  }
}

int run(int argc, char** argv) {
  try {
    Options options(argc, argv);
    if (options.has("help")) std::cout << kHelp;
    else if (options.has("version")) std::cout << "fedbbpt-client " << kVersion << "\n";
    else return take_part(options);
    return 0;
  } catch (const UsageError& error) {
    std::cerr << error.what() << "\n  hint: fedbbpt-client --help\n";
    return 2;
  } catch (const Error& error) {
    std::cerr << error.reason << ": " << error.what() << "\n";
    if (!error.fix.empty()) std::cerr << "  hint: " << error.fix << "\n";
    return error.exit_code();
  } catch (const std::exception& error) {
    std::cerr << "please report this bug: " << error.what() << "\n";
    return 1;
  }
}

}  // namespace

int main(int argc, char** argv) {
  for (int number : {SIGINT, SIGTERM}) std::signal(number, [](int caught) { _exit(128 + caught); });
  return run(argc, argv);
}
