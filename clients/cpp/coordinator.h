// A client's link to the coordinator: it joins, keeps one stream of tasks open, and submits updates.
#pragma once

#include <deque>
#include <memory>
#include <optional>

#include "channels.h"
#include "fedbbpt/v1/coordinator.grpc.pb.h"
#include "methods.h"
#include "replay.h"

class TaskStream;

class Coordinator {
 public:
  Coordinator(Access access, fedbbpt::v1::JoinRequest hello);
  ~Coordinator();

  // Enters the run, or enters it again.
  const fedbbpt::v1::JoinResponse& join();
  // Tells the coordinator which PTM the client asks, now and after each Join. Does not fail.
  void report_ptm(const fedbbpt::v1::ReportPtmRequest& identity);
  // Tells the coordinator what keeps the client from its work. Does not fail.
  void report_trouble(const Error& error);
  // Leaves the run for good. Does not fail.
  void leave();
  // Returns the next task, or nothing if the run has ended. Joins again if the stream was lost.
  std::optional<Task> next_task();
  // Sends an update, with all bytes of its arrays, until there is a receipt.
  fedbbpt::v1::Receipt submit(const fedbbpt::v1::UpdateHeader& update);

  // The search that the client follows, if it replays.
  std::unique_ptr<HeldSearch> held;

 private:
  void join_again(const std::string& session);
  template <typename Method, typename Request, typename Response>
  void tell(Method method, const Request& request, Response response);
  // Reads one response of the stream. Returns its receipt, or RECEIPT_UNSPECIFIED.
  fedbbpt::v1::Receipt receive();
  TaskStream& opened();
  void close_stream();
  fedbbpt::v1::Receipt exchange(const fedbbpt::v1::UpdateHeader& update);
  fedbbpt::v1::Receipt stream_update(fedbbpt::v1::UpdateHeader update);

  Connection connection_;
  fedbbpt::v1::JoinRequest hello_;
  fedbbpt::v1::JoinResponse run_;
  std::optional<fedbbpt::v1::ReportPtmRequest> identity_;
  std::unique_ptr<TaskStream> stream_;
  std::string session_of_stream_;
  std::deque<Task> arrived_;
  fedbbpt::v1::TaskHeader header_;       // of the task whose chunks are still to come
  std::optional<Assembler> incomplete_;  // its arrays
  bool finished_ = false;
};
