// Connections: addresses, TLS, tokens, errors of calls, and retries.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "error.h"

// How to reach a service and how to show who is calling.
struct Access {
  std::string address;  // HOST:PORT, or several with commas between them
  std::string option;   // the option that holds the address, for messages
  std::string tls_ca, client_cert, client_key, token_file;
};

// Returns the addresses in a list. Throws InvalidInput for one that is none.
std::vector<std::string> addresses_of(const std::string& list, const std::string& option);
bool is_loopback(const std::string& address);
// Returns the error that a service raised; `unavailable` is the reason for statuses that no fedbbpt service sent.
Error from_status(const grpc::Status& status, const std::string& unavailable);
// Returns a text of another process without control characters, so that it cannot write over a terminal.
std::string printable(const std::string& text);
// Returns a file's bytes. Throws InvalidInput.
std::string contents(const std::string& path, const std::string& what);

void log_line(const std::string& level, const std::string& text);
// Sets the least severe lines that are written: debug, info, warning or error.
void set_log_level(const std::string& level);

// The servers of one service. Calls go to one of them, and to the next one after a failure.
class Connection {
 public:
  Connection(Access access, std::string unavailable, double patience_seconds);

  std::shared_ptr<grpc::Channel> channel() const { return channels_[current_]; }
  void next() { current_ = (current_ + 1) % channels_.size(); }
  // Returns the context of a call with a deadline; 0 seconds: without one.
  std::unique_ptr<grpc::ClientContext> context(double seconds) const;
  // Throws the error of a status that is not OK.
  void check(const grpc::Status& status) const;
  // Calls `attempt` until it does not throw, or throws what waiting does not mend.
  void patiently(const std::function<void()>& attempt);

 private:
  Access access_;
  std::string unavailable_, token_;
  double patience_seconds_;
  std::vector<std::shared_ptr<grpc::Channel>> channels_;
  size_t current_ = 0;
};
