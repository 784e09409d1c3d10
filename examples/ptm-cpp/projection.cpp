#include "projection.h"

#include <openssl/evp.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <numbers>
#include <stdexcept>

namespace {

// SHAKE-256 of the seed's 8 bytes. They are little-endian on this machine, which prompts.cpp asserts.
std::vector<unsigned char> stream(std::uint64_t seed, std::size_t length) {
  std::vector<unsigned char> bytes(length);
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  if (!EVP_DigestInit_ex(context.get(), EVP_shake256(), nullptr) ||
      !EVP_DigestUpdate(context.get(), &seed, sizeof seed) || !EVP_DigestFinalXOF(context.get(), bytes.data(), length))
    throw std::runtime_error("OpenSSL has no SHAKE-256");
  return bytes;
}

}  // namespace

std::vector<double> signs(std::uint64_t seed, long count) {
  const auto bytes = stream(seed, (count + 7) / 8);
  std::vector<double> drawn(count);
  for (long i = 0; i < count; ++i) drawn[i] = bytes[i / 8] >> i % 8 & 1 ? 1 : -1;
  return drawn;
}

std::vector<double> normals(std::uint64_t seed, long count) {
  const long pairs = (count + 1) / 2;
  const auto bytes = stream(seed, 16 * pairs);
  const auto uniform = [&](long i) {
    std::uint64_t word;
    std::memcpy(&word, &bytes[8 * i], sizeof word);
    return (double(word >> 11) + 0.5) / 0x1p53;
  };
  std::vector<double> drawn(2 * pairs);
  for (long i = 0; i < pairs; ++i) {
    const double radius = std::sqrt(-2 * std::log(uniform(2 * i))), angle = 2 * std::numbers::pi * uniform(2 * i + 1);
    drawn[2 * i] = radius * std::cos(angle);
    drawn[2 * i + 1] = radius * std::sin(angle);
  }
  drawn.resize(count);
  return drawn;
}
