#include "tensors.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "error.h"

using namespace fedbbpt::v1;

namespace {

size_t size_of(DType dtype, const std::string& where) {
  switch (dtype) {
    case D_TYPE_INT8: case D_TYPE_UINT8: return 1;
    case D_TYPE_FLOAT16: return 2;
    case D_TYPE_FLOAT32: case D_TYPE_INT32: return 4;
    case D_TYPE_FLOAT64: case D_TYPE_INT64: return 8;
    default: throw Error("InvalidTensor", "an unknown type", where, "a type of tensor.proto");
  }
}

// Machines that this client is built for are little-endian, as the wire is.
template <typename T>
void put(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <typename T>
T get(const std::string& bytes, size_t index) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof value, sizeof value);
  return value;
}

}  // namespace

size_t count(const Shape& shape) {
  size_t product = 1;
  for (int64_t size : shape) product *= static_cast<size_t>(size);
  return product;
}

float to_float32(double x) { return static_cast<float>(x); }

uint16_t to_float16(double x) {
  uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  double size = std::abs(x);
  if (std::isnan(x)) return 0x7e00;
  int exponent = -14;
  if (size >= 0x1p-14) exponent = std::min(std::ilogb(size), 15);
  // 1024 to 2048 steps, or fewer for subnormal numbers. 2048 carry into the exponent, as in the encoding.
  double bits = (exponent + 14) * 1024.0 + std::nearbyint(std::ldexp(size, 10 - exponent));
  return sign | static_cast<uint16_t>(std::min(bits, double(0x7c00)));
}

double from_float16(uint16_t bits) {
  double sign = bits & 0x8000 ? -1 : 1;
  int exponent = bits >> 10 & 31, fraction = bits & 1023;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  return sign * (exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24));
}

bool all_finite(const Vector& numbers) {
  return std::all_of(numbers.begin(), numbers.end(), [](double x) { return std::isfinite(x); });
}

Array Array::of(DType dtype, Shape shape, const Vector& numbers) {
  Array found{dtype, std::move(shape), ""};
  found.bytes.reserve(numbers.size() * size_of(dtype, "array"));
  for (double x : numbers) switch (dtype) {
      case D_TYPE_FLOAT32: put(found.bytes, to_float32(x)); break;
      case D_TYPE_FLOAT64: put(found.bytes, x); break;
      case D_TYPE_FLOAT16: put(found.bytes, to_float16(x)); break;
      case D_TYPE_INT8: put(found.bytes, static_cast<int8_t>(x)); break;
      case D_TYPE_UINT8: put(found.bytes, static_cast<uint8_t>(x)); break;
      case D_TYPE_INT32: put(found.bytes, static_cast<int32_t>(x)); break;
      default: put(found.bytes, static_cast<int64_t>(x));
    }
  return found;
}

Array Array::from(const fedbbpt::v1::Tensor& message, const std::string& where) {
  Array found{message.dtype(), {message.shape().begin(), message.shape().end()}, message.data()};
  size_t wanted = count(found.shape) * size_of(found.dtype, where);
  if (found.bytes.size() != wanted)
    throw Error("InvalidTensor", std::to_string(found.bytes.size()) + " bytes", where,
                std::to_string(wanted) + ", as its shape says");
  return found;
}

void Array::write(fedbbpt::v1::Tensor& message) const {
  message.set_dtype(dtype);
  for (int64_t size : shape) message.add_shape(size);
  message.set_data(bytes);
}

Vector Array::numbers() const {
  Vector found(bytes.size() / size_of(dtype, "array"));
  for (size_t i = 0; i < found.size(); ++i) switch (dtype) {
      case D_TYPE_FLOAT32: found[i] = get<float>(bytes, i); break;
      case D_TYPE_FLOAT64: found[i] = get<double>(bytes, i); break;
      case D_TYPE_FLOAT16: found[i] = from_float16(get<uint16_t>(bytes, i)); break;
      case D_TYPE_INT8: found[i] = get<int8_t>(bytes, i); break;
      case D_TYPE_UINT8: found[i] = get<uint8_t>(bytes, i); break;
      case D_TYPE_INT32: found[i] = get<int32_t>(bytes, i); break;
      default: found[i] = static_cast<double>(get<int64_t>(bytes, i));
    }
  return found;
}

std::string Array::described(const std::string& name) const {
  static const std::map<DType, std::string> names = {
      {D_TYPE_FLOAT32, "<f4"}, {D_TYPE_FLOAT64, "<f8"}, {D_TYPE_FLOAT16, "<f2"}, {D_TYPE_INT8, "|i1"},
      {D_TYPE_UINT8, "|u1"},   {D_TYPE_INT32, "<i4"},   {D_TYPE_INT64, "<i8"}};
  std::string sizes;
  for (size_t i = 0; i < shape.size(); ++i) sizes += (i ? ", " : "") + std::to_string(shape[i]);
  if (shape.size() == 1) sizes += ",";
  return name + " " + names.at(dtype) + " (" + sizes + ")\n";
}

const Array& need(const Arrays& arrays, const std::string& name) {
  auto found = arrays.find(name);
  if (found == arrays.end())
    throw Error("InvalidTensor", "is missing", name, "the arrays that the method broadcasts");
  return found->second;
}

void write_bundle(const Arrays& arrays, TensorBundle& bundle) {
  std::string data;
  for (const auto& [name, array] : arrays) {
    auto& spec = *bundle.add_tensors();
    spec.set_name(name);
    spec.set_dtype(array.dtype);
    for (int64_t size : array.shape) spec.add_shape(size);
    data += array.bytes;
  }
  bundle.set_total_bytes(static_cast<int64_t>(data.size()));
  bundle.set_crc32c(crc32c(data));
  bundle.set_data(data);
}

Assembler::Assembler(const TensorBundle& announced, int64_t limit) : announced_(announced), data_(announced.data()) {
  announced_.clear_data();
  uint64_t needed = 0;
  for (const auto& spec : announced.tensors()) {
    Shape shape(spec.shape().begin(), spec.shape().end());
    needed += count(shape) * size_of(spec.dtype(), spec.name());
  }
  std::string total = std::to_string(announced.total_bytes());
  if (needed != static_cast<uint64_t>(announced.total_bytes()) || announced.tensors_size() > 1024)
    throw Error("InvalidTensor", total + " bytes announced", "arrays.total_bytes", "the sum of the tensors' sizes");
  if (announced.total_bytes() > limit)
    throw Error("MessageTooLarge", total + " bytes of arrays", "arrays", "at most " + std::to_string(limit));
  if (data_.size() > needed) throw Error("InvalidTensor", "more bytes than announced", "arrays", total + " in all");
}

void Assembler::add(const TensorChunk& chunk) {
  bool placed = chunk.offset() == static_cast<int64_t>(data_.size()) && !chunk.data().empty();
  if (!placed || data_.size() + chunk.data().size() > static_cast<size_t>(announced_.total_bytes()))
    throw Error("InvalidTensor", "a chunk at byte " + std::to_string(chunk.offset()), "chunk.offset",
                std::to_string(data_.size()));
  if (crc32c(chunk.data()) != chunk.crc32c())
    throw Error("ChecksumMismatch", "the chunk was corrupted in transit", "chunk.crc32c");
  data_ += chunk.data();
}

Arrays Assembler::arrays() const {
  if (crc32c(data_) != announced_.crc32c())
    throw Error("ChecksumMismatch", "the arrays were corrupted in transit", "arrays.crc32c");
  Arrays found;
  size_t offset = 0;
  for (const auto& spec : announced_.tensors()) {
    Shape shape(spec.shape().begin(), spec.shape().end());
    size_t size = count(shape) * size_of(spec.dtype(), spec.name());
    Array array{spec.dtype(), shape, data_.substr(offset, size)};
    if (!all_finite(array.numbers()))
      throw Error("InvalidTensor", "NaN or infinite elements", spec.name(), "finite numbers");
    found[spec.name()] = std::move(array);
    offset += size;
  }
  return found;
}
