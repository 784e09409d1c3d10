#include "refusal.h"

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

grpc::Status to_status(const Refusal& refusal) {
  google::rpc::Status status;
  status.set_code(refusal.code);
  status.set_message(refusal.what);
  google::rpc::ErrorInfo info;
  info.set_domain("fedbbpt");
  info.set_reason(refusal.reason);
  (*info.mutable_metadata())["where"] = refusal.where;
  (*info.mutable_metadata())["fix"] = refusal.fix;
  status.add_details()->PackFrom(info);
  if (refusal.code == grpc::INVALID_ARGUMENT) {
    google::rpc::BadRequest bad;
    auto* violation = bad.add_field_violations();
    violation->set_field(refusal.where);
    violation->set_description(refusal.what + "; " + refusal.fix);
    status.add_details()->PackFrom(bad);
  }
  if (refusal.retry_seconds > 0) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(refusal.retry_seconds);
    status.add_details()->PackFrom(retry);
  }
  return grpc::Status(refusal.code, refusal.what, status.SerializeAsString());
}
