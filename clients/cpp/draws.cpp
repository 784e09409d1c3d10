#include "draws.h"

#include <openssl/evp.h>

#include <array>
#include <cmath>
#include <memory>
#include <numeric>

namespace {

std::string digest(const EVP_MD* kind, const std::string& bytes, size_t length) {
  std::string found(length, '\0');
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  auto* out = reinterpret_cast<unsigned char*>(found.data());
  EVP_DigestInit_ex(context.get(), kind, nullptr);
  EVP_DigestUpdate(context.get(), bytes.data(), bytes.size());
  if (kind == EVP_shake256())
    EVP_DigestFinalXOF(context.get(), out, length);
  else
    EVP_DigestFinal_ex(context.get(), out, nullptr);
  return found;
}

uint64_t word_at(const std::string& bytes, size_t offset) {
  uint64_t word = 0;
  for (int i = 7; i >= 0; --i) word = word << 8 | static_cast<unsigned char>(bytes[offset + i]);
  return word;
}

}  // namespace

std::string sha256(const std::string& bytes) { return digest(EVP_sha256(), bytes, 32); }

uint64_t derive(uint64_t seed, std::initializer_list<std::string> parts) {
  std::string text = std::to_string(seed);
  for (const auto& part : parts) text += "\n" + part;
  return word_at(sha256(text), 0);
}

std::string stream(uint64_t seed, size_t length) {
  std::string bytes(8, '\0');
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(seed >> (8 * i));
  return length ? digest(EVP_shake256(), bytes, length) : "";
}

std::vector<int> signs(uint64_t seed, size_t count) {
  std::string bytes = stream(seed, (count + 7) / 8);
  std::vector<int> found(count);
  for (size_t i = 0; i < count; ++i) found[i] = bytes[i / 8] >> (i % 8) & 1 ? 1 : -1;
  return found;
}

Vector uniforms(uint64_t seed, size_t count) {
  std::string bytes = stream(seed, 8 * count);
  Vector found(count);
  for (size_t i = 0; i < count; ++i) found[i] = (double(word_at(bytes, 8 * i) >> 11) + 0.5) / 0x1p53;
  return found;
}

Vector normals(uint64_t seed, size_t count) {
  Vector found = uniforms(seed, (count + 1) / 2 * 2);
  for (size_t i = 0; i < found.size(); i += 2) {
    double radius = std::sqrt(-2.0 * std::log(found[i])), angle = 2.0 * M_PI * found[i + 1];
    found[i] = radius * std::cos(angle);
    found[i + 1] = radius * std::sin(angle);
  }
  found.resize(count);
  return found;
}

std::vector<size_t> permutation(uint64_t seed, size_t count) {
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  Vector uniform = uniforms(seed, count);
  for (size_t i = count; i > 1; --i) std::swap(order[i - 1], order[size_t(uniform[i - 1] * double(i))]);
  return order;
}

uint32_t crc32c(const std::string& bytes) {
  static const auto table = [] {
    std::array<uint32_t, 256> made{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0x82F63B78u : 0u);
      made[i] = value;
    }
    return made;
  }();
  uint32_t value = ~0u;
  for (char byte : bytes) value = value >> 8 ^ table[(value ^ static_cast<unsigned char>(byte)) & 255];
  return ~value;
}
