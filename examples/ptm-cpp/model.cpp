#include "model.h"

#include <openssl/sha.h>

#include <cctype>
#include <cmath>
#include <numeric>

namespace {

// The finaliser of SplitMix64: each bit of the result depends on all of `x`.
std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// FNV-1a
std::uint64_t hash(std::string_view word) {
  std::uint64_t h = 0xcbf29ce484222325;
  for (const unsigned char byte : word) h = (h ^ byte) * 0x100000001b3;
  return h;
}

}  // namespace

Tokens tokenize(std::string_view text) {
  Tokens tokens;
  std::string word;
  const auto end_word = [&] {
    if (!word.empty()) tokens.push_back(static_cast<int>(mix(hash(word)) % kVocabulary));
    word.clear();
  };
  for (const unsigned char c : text) {
    if (std::isalnum(c) || c >= 0x80) {  // bytes beyond ASCII count as letters
      word.push_back(static_cast<char>(std::tolower(c)));
      continue;
    }
    end_word();
    if (std::ispunct(c)) {
      word.push_back(static_cast<char>(c));
      end_word();
    }
  }
  end_word();
  return tokens;
}

Vector word_vector(int token) {
  const std::uint64_t bits = mix(static_cast<std::uint64_t>(token));
  Vector vector;
  for (int d = 0; d < kWidth; ++d) vector[d] = bits >> d & 1 ? kStd : -kStd;
  return vector;
}

Vector bag(const Tokens& tokens) {
  Vector sum{};
  for (const int token : tokens) {
    const Vector word = word_vector(token);
    for (int d = 0; d < kWidth; ++d) sum[d] += word[d];
  }
  double squares = 0;
  for (const double element : sum) squares += element * element;
  if (squares > 1e-9)  // the sum may be 0
    for (double& element : sum) element /= std::sqrt(squares);
  return sum;
}

float score(const Vector& m, const Vector& text, const Vector& label) {
  double sum = 0;
  for (int d = 0; d < kWidth; ++d) sum += label[d] * text[d] * (1 + m[d] / kStd);
  return static_cast<float>(4 * sum);
}

void perturb(std::span<int> tokens, double rate, std::uint64_t seed) {
  std::vector<std::size_t> places(tokens.size());
  std::iota(places.begin(), places.end(), 0);
  const auto count = static_cast<std::size_t>(std::lround(rate * static_cast<double>(tokens.size())));
  for (std::size_t i = 0; i < count; ++i) {
    std::swap(places[i], places[i + mix(seed + 2 * i) % (places.size() - i)]);
    tokens[places[i]] = static_cast<int>(mix(seed + 2 * i + 1) % kVocabulary);
  }
}

std::string revision() {
  std::string weights = "linear-1 " + std::to_string(kMaxTokens);
  for (int token = 0; token < kVocabulary; ++token)
    for (const double element : word_vector(token)) weights.push_back(element > 0 ? '+' : '-');
  return digest(weights);
}

std::string digest(std::string_view bytes) {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> hashed;
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), hashed.data());
  std::string digits;
  for (int i = 0; i < 16; ++i) {
    digits.push_back("0123456789abcdef"[hashed[i] >> 4]);
    digits.push_back("0123456789abcdef"[hashed[i] & 15]);
  }
  return digits;
}
