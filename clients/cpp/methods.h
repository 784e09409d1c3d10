// The client's half of each method: what it makes of a task.
#pragma once

#include <functional>

#include "fedbbpt/v1/coordinator.pb.h"
#include "objectives.h"
#include "travelling.h"

// A task with its broadcast.
struct Task {
  fedbbpt::v1::TaskHeader header;
  Arrays arrays;

  const std::string& client_id() const { return header.id().client_id(); }
};

using ClientHalf = std::function<Found(const Task&, Objectives&)>;

// Returns the client's half of a run's method. Throws PluginMissing for a method that this client does not have.
ClientHalf client_half(const fedbbpt::v1::JoinResponse& run);
ClientHalf fed_cma(const fedbbpt::v1::FedCmaSettings& settings);
ClientHalf fed_bpt(const fedbbpt::v1::FedBptSettings& settings);
// Returns the half of a run with views, whose other rounds are those of `search`; fed-readout has none.
ClientHalf fed_readout(ClientHalf search);

// Returns the name of the array that clients of a run search from; empty if there is none.
std::string point_of(const fedbbpt::v1::JoinResponse& run);
// Returns whether the method asks the PTM for the scores of each class.
bool needs_scores(const fedbbpt::v1::JoinResponse& run);
// Returns the prompt z that a task's round begins with, with the readout that belongs to it.
Vector broadcast_prompt(const Task& task);
// Returns a candidate followed by the readout of its round, if it has one.
Vector with_readout(Vector z, const Arrays& arrays);
std::vector<Vector> with_readouts(std::vector<Vector> candidates, const Arrays& arrays);
// Returns the candidates of a Newton step: the center, and others around the mean that share its offsets.
std::vector<Vector> near(const Arrays& arrays, uint64_t seed, size_t population, size_t offsets);
