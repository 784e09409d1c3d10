#include "service.h"

#include <algorithm>
#include <exception>

#include "prompts.h"
#include "refusal.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kMaxWaiting = 32;
constexpr std::size_t kEnvelopeBytes = 4096;  // more than an answer holds besides its scores
constexpr int kMaxKeyCharacters = 64;

template <class Call>
grpc::Status answered(Call call) {
  try {
    call();
    return grpc::Status::OK;
  } catch (const Refusal& refusal) {
    return to_status(refusal);
  } catch (const std::exception& error) {
    return to_status({grpc::INTERNAL, "FedbbptError", error.what(), "", "a bug in the service"});
  }
}

template <class Message>
std::string digest_of(const Message& message) {
  Message known = message;
  known.DiscardUnknownFields();
  return digest(known.SerializeAsString());
}

long characters(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](unsigned char byte) { return (byte & 0xC0) != 0x80; });
}

Refusal unknown_examples() {
  return {grpc::NOT_FOUND, "UnknownExamples", "expired, released or never registered", "examples_id", "register again"};
}

void set_time(std::chrono::nanoseconds time, google::protobuf::Duration& message) {
  message.set_seconds(time / std::chrono::seconds(1));
  message.set_nanos((time % std::chrono::seconds(1)).count());
}

}  // namespace

Usage& Usage::operator+=(const Usage& other) {
  queries += other.queries;
  tokens += other.tokens;
  compute_time += other.compute_time;
  queue_time += other.queue_time;
  return *this;
}

void Usage::write(pb::Usage& message) const {
  message.set_queries(queries);
  message.set_tokens(tokens);
  set_time(compute_time, *message.mutable_compute_time());
  set_time(queue_time, *message.mutable_queue_time());
}

LinearPtm::Turn::Turn(LinearPtm& service) : service_(service) {
  if (++service_.waiting_ > kMaxWaiting) {
    --service_.waiting_;
    throw Refusal{grpc::RESOURCE_EXHAUSTED, "Overloaded", "too many calls are waiting", "queue", "try again", 1};
  }
  service_.turn_.lock();
}

LinearPtm::Turn::~Turn() {
  service_.turn_.unlock();
  --service_.waiting_;
}

grpc::Status LinearPtm::Describe(grpc::ServerContext*, const pb::DescribeRequest*, pb::DescribeResponse* response) {
  response->set_model("linear");
  response->set_revision(revision_);
  response->set_family("linear");
  for (const auto kind : {prompt_pb::PROMPT_KIND_LATENT, prompt_pb::PROMPT_KIND_SOFT, prompt_pb::PROMPT_KIND_TEXT})
    response->add_prompt_kinds(kind);
  response->add_injections(prompt_pb::INJECTION_PREFIX);
  response->set_max_tokens(kMaxTokens);
  response->set_max_prompts(kMaxPrompts);
  response->set_max_examples(kMaxExamples);
  response->set_max_message_bytes(kMaxMessageBytes);
  response->set_embedding_width(kWidth);
  response->set_score_noise(0);
  response->set_output(pb::OUTPUT_LABEL_LOGITS);
  response->set_max_latent(kMaxLatent);
  response->set_max_vector_norm(kMaxVectorNorm);
  return grpc::Status::OK;
}

grpc::Status LinearPtm::RegisterTask(grpc::ServerContext*, const pb::RegisterTaskRequest* request,
                                     pb::RegisterTaskResponse* response) {
  return answered([&] {
    const Turn turn(*this);
    response->set_task_id(keep_task(request->task()));
  });
}

grpc::Status LinearPtm::RegisterExamples(grpc::ServerContext*, const pb::RegisterExamplesRequest* request,
                                         pb::RegisterExamplesResponse* response) {
  return answered([&] {
    const Turn turn(*this);
    const auto [id, known] = keep_examples(request->task_id(), request->examples());
    KeptExamples& kept = *examples_.find(id);
    kept.registrations += known;
    response->set_examples_id(id);
    response->set_count(kept.examples.rows.size());
    response->set_tokens(kept.examples.tokens());
    set_time(examples_.time_to_live(), *response->mutable_time_to_live());
  });
}

std::string LinearPtm::keep_task(const pb::Task& message) {
  const std::string id = digest_of(message);
  if (tasks_.find(id) == nullptr) tasks_.put(id, {read_task(message), {}}, 1);
  return id;
}

std::pair<std::string, bool> LinearPtm::keep_examples(const std::string& task_id, const pb::ExampleSet& message) {
  const KeptTask* kept = tasks_.find(task_id);
  if (kept == nullptr) throw Refusal{grpc::NOT_FOUND, "UnknownTask", "no such task", "task_id", "register it first"};
  const std::string id = digest(task_id + digest_of(message));
  if (examples_.find(id) != nullptr) return {id, true};
  std::vector<Row> rows = read_examples(kept->task, message);
  const std::size_t count = rows.size();
  examples_.put(id, {{task_id, std::move(rows)}}, count);
  return {id, false};
}

grpc::Status LinearPtm::Score(grpc::ServerContext* context, const pb::ScoreRequest* request,
                              pb::ScoreResponse* response) {
  return answered([&] {
    const auto asked = Clock::now();
    const Turn turn(*this);
    const std::string& key = request->idempotency_key();
    if (characters(key) > kMaxKeyCharacters)
      throw invalid("InvalidRequest", "a long key", "idempotency_key", "64 characters at most");
    const std::string asked_for = digest_of(*request);
    if (const Answer* first = key.empty() ? nullptr : answers_.find(key)) {
      if (first->request != asked_for)
        throw invalid("InvalidRequest", "the key of another request", "idempotency_key", "a key for each request");
      *response = first->response;
      return;
    }
    Usage usage;
    usage.queue_time = Clock::now() - asked;
    score(*context, *request, *response, usage);
    if (!key.empty()) answers_.put(key, {asked_for, *response}, response->ByteSizeLong());
  });
}

void LinearPtm::score(const grpc::ServerContext& context, const pb::ScoreRequest& request, pb::ScoreResponse& response,
                      Usage& usage) {
  const auto begun = Clock::now();
  std::string id = request.examples_id();
  if (request.examples_case() == pb::ScoreRequest::EXAMPLES_NOT_SET)
    throw invalid("InvalidRequest", "no examples", "examples", "examples_id or inline");
  if (request.has_inline_())
    id = keep_examples(keep_task(request.inline_().task()), request.inline_().examples()).first;
  const KeptExamples* found = examples_.find(id);
  KeptTask* kept = found == nullptr ? nullptr : tasks_.find(found->examples.task_id);
  if (kept == nullptr) throw unknown_examples();
  const Examples& examples = found->examples;

  const std::vector<Prompt> prompts = read_prompts(request);
  for (const Prompt& prompt : prompts)
    if (prompt.tokens + examples.longest() > kMaxTokens)
      throw invalid("PromptTooLong", "prompt and input exceed the model", "prompts", "shorter ones");
  const auto& classes = kept->task.classes;
  const std::size_t queries = prompts.size() * examples.rows.size();
  if (queries * classes.size() * sizeof(float) + kEnvelopeBytes > kMaxMessageBytes)
    throw Refusal{grpc::RESOURCE_EXHAUSTED, "MessageTooLarge", "too many scores", "prompts", "fewer in one call"};

  std::vector<float> scores;
  scores.reserve(queries * classes.size());
  bool given_up = false;
  for (const Prompt& prompt : prompts) {
    given_up = context.IsCancelled();  // by the caller, or by its deadline
    if (given_up) break;
    for (const Row& row : examples.rows) {
      for (const Vector& label : classes) scores.push_back(::score(prompt.m, row.text, label));
      ++usage.queries;
      usage.tokens += prompt.tokens + row.tokens;
    }
  }
  usage.compute_time = Clock::now() - begun;
  usage_ += usage;
  kept->usage += usage;
  if (given_up)
    throw Refusal{grpc::DEADLINE_EXCEEDED, "DeadlineExceeded", "the caller has gone", "deadline", "more time"};

  auto* tensor = response.mutable_scores();
  tensor->set_dtype(fedbbpt::v1::D_TYPE_FLOAT32);
  for (const std::size_t size : {prompts.size(), examples.rows.size(), classes.size()}) tensor->add_shape(size);
  tensor->set_data(scores.data(), scores.size() * sizeof(float));
  response.set_revision(revision_);
  usage.write(*response.mutable_usage());
  response.set_examples_id(id);
}

grpc::Status LinearPtm::Release(grpc::ServerContext*, const pb::ReleaseRequest* request, pb::ReleaseResponse*) {
  return answered([&] {
    const Turn turn(*this);
    KeptExamples* kept = examples_.find(request->examples_id());
    if (kept != nullptr && --kept->registrations == 0) examples_.erase(request->examples_id());
  });
}

grpc::Status LinearPtm::GetUsage(grpc::ServerContext*, const pb::GetUsageRequest*, pb::GetUsageResponse* response) {
  return answered([&] {
    const Turn turn(*this);
    usage_.write(*response->mutable_usage());
    response->set_handles(examples_.size());
    tasks_.each([&](const std::string& id, const KeptTask& kept) {
      auto* task = response->add_tasks();
      task->set_task_id(id);
      kept.usage.write(*task->mutable_usage());
    });
  });
}
