// The client's loop: each task is answered with an update, which is saved before it is sent.
#pragma once

#include "coordinator.h"
#include "keepsake.h"

class Agent {
 public:
  Agent(ClientHalf half, Objectives& objectives, CodecChain codec, Keepsake& keepsake,
        const fedbbpt::v1::JoinResponse& run);

  // Answers all tasks of the run and returns how many updates were counted.
  int run(Coordinator& coordinator);

 private:
  fedbbpt::v1::UpdateHeader answer_patiently(const Task& task, Coordinator& coordinator);
  // Returns the update for a task: the saved one if there is one, the same bytes as before.
  fedbbpt::v1::UpdateHeader answer(const Task& task);
  void evaluate(const Task& task, fedbbpt::v1::UpdateHeader& update);
  void search(const Task& task, fedbbpt::v1::UpdateHeader& update, Lost& lost);

  ClientHalf half_;
  Objectives& objectives_;
  CodecChain codec_;
  Keepsake& keepsake_;
  fedbbpt::v1::Sampling sampling_;
  Lost lost_;
};
