#include "ptm.h"

#include <cstdio>
#include <random>

namespace {

constexpr double kCallSeconds = 600, kPatienceSeconds = 60;
constexpr int kReplicas = 8;  // the most servers behind one address that may not know a task

}  // namespace

std::string random_hex(int bytes) {
  std::random_device random;
  std::string found;
  for (int i = 0; i < bytes; ++i) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", random() & 255);
    found += digits;
  }
  return found;
}

Ptm::Ptm(Access access, std::string revision, pb::Task task)
    : connection_(std::move(access), "PtmUnavailable", kPatienceSeconds),
      revision_(std::move(revision)),
      task_(std::move(task)) {
  describe();
  revision_ = card_.revision();
}

template <typename Method, typename Request, typename Response>
void Ptm::call(Method method, const Request& request, Response& response) {
  connection_.patiently([&] {
    auto stub = pb::PtmService::NewStub(connection_.channel());
    auto context = connection_.context(kCallSeconds);
    connection_.check((stub.get()->*method)(context.get(), request, &response));
  });
}

void Ptm::describe() {
  call(&pb::PtmService::Stub::Describe, pb::DescribeRequest(), card_);
  check_revision(card_.revision());
}

void Ptm::check_revision(const std::string& revision) const {
  if (!revision_.empty() && revision != revision_)
    throw Error("RevisionChanged", "the PTM has revision " + printable(revision), "revision",
                printable(revision_) + ", as the run wants it");
}

void Ptm::register_task() {
  pb::RegisterTaskRequest request;
  *request.mutable_task() = task_;
  pb::RegisterTaskResponse response;
  call(&pb::PtmService::Stub::RegisterTask, request, response);
  task_id_ = response.task_id();
}

Handle Ptm::register_examples(pb::ExampleSet examples) {
  for (int attempt = 1;; ++attempt) {
    if (task_id_.empty()) register_task();
    pb::RegisterExamplesRequest request;
    request.set_task_id(task_id_);
    *request.mutable_examples() = examples;
    pb::RegisterExamplesResponse response;
    try {
      call(&pb::PtmService::Stub::RegisterExamples, request, response);
      return {response.examples_id(), std::move(examples)};
    } catch (const Error& error) {
      if (!error.is({"UnknownTask"}) || attempt > kReplicas) throw;
      // Replicas take turns, so registering the task often enough reaches all of them.
      for (int i = 0; i < attempt; ++i) register_task();
    }
  }
}

void Ptm::release(const Handle& handle) {
  pb::ReleaseRequest request;
  request.set_examples_id(handle.id);
  pb::ReleaseResponse response;
  call(&pb::PtmService::Stub::Release, request, response);
}

pb::ScoreResponse Ptm::score(Handle& handle, pb::ScoreRequest request) {
  pb::ScoreResponse response;
  request.set_examples_id(handle.id);
  // All attempts share a key, so that a lost answer is neither computed nor charged again.
  request.set_idempotency_key(random_hex(16));
  try {
    call(&pb::PtmService::Stub::Score, request, response);
  } catch (const Error& error) {
    if (!error.is({"UnknownExamples"})) throw;
    log_line("info", "the service does not know the examples; sending them along with the call");
    describe();
    *request.mutable_inline_()->mutable_task() = task_;
    *request.mutable_inline_()->mutable_examples() = handle.examples;
    request.set_idempotency_key(random_hex(16));
    call(&pb::PtmService::Stub::Score, request, response);
    handle.id = response.examples_id();
  }
  check_revision(response.revision());
  return response;
}
