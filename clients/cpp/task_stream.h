// A client's side of an open TakePart: it sends updates and heartbeats, and reads receipts and tasks.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "channels.h"
#include "fedbbpt/v1/coordinator.grpc.pb.h"

// One call of TakePart. A thread of its own sends a heartbeat in each interval, also while nobody reads, and cancels
// the call after a long silence, or when the receipt of an update is overdue.
class TaskStream {
 public:
  TaskStream(const Connection& connection, const fedbbpt::v1::Opening& opening, double heartbeat_seconds);
  ~TaskStream();

  // Sends an update, whose receipt must come within some seconds: a connection can be lost in one direction alone.
  void submit(const fedbbpt::v1::UpdateHeader& update, double seconds);
  // Waits for the next response. Throws the stream's error at its end.
  fedbbpt::v1::TakePartResponse read();

 private:
  using Clock = std::chrono::steady_clock;

  void write(const fedbbpt::v1::TakePartRequest& request);
  void watch();

  const Connection& connection_;
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<fedbbpt::v1::CoordinatorService::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<fedbbpt::v1::TakePartRequest, fedbbpt::v1::TakePartResponse>> call_;
  Clock::duration interval_;
  std::mutex writing_, state_;
  std::condition_variable over_;
  bool ended_ = false, reading_ = false, finished_ = false;
  Clock::time_point since_, due_ = Clock::time_point::max();  // the begin of a read, and when a receipt is overdue
  std::string why_;  // why the thread cancelled the call
  std::thread watcher_;
};
