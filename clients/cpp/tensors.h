// Arrays: their types, their bytes, and the bundles in which they travel.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "draws.h"
#include "fedbbpt/v1/tensor.pb.h"

constexpr size_t kChunkBytes = 256 * 1024;  // the largest arrays that travel inside their bundle

using Shape = std::vector<int64_t>;
using fedbbpt::v1::DType;

// An array as it travels: a type, a shape, and little-endian bytes in row-major order.
struct Array {
  DType dtype = fedbbpt::v1::D_TYPE_UNSPECIFIED;
  Shape shape;
  std::string bytes;

  // Returns numbers in a type, each rounded to the nearest one that it has.
  static Array of(DType dtype, Shape shape, const Vector& numbers);
  // Returns the array of a message. Throws InvalidTensor if its size does not fit its shape.
  static Array from(const fedbbpt::v1::Tensor& message, const std::string& where);

  void write(fedbbpt::v1::Tensor& message) const;
  Vector numbers() const;
  // Returns the line by which digests describe the array.
  std::string described(const std::string& name) const;
};

using Arrays = std::map<std::string, Array>;

// Returns an array by its name. Throws InvalidTensor if there is none.
const Array& need(const Arrays& arrays, const std::string& name);
// Writes arrays with all of their bytes into a bundle.
void write_bundle(const Arrays& arrays, fedbbpt::v1::TensorBundle& bundle);

size_t count(const Shape& shape);
float to_float32(double x);
uint16_t to_float16(double x);
double from_float16(uint16_t bits);
bool all_finite(const Vector& numbers);

// Assembles the arrays of a bundle from its own bytes, or from the chunks that follow it.
class Assembler {
 public:
  // Throws InvalidTensor if the announced sizes do not add up, MessageTooLarge beyond `limit` bytes.
  Assembler(const fedbbpt::v1::TensorBundle& announced, int64_t limit);
  bool complete() const { return data_.size() == static_cast<size_t>(announced_.total_bytes()); }
  // Throws InvalidTensor for a chunk out of place, ChecksumMismatch.
  void add(const fedbbpt::v1::TensorChunk& chunk);
  // Throws ChecksumMismatch, and InvalidTensor for a number that is not finite.
  Arrays arrays() const;

 private:
  fedbbpt::v1::TensorBundle announced_;
  std::string data_;
};
