#include "task_stream.h"

using fedbbpt::v1::TakePartRequest;
using fedbbpt::v1::TakePartResponse;

namespace {

constexpr int kSilentHeartbeats = 3;  // the number of intervals after which a silent stream is broken

}  // namespace

TaskStream::TaskStream(const Connection& connection, const fedbbpt::v1::Opening& opening, double heartbeat_seconds)
    : connection_(connection),
      context_(connection.context(0)),
      stub_(fedbbpt::v1::CoordinatorService::NewStub(connection.channel())),
      call_(stub_->TakePart(context_.get())),
      interval_(std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(heartbeat_seconds))) {
  TakePartRequest request;
  *request.mutable_opening() = opening;
  write(request);
  watcher_ = std::thread([this] { watch(); });
}

TaskStream::~TaskStream() {
  {
    std::lock_guard<std::mutex> lock(state_);
    ended_ = true;
  }
  over_.notify_all();
  watcher_.join();
  if (finished_) return;
  context_->TryCancel();
  TakePartResponse rest;
  while (call_->Read(&rest)) continue;
  call_->Finish();
}

void TaskStream::write(const TakePartRequest& request) {
  std::lock_guard<std::mutex> lock(writing_);
  call_->Write(request);  // a failure shows when the next response is read
}

void TaskStream::watch() {
  TakePartRequest beat;
  beat.mutable_heartbeat();
  auto next = Clock::now() + interval_;
  std::unique_lock<std::mutex> lock(state_);
  while (!ended_) {
    over_.wait_until(lock, std::min(next, due_));
    auto now = Clock::now();
    if (reading_ && now - since_ >= kSilentHeartbeats * interval_) why_ = "nothing was heard in three heartbeats";
    if (now >= due_) why_ = "no receipt in time";
    if (!why_.empty()) {
      context_->TryCancel();
      return;
    }
    if (ended_ || now < next) continue;
    next = now + interval_;
    lock.unlock();
    write(beat);
    lock.lock();
  }
}

void TaskStream::submit(const fedbbpt::v1::UpdateHeader& update, double seconds) {
  TakePartRequest request;
  *request.mutable_update() = update;
  {
    std::lock_guard<std::mutex> lock(state_);
    due_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  }
  over_.notify_all();
  write(request);
}

TakePartResponse TaskStream::read() {
  {
    std::lock_guard<std::mutex> lock(state_);
    reading_ = true;
    since_ = Clock::now();
  }
  TakePartResponse response;
  bool read = call_->Read(&response);
  std::unique_lock<std::mutex> lock(state_);
  reading_ = false;
  if (response.receipt()) due_ = Clock::time_point::max();
  if (read) return response;
  std::string why = why_;
  lock.unlock();
  if (!why.empty()) throw Error("CoordinatorUnavailable", why);
  grpc::Status status = call_->Finish();
  finished_ = true;
  connection_.check(status);
  throw Error("CoordinatorUnavailable", "the stream ended before the run did");
}
