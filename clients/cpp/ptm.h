// The PTM service, as a client uses it: retries, handles that the service may forget, and the pin of the revision.
#pragma once

#include <string>

#include "channels.h"
#include "fedbbpt/ptm/v1/ptm.grpc.pb.h"

namespace pb = fedbbpt::ptm::v1;

// Examples that the service keeps.
struct Handle {
  std::string id;
  pb::ExampleSet examples;
};

// A PTM service that knows one task.
class Ptm {
 public:
  // Reads the service's card. `revision` is the one that it must have; empty accepts the current one, and no other
  // afterwards.
  Ptm(Access access, std::string revision, pb::Task task);

  Handle register_examples(pb::ExampleSet examples);
  void release(const Handle& handle);
  // Scores the prompts of a request. Examples that the service has forgotten go along with the call.
  pb::ScoreResponse score(Handle& handle, pb::ScoreRequest request);
  const pb::DescribeResponse& card() const { return card_; }

 private:
  template <typename Method, typename Request, typename Response>
  void call(Method method, const Request& request, Response& response);
  void describe();
  void check_revision(const std::string& revision) const;
  void register_task();

  Connection connection_;
  std::string revision_, task_id_;
  pb::Task task_;
  pb::DescribeResponse card_;
};

// Returns random digits, for keys.
std::string random_hex(int bytes);
