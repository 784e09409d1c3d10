#include "coordinator.h"

#include <algorithm>

#include "task_stream.h"

using namespace fedbbpt::v1;
using Stub = CoordinatorService::Stub;

namespace {

constexpr double kCallSeconds = 30, kPatienceSeconds = 600;
constexpr double kHeartbeatSeconds = 10;  // if the coordinator names no interval

bool lost_stream(const Error& error) {
  return error.is({"CoordinatorUnavailable", "Unavailable", "StoreReplaced", "SessionUnknown", "ChecksumMismatch"});
}

}  // namespace

Coordinator::Coordinator(Access access, JoinRequest hello)
    : connection_(std::move(access), "CoordinatorUnavailable", kPatienceSeconds), hello_(std::move(hello)) {}

Coordinator::~Coordinator() = default;

const JoinResponse& Coordinator::join() {
  JoinResponse run;
  connection_.patiently([&] {
    auto context = connection_.context(kCallSeconds);
    connection_.check(CoordinatorService::NewStub(connection_.channel())->Join(context.get(), hello_, &run));
  });
  if (!run_.run_id().empty() && run_.run_id() != run.run_id())
    throw Error("UnknownRun", "the coordinator now serves " + printable(run.run_id()), "run_id",
                "start the client again");
  run_ = run;
  hello_.set_run(run.run_name());
  if (identity_) report_ptm(*identity_);
  return run_;
}

void Coordinator::join_again(const std::string& session) {
  if (session == run_.session()) join();
}

template <typename Method, typename Request, typename Response>
void Coordinator::tell(Method method, const Request& request, Response response) {
  auto stub = CoordinatorService::NewStub(connection_.channel());
  auto context = connection_.context(kCallSeconds);
  grpc::Status status = (stub.get()->*method)(context.get(), request, &response);
  if (!status.ok()) log_line("info", "the coordinator was not told: " + printable(status.error_message()));
}

void Coordinator::report_ptm(const ReportPtmRequest& identity) {
  identity_ = identity;
  identity_->set_session(run_.session());
  tell(&Stub::ReportPtm, *identity_, ReportPtmResponse());
}

void Coordinator::report_trouble(const Error& error) {
  ReportTroubleRequest request;
  request.set_session(run_.session());
  request.set_text((error.reason + ": " + error.what()).substr(0, 300));
  tell(&Stub::ReportTrouble, request, ReportTroubleResponse());
}

void Coordinator::leave() {
  close_stream();
  LeaveRequest request;
  request.set_session(run_.session());
  tell(&Stub::Leave, request, LeaveResponse());
}

std::optional<Task> Coordinator::next_task() {
  for (;;) {
    try {
      while (arrived_.empty() && !finished_) receive();
      if (arrived_.empty()) return std::nullopt;
      Task task = std::move(arrived_.front());
      arrived_.pop_front();
      if (task.header.has_replay()) {
        if (!held) throw CannotReplay("a replay for a client that does not replay");
        task.arrays = held->broadcast(task.header.replay(), task.arrays, task.header.seed());
      }
      return task;
    } catch (const CannotReplay& reason) {
      log_line("warning", std::string(reason.what()) + "; it gets each broadcast whole from now on");
      close_stream();
      held = nullptr;
    } catch (const Error& error) {
      std::string session = session_of_stream_;
      close_stream();
      if (error.is({"RunFinished"})) return std::nullopt;
      // The client itself may have replaced the stream's session, by joining again during a submit.
      bool replaced = error.is({"SessionEvicted"}) && session != run_.session();
      if (!replaced && !lost_stream(error)) throw;
      log_line("info", std::string("the stream of tasks ended (") + error.what() + "); joining again");
      connection_.next();
      try {
        join_again(session);
      } catch (const Error& again) {
        if (again.is({"RunFinished"})) return std::nullopt;
        throw;
      }
    }
  }
}

Receipt Coordinator::receive() {
  TakePartResponse response = opened().read();
  if (response.has_finished()) finished_ = true;
  if (response.has_task()) {
    header_ = response.task();
    incomplete_.emplace(header_.arrays(), run_.max_update_bytes());
    header_.clear_arrays();
  }
  if (response.has_chunk()) {
    if (!incomplete_) throw Error("InvalidRequest", "a chunk without a task", "TakePartResponse.chunk");
    incomplete_->add(response.chunk());
  }
  if (incomplete_ && incomplete_->complete()) {
    Task task{header_, incomplete_->arrays()};
    incomplete_.reset();
    arrived_.push_back(std::move(task));
  }
  return response.receipt();
}

TaskStream& Coordinator::opened() {
  if (!stream_) {
    Opening opening;
    opening.set_session(session_of_stream_ = run_.session());
    if (held) {
      opening.set_replays(true);
      opening.set_state(held->after());
    }
    double seconds = double(run_.heartbeat().seconds()) + run_.heartbeat().nanos() / 1e9;
    stream_ = std::make_unique<TaskStream>(connection_, opening, seconds > 0 ? seconds : kHeartbeatSeconds);
  }
  return *stream_;
}

void Coordinator::close_stream() {
  stream_ = nullptr;
  incomplete_.reset();
  arrived_.clear();
}

Receipt Coordinator::submit(const UpdateHeader& update) {
  for (;;) {
    std::string session = run_.session();
    Receipt receipt = RECEIPT_UNSPECIFIED;
    try {
      bool large = update.arrays().data().size() > kChunkBytes;
      connection_.patiently([&] { receipt = large ? stream_update(update) : exchange(update); });
      // A stream that was opened to send the update has repeated its task.
      auto same = [&](const Task& task) {
        return task.header.id().round() == update.id().round() && task.header.id().phase() == update.id().phase();
      };
      arrived_.erase(std::remove_if(arrived_.begin(), arrived_.end(), same), arrived_.end());
      return receipt;
    } catch (const Error& error) {
      if (error.is({"RunFinished", "UnknownRound"})) return RECEIPT_TOO_LATE;
      bool replaced = error.is({"SessionEvicted"}) && session != run_.session();
      if (!replaced && !error.is({"SessionUnknown"})) throw;
    }
    try {
      join_again(session);
    } catch (const Error& again) {
      if (again.is({"RunFinished"})) return RECEIPT_TOO_LATE;
      throw;
    }
  }
}

Receipt Coordinator::exchange(const UpdateHeader& update) {
  try {
    if (!finished_) opened().submit(update, kCallSeconds);
    while (!finished_)
      if (Receipt receipt = receive()) return receipt;
    return RECEIPT_TOO_LATE;
  } catch (const Error&) {
    close_stream();
    throw;
  }
}

Receipt Coordinator::stream_update(UpdateHeader update) {
  auto stub = CoordinatorService::NewStub(connection_.channel());
  auto context = connection_.context(kCallSeconds);
  StreamUpdateResponse response;
  auto call = stub->StreamUpdate(context.get(), &response);
  std::string data = std::move(*update.mutable_arrays()->mutable_data());
  update.mutable_arrays()->clear_data();
  update.set_session(run_.session());
  StreamUpdateRequest request;
  *request.mutable_header() = update;
  bool open = call->Write(request);
  for (size_t offset = 0; open && offset < data.size(); offset += kChunkBytes) {
    auto& chunk = *request.mutable_chunk();
    chunk.set_offset(int64_t(offset));
    chunk.set_data(data.substr(offset, kChunkBytes));
    chunk.set_crc32c(crc32c(chunk.data()));
    open = call->Write(request);
  }
  call->WritesDone();
  connection_.check(call->Finish());
  return response.receipt();
}
