// The error of a call: thrown anywhere below the service, and converted to a status in one place.
//
// Messages never quote the caller, because its input may be long and a status must fit into 8 KiB of headers.
#pragma once

#include <grpcpp/support/status.h>

#include <string>

struct Refusal {
  grpc::StatusCode code;
  std::string reason;  // named in ptm.proto
  std::string what;    // what is wrong
  std::string where;   // a field
  std::string fix;     // what would be right
  int retry_seconds = 0;
};

inline Refusal invalid(std::string reason, std::string what, std::string where, std::string fix) {
  return {grpc::INVALID_ARGUMENT, reason, what, where, fix};
}

inline Refusal unsupported(std::string what, std::string where, std::string fix) {
  return {grpc::FAILED_PRECONDITION, "UnsupportedPrompt", what, where, fix};
}

// With google.rpc.Status in the trailer grpc-status-details-bin.
grpc::Status to_status(const Refusal& refusal);
