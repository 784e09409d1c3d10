// Codecs: chains of rotations or CODEC_TOP_K and one format, which make arrays smaller. docs/protocol.md, "Codecs".
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "fedbbpt/v1/coordinator.pb.h"
#include "tensors.h"

using Link = fedbbpt::v1::Codec;
// Returns numbers in (0, 1), by which integers are rounded up or down.
using Rounding = std::function<Vector(size_t)>;

// An array before it is encoded.
struct Plain {
  Shape shape;
  Vector numbers;
};

class CodecChain {
 public:
  // `point` names the array that a search starts from, and `kept` is the share of its numbers that travel.
  explicit CodecChain(const std::vector<Link>& links, double kept = 1, std::string point = "");

  Array encode(const std::string& name, const Plain& plain, const Rounding& rounding) const;
  Vector decode(const std::string& name, const Array& array, const Shape& shape) const;
  // Returns whether only the largest numbers of this array travel.
  bool thins(const std::string& name) const { return sparse_ && name == point_; }

 private:
  size_t kept_of(size_t number) const;
  Array encode_largest(const Plain& plain, const Rounding& rounding) const;
  Vector decode_largest(const std::string& name, const Array& array, size_t number) const;

  Link format_ = fedbbpt::v1::CODEC_FLOAT32;
  int rotations_ = 0;
  bool sparse_ = false;
  double kept_;
  std::string point_;
};

// The links that this client can encode.
const std::vector<Link>& known_links();
