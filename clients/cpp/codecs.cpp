#include "codecs.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "error.h"

using namespace fedbbpt::v1;

namespace {

constexpr size_t kShort = 8;  // arrays of fewer numbers travel as float32, and are not rotated
constexpr size_t kScaleBytes = 4;

Error misfit(const std::string& name, const std::string& what) {
  return Error("InvalidTensor", what, name, "an array as the run's codec encodes it");
}

Array of_bytes(std::string bytes) {
  auto size = static_cast<int64_t>(bytes.size());
  return {D_TYPE_INT8, {size}, std::move(bytes)};
}

Array fitting(const std::string& name, Array array) {
  if (!all_finite(array.numbers()))
    throw Error("InvalidTensor", "a number is too large for the codec", name, "a codec of wider range");
  return array;
}

std::string bytes_of(float x) {
  std::string bytes(4, '\0');
  std::memcpy(bytes.data(), &x, 4);
  return bytes;
}

Array bfloat16(const Vector& numbers) {
  std::string bytes;
  for (double x : numbers) {
    float narrow = to_float32(x);
    uint32_t bits;
    std::memcpy(&bits, &narrow, 4);
    bits += 0x7fff + (bits >> 16 & 1);  // ties go to the even neighbour
    bytes += static_cast<char>(bits >> 16);
    bytes += static_cast<char>(bits >> 24);
  }
  return of_bytes(bytes);
}

Array integers(int levels, const Vector& numbers, const Rounding& rounding) {
  double largest = 0;
  for (double x : numbers) largest = std::max(largest, std::abs(x));
  // The next float32 above, so that no number needs more steps than there are.
  float scale = largest > 0 ? std::nextafter(to_float32(largest / levels), INFINITY) : 0.0f;
  Vector up = rounding(numbers.size());
  std::string bytes = bytes_of(scale);
  for (size_t i = 0; i < numbers.size(); ++i) {
    int step = scale > 0 ? static_cast<int>(std::floor(numbers[i] / double(scale) + up[i])) : 0;
    if (levels > 7 || i % 2 == 0)
      bytes += static_cast<char>(levels > 7 ? step : step & 15);
    else
      bytes.back() = static_cast<char>((bytes.back() & 15) | (step & 15) << 4);
  }
  return of_bytes(bytes);
}

Array encoded(Link format, const std::string& name, const Plain& plain, const Rounding& rounding) {
  if (format == CODEC_FLOAT16) return fitting(name, Array::of(D_TYPE_FLOAT16, plain.shape, plain.numbers));
  if (format == CODEC_BFLOAT16) return bfloat16(plain.numbers);
  if (format != CODEC_FLOAT32 && plain.numbers.size() >= kShort)
    return integers(format == CODEC_INT8 ? 127 : 7, plain.numbers, rounding);
  return fitting(name, Array::of(D_TYPE_FLOAT32, plain.shape, plain.numbers));
}

Vector decoded(Link format, const std::string& name, const Array& array, size_t number) {
  const std::string& bytes = array.bytes;
  bool plain = format == CODEC_FLOAT32 || format == CODEC_FLOAT16 || (number < kShort && format != CODEC_BFLOAT16);
  if (plain) {
    Vector found = array.numbers();
    if (found.size() != number) throw misfit(name, std::to_string(found.size()) + " numbers");
    return found;
  }
  size_t wanted = format == CODEC_BFLOAT16 ? 2 * number
                                           : kScaleBytes + (format == CODEC_INT8 ? number : (number + 1) / 2);
  if (bytes.size() != wanted) throw misfit(name, std::to_string(bytes.size()) + " bytes");
  float scale;
  std::memcpy(&scale, bytes.data(), 4);
  Vector found(number);
  for (size_t i = 0; i < number; ++i) {
    if (format == CODEC_BFLOAT16) {
      uint32_t bits = (uint8_t(bytes[2 * i]) | uint32_t(uint8_t(bytes[2 * i + 1])) << 8) << 16;
      float wide;
      std::memcpy(&wide, &bits, 4);
      found[i] = wide;
    } else if (format == CODEC_INT8) {
      found[i] = double(scale) * int8_t(bytes[kScaleBytes + i]);
    } else {
      int half = uint8_t(bytes[kScaleBytes + i / 2]) >> (i % 2 ? 4 : 0) & 15;
      found[i] = double(scale) * (half > 7 ? half - 16 : half);
    }
  }
  return found;
}

size_t rotated_size(size_t number) {
  if (number < kShort) return number;
  size_t size = 1;
  while (size < number) size *= 2;
  return size;
}

// Returns H x / sqrt(m), by log2(m) passes of sums and differences.
Vector hadamard(Vector y) {
  for (size_t step = 1; step < y.size(); step *= 2)
    for (size_t i = 0; i < y.size(); i += 2 * step)
      for (size_t j = i; j < i + step; ++j) {
        double sum = y[j] + y[j + step], difference = y[j] - y[j + step];
        y[j] = sum;
        y[j + step] = difference;
      }
  for (double& value : y) value /= std::sqrt(double(y.size()));
  return y;
}

Vector flipped(const std::string& name, Vector x) {
  std::vector<int> flips = signs(derive(0, {"rotate", name}), x.size());
  for (size_t i = 0; i < x.size(); ++i) x[i] *= flips[i];
  return x;
}

Vector rotated(const std::string& name, Vector x) {
  if (x.size() < kShort) return x;
  x.resize(rotated_size(x.size()));
  return hadamard(flipped(name, x));
}

Vector rotated_back(const std::string& name, const Vector& y, size_t number) {
  if (number < kShort) return y;
  Vector x = flipped(name, hadamard(y));
  x.resize(number);
  return x;
}

}  // namespace

const std::vector<Link>& known_links() {
  static const std::vector<Link> links = {CODEC_FLOAT32, CODEC_FLOAT16, CODEC_BFLOAT16, CODEC_INT8,
                                          CODEC_INT4,    CODEC_ROTATE,  CODEC_TOP_K};
  return links;
}

CodecChain::CodecChain(const std::vector<Link>& links, double kept, std::string point)
    : kept_(kept), point_(std::move(point)) {
  const auto& known = known_links();
  for (Link link : links) {
    if (std::find(known.begin(), known.end(), link) == known.end())
      throw Error("InvalidRequest", "an unknown link of a codec", "codec", "links that were announced");
    rotations_ += link == CODEC_ROTATE;
    sparse_ = sparse_ || link == CODEC_TOP_K;
  }
  if (!links.empty()) format_ = links.back();
  if (format_ == CODEC_ROTATE || format_ == CODEC_TOP_K)
    throw Error("InvalidRequest", "a codec without a format", "codec", "links that end in a format");
}

Array CodecChain::encode(const std::string& name, const Plain& plain, const Rounding& rounding) const {
  if (thins(name)) return encode_largest(plain, rounding);
  Plain found = plain;
  for (int i = 0; i < rotations_; ++i) {
    found.numbers = rotated(name, found.numbers);
    if (found.numbers.size() >= kShort) found.shape = {static_cast<int64_t>(found.numbers.size())};
  }
  return encoded(format_, name, found, rounding);
}

Vector CodecChain::decode(const std::string& name, const Array& array, const Shape& shape) const {
  if (thins(name)) return decode_largest(name, array, count(shape));
  std::vector<size_t> sizes = {count(shape)};
  for (int i = 0; i < rotations_; ++i) sizes.push_back(rotated_size(sizes.back()));
  Vector numbers = decoded(format_, name, array, sizes.back());
  for (int i = rotations_; i > 0; --i) numbers = rotated_back(name, numbers, sizes[i - 1]);
  return numbers;
}

size_t CodecChain::kept_of(size_t number) const {
  return std::min(number, static_cast<size_t>(std::ceil(kept_ * double(number))));
}

Array CodecChain::encode_largest(const Plain& plain, const Rounding& rounding) const {
  const Vector& x = plain.numbers;
  std::vector<size_t> order(x.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) { return std::abs(x[i]) > std::abs(x[j]); });
  order.resize(kept_of(x.size()));
  std::sort(order.begin(), order.end());
  std::string mask((x.size() + 7) / 8, '\0');
  Plain largest{{static_cast<int64_t>(order.size())}, {}};
  for (size_t i : order) {
    mask[i / 8] = static_cast<char>(mask[i / 8] | 1 << (i % 8));
    largest.numbers.push_back(x[i]);
  }
  return of_bytes(mask + encoded(format_, point_, largest, rounding).bytes);
}

Vector CodecChain::decode_largest(const std::string& name, const Array& array, size_t number) const {
  size_t marks = (number + 7) / 8;
  if (array.bytes.size() < marks) throw misfit(name, std::to_string(array.bytes.size()) + " bytes");
  std::vector<size_t> chosen;
  for (size_t i = 0; i < number; ++i)
    if (array.bytes[i / 8] >> (i % 8) & 1) chosen.push_back(i);
  if (chosen.size() != kept_of(number)) throw misfit(name, std::to_string(chosen.size()) + " numbers are marked");
  Array inner = of_bytes(array.bytes.substr(marks));
  if (format_ == CODEC_FLOAT16) inner.dtype = D_TYPE_FLOAT16;
  else if (chosen.size() < kShort) inner.dtype = D_TYPE_FLOAT32;
  Vector values = decoded(format_, name, inner, chosen.size()), found(number);
  for (size_t i = 0; i < chosen.size(); ++i) found[chosen[i]] = values[i];
  return found;
}
