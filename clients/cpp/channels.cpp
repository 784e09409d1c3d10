#include "channels.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <random>
#include <regex>
#include <sstream>
#include <thread>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace {

constexpr double kFirstPause = 0.1, kLongestPause = 5.0;
int least_level = 1;

int level_number(const std::string& level) {
  return level == "debug" ? 0 : level == "info" ? 1 : level == "warning" ? 2 : 3;
}

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::shared_ptr<grpc::ChannelCredentials> credentials(const Access& access, bool secure) {
  if (!secure) return grpc::InsecureChannelCredentials();
  if (access.client_cert.empty() != access.client_key.empty())
    throw Error("InvalidInput", "a certificate and its key belong together", access.option,
                "--client-cert and --client-key");
  grpc::SslCredentialsOptions files;
  if (!access.tls_ca.empty()) files.pem_root_certs = contents(access.tls_ca, "authority's certificate");
  if (!access.client_cert.empty()) {
    files.pem_cert_chain = contents(access.client_cert, "certificate");
    files.pem_private_key = contents(access.client_key, "private key");
  }
  return grpc::SslCredentials(files);
}

Error without_reason(const grpc::Status& status, const std::string& unavailable) {
  std::string text = printable(status.error_message());
  switch (status.error_code()) {
    case grpc::DEADLINE_EXCEEDED: return Error("DeadlineExceeded", "no answer in time");
    case grpc::UNAUTHENTICATED: case grpc::PERMISSION_DENIED: return Error("Unauthenticated", text);
    case grpc::UNIMPLEMENTED:
      return Error("WrongService", "the service that answers does not have this call (" + text + ")", "",
                   "the right one of the addresses of coordinator and PTM service, or one version on both sides");
    case grpc::RESOURCE_EXHAUSTED:
      if (text.find("larger than max") == std::string::npos) return Error("Overloaded", text);
      return Error("MessageTooLarge", text, "", "fewer or shorter examples, or fewer prompts, in one call");
    case grpc::DATA_LOSS: return Error("ChecksumMismatch", text);
    default: return Error(unavailable, text.empty() ? "the call failed" : text);
  }
}

}  // namespace

void set_log_level(const std::string& level) { least_level = level_number(level); }

void log_line(const std::string& level, const std::string& text) {
  if (level_number(level) >= least_level) std::cerr << level << " " << text << std::endl;
}

std::string printable(const std::string& text) {
  std::string found;
  for (unsigned char c : text) {
    char escaped[8];
    std::snprintf(escaped, sizeof escaped, "\\x%02x", c);
    found += c < 32 || c == 127 ? std::string(escaped) : std::string(1, static_cast<char>(c));
  }
  return found;
}

std::string contents(const std::string& path, const std::string& what) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf()))
    throw Error("InvalidInput", "the " + what + " cannot be read", path, "a file that this user can read");
  return text.str();
}

std::vector<std::string> addresses_of(const std::string& list, const std::string& option) {
  static const std::regex form(R"((\[[0-9a-fA-F:]+\]|[^\s:\[\]/]+):(\d{1,5}))");
  std::vector<std::string> found;
  std::istringstream parts(list);
  for (std::string each; std::getline(parts, each, ',');) {
    std::smatch match;
    each = std::regex_replace(each, std::regex("^ +| +$"), "");
    bool fits = std::regex_match(each, match, form) && std::stoi(match[2]) > 0 && std::stoi(match[2]) < 65536;
    if (!fits) throw Error("InvalidInput", "'" + printable(each) + "' is no address", option, "HOST:PORT");
    found.push_back(each);
  }
  if (found.empty()) throw Error("InvalidInput", "no address", option, "HOST:PORT");
  return found;
}

bool is_loopback(const std::string& address) {
  static const std::regex form(R"((localhost|\[::1\]|127(\.\d{1,3}){3}):\d+)");
  return std::regex_match(address, form);
}

Error from_status(const grpc::Status& status, const std::string& unavailable) {
  google::rpc::Status details;
  google::rpc::ErrorInfo info;
  google::rpc::RetryInfo retry;
  double seconds = 0;
  Error problem = without_reason(status, unavailable);
  if (details.ParseFromString(status.error_details()))
    for (const auto& detail : details.details()) {
      if (detail.UnpackTo(&info) && info.domain() == "fedbbpt")
        problem = Error(printable(info.reason()), printable(status.error_message()),
                        printable(info.metadata().count("where") ? info.metadata().at("where") : ""),
                        printable(info.metadata().count("fix") ? info.metadata().at("fix") : ""));
      if (detail.UnpackTo(&retry)) seconds = double(retry.retry_delay().seconds()) + retry.retry_delay().nanos() / 1e9;
    }
  problem.retry_seconds = seconds;
  return problem;
}

Connection::Connection(Access access, std::string unavailable, double patience_seconds)
    : access_(std::move(access)), unavailable_(std::move(unavailable)), patience_seconds_(patience_seconds) {
  bool secure = !access_.tls_ca.empty() || !access_.client_cert.empty();
  if (!access_.token_file.empty()) {
    std::istringstream text(contents(access_.token_file, "token file"));
    text >> token_;
  }
  for (const auto& address : addresses_of(access_.address, access_.option)) {
    if (!secure && !is_loopback(address))
      throw Error("InsecureAddress", address + " is another machine, and there is no TLS", access_.option,
                  (access_.option == "--ptm" ? "--ptm-tls-ca" : "--tls-ca") +
                      std::string(" FILE, the authority of its certificate"));
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(1 << 30);
    arguments.SetInt("grpc.initial_reconnect_backoff_ms", 100);
    arguments.SetInt("grpc.max_reconnect_backoff_ms", 2000);
    // A proxy in the environment could not reach this machine.
    arguments.SetInt("grpc.enable_http_proxy", is_loopback(address) ? 0 : 1);
    channels_.push_back(grpc::CreateCustomChannel(address, credentials(access_, secure), arguments));
  }
}

std::unique_ptr<grpc::ClientContext> Connection::context(double seconds) const {
  auto found = std::make_unique<grpc::ClientContext>();
  if (!token_.empty()) found->AddMetadata("authorization", "Bearer " + token_);
  if (seconds > 0)
    found->set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(int64_t(1000 * seconds)));
  return found;
}

void Connection::check(const grpc::Status& status) const {
  if (!status.ok()) throw from_status(status, unavailable_);
}

void Connection::patiently(const std::function<void()>& attempt) {
  static std::mt19937 jitter{std::random_device{}()};
  double deadline = 0, longest = kFirstPause;
  for (;;) {
    try {
      return attempt();
    } catch (const Error& error) {
      bool again = error.retryable() || (error.is({"DeadlineExceeded"}) && unavailable_ == "CoordinatorUnavailable");
      if (!again) throw;
      double now = now_seconds();
      if (deadline == 0) {
        deadline = now + patience_seconds_;
        log_line("warning", access_.address + ": " + error.what() + "; trying again");
      }
      if (now + error.retry_seconds >= deadline) throw;
      next();
      double pause = error.retry_seconds + std::uniform_real_distribution<>(0, longest)(jitter);
      std::this_thread::sleep_for(std::chrono::duration<double>(pause));
      longest = std::min(2 * longest, kLongestPause);
    }
  }
}
