// Why a call fails: thrown anywhere below the service, and turned into a status in one place.
//
// Words never quote the caller: what it sent may be long, and a status travels in 8 KiB of headers.
#pragma once

#include <grpcpp/support/status.h>

#include <string>

struct Refusal {
  grpc::StatusCode code;
  std::string reason;  // of ptm.proto
  std::string what;    // was wrong
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
