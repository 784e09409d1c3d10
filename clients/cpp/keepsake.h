// The files of a client: its key, its name, and its last update, which may not have arrived.
#pragma once

#include <optional>
#include <string>

#include "fedbbpt/v1/coordinator.pb.h"
#include "travelling.h"

// A folder that belongs to one client of one run.
class Keepsake {
 public:
  // Throws StoreError if the folder cannot be made.
  explicit Keepsake(std::string folder);

  // Returns the client's key, which the first call draws.
  std::string client_key();
  // Returns the name of a client that its user gave none, which the first call draws.
  std::string client_name(const std::string& stem);
  // Replaces the saved update, with all bytes of its arrays; it is on disk when this returns.
  void save(const fedbbpt::v1::UpdateHeader& update, const Lost& lost);
  // Returns the update that was saved for a task, byte for byte.
  std::optional<fedbbpt::v1::UpdateHeader> load(const fedbbpt::v1::TaskId& id) const;
  // Returns what the codec had not sent after the last update of a run.
  Lost lost(const std::string& run_id) const;

 private:
  std::string once(const std::string& name, const std::string& drawn);
  void write(const std::string& name, const std::string& bytes);
  // The file holds the update, and after it a TensorBundle of what the codec had not sent. Returns false without one.
  bool read(fedbbpt::v1::UpdateHeader& update, Arrays& lost) const;

  std::string folder_;
};
