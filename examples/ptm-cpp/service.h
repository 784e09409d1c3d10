// PtmService over the linear model: one call at a time, and one tenant, because callers are not authenticated.
#pragma once

#include <grpcpp/server_context.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <string>

#include "fedbbpt/ptm/v1/ptm.grpc.pb.h"
#include "inputs.h"
#include "memory.h"

constexpr int kMaxMessageBytes = 4 << 20;

struct Usage {
  long queries = 0, tokens = 0;
  std::chrono::nanoseconds compute_time{}, queue_time{};

  Usage& operator+=(const Usage& other);
  void write(pb::Usage& message) const;
};

class LinearPtm final : public pb::PtmService::Service {
 public:
  grpc::Status Describe(grpc::ServerContext*, const pb::DescribeRequest*, pb::DescribeResponse*) override;
  grpc::Status RegisterTask(grpc::ServerContext*, const pb::RegisterTaskRequest*, pb::RegisterTaskResponse*) override;
  grpc::Status RegisterExamples(grpc::ServerContext*, const pb::RegisterExamplesRequest*,
                                pb::RegisterExamplesResponse*) override;
  grpc::Status Score(grpc::ServerContext*, const pb::ScoreRequest*, pb::ScoreResponse*) override;
  grpc::Status Release(grpc::ServerContext*, const pb::ReleaseRequest*, pb::ReleaseResponse*) override;
  grpc::Status GetUsage(grpc::ServerContext*, const pb::GetUsageRequest*, pb::GetUsageResponse*) override;

 private:
  struct KeptTask {
    Task task;
    Usage usage;
  };
  struct KeptExamples {
    Examples examples;
    int registrations = 1;
  };
  struct Answer {
    std::string request;  // a digest
    pb::ScoreResponse response;
  };

  // Waits for its turn. While it exists, no other call computes or changes the caches.
  class Turn {
   public:
    explicit Turn(LinearPtm& service);
    ~Turn();

   private:
    LinearPtm& service_;
  };

  std::string keep_task(const pb::Task& message);
  // Returns the handle, and whether the examples were already registered.
  std::pair<std::string, bool> keep_examples(const std::string& task_id, const pb::ExampleSet& message);
  void score(const grpc::ServerContext& context, const pb::ScoreRequest& request, pb::ScoreResponse& response,
             Usage& usage);

  const std::string revision_ = revision();
  std::atomic<int> waiting_ = 0;
  std::mutex turn_;
  Memory<KeptTask> tasks_{256, 256, std::chrono::hours(1)};              // each weighs 1
  Memory<KeptExamples> examples_{1000, 200'000, std::chrono::hours(1)};  // weight: rows
  Memory<Answer> answers_{1000, 64 << 20, std::chrono::minutes(10)};     // weight: bytes
  Usage usage_;
};
