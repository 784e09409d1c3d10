#include "keepsake.h"

#include <fcntl.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/util/delimited_message_util.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <sstream>

#include "channels.h"
#include "ptm.h"

namespace files = std::filesystem;
using fedbbpt::v1::TaskId;
using fedbbpt::v1::UpdateHeader;
using google::protobuf::util::ParseDelimitedFromZeroCopyStream;
using google::protobuf::util::SerializeDelimitedToOstream;

namespace {

constexpr const char* kUpdate = "update.bin";

}  // namespace

Keepsake::Keepsake(std::string folder) : folder_(std::move(folder)) {
  std::error_code problem;
  files::create_directories(folder_, problem);
  if (problem) throw Error("StoreError", problem.message(), folder_, "--state DIR, a folder to write to");
}

std::string Keepsake::client_key() { return once("client.key", random_hex(16)); }

std::string Keepsake::client_name(const std::string& stem) { return once("client.name", stem + "-" + random_hex(3)); }

std::string Keepsake::once(const std::string& name, const std::string& drawn) {
  if (!files::exists(files::path(folder_) / name)) write(name, drawn);
  return contents(files::path(folder_) / name, "client's file");
}

void Keepsake::save(const UpdateHeader& update, const Lost& lost) {
  std::ostringstream bytes;
  fedbbpt::v1::TensorBundle bundle;
  Arrays arrays;
  for (const auto& [name, numbers] : lost)
    arrays[name] = Array::of(fedbbpt::v1::D_TYPE_FLOAT64, {int64_t(numbers.size())}, numbers);
  write_bundle(arrays, bundle);
  SerializeDelimitedToOstream(update, &bytes);
  SerializeDelimitedToOstream(bundle, &bytes);
  write(kUpdate, bytes.str());
}

bool Keepsake::read(UpdateHeader& update, Arrays& lost) const {
  files::path path = files::path(folder_) / kUpdate;
  if (!files::exists(path)) return false;
  std::string bytes = contents(path, "saved update");
  google::protobuf::io::ArrayInputStream input(bytes.data(), static_cast<int>(bytes.size()));
  fedbbpt::v1::TensorBundle bundle;
  bool whole = ParseDelimitedFromZeroCopyStream(&update, &input, nullptr) &&
               ParseDelimitedFromZeroCopyStream(&bundle, &input, nullptr);
  if (!whole)
    throw Error("StoreError", "the saved update cannot be read", path, "the file of the client's last run, or none");
  lost = Assembler(bundle, int64_t(bytes.size())).arrays();
  return true;
}

std::optional<UpdateHeader> Keepsake::load(const TaskId& id) const {
  UpdateHeader update;
  Arrays lost;
  if (!read(update, lost) || update.id().SerializeAsString() != id.SerializeAsString()) return std::nullopt;
  return update;
}

Lost Keepsake::lost(const std::string& run_id) const {
  UpdateHeader update;
  Arrays arrays;
  Lost found;
  if (read(update, arrays) && update.id().run_id() == run_id)
    for (const auto& [name, array] : arrays) found[name] = array.numbers();
  return found;
}

void Keepsake::write(const std::string& name, const std::string& bytes) {
  files::path path = files::path(folder_) / name, fresh = path;
  fresh += ".new";
  int file = open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  bool written = file >= 0;
  for (size_t done = 0; written && done < bytes.size();) {
    ssize_t more = ::write(file, bytes.data() + done, bytes.size() - done);
    written = more >= 0;
    done += written ? size_t(more) : 0;
  }
  written = written && fsync(file) == 0;
  std::string why = std::strerror(errno);
  if (file >= 0) close(file);
  if (!written || rename(fresh.c_str(), path.c_str()) != 0)
    throw Error("StoreError", why, path, "a folder to write to, with room");
}
