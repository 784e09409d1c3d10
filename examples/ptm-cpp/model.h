// A linear model in closed form. It knows words, vectors and scores, and nothing of gRPC.
//
// A text is a hashed bag of words: x [D] is the sum of its words' vectors, scaled to length 1. A class c_k [D] is made
// in the same way. A prompt V [L, D] weighs the text's features by m [D], the sum of its vectors over sqrt(L):
//
//     score_k = 4 sum_d c_kd x_d (1 + sqrt(D) m_d)
//
// That is linear in V. A word's vector has entries +1 and -1 over sqrt(D), whose standard deviation is 1 / sqrt(D).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

constexpr int kWidth = 32;  // D
constexpr int kVocabulary = 4096;
constexpr int kMaxTokens = 256;
constexpr double kStd = 0.17677669529663687;  // 1 / sqrt(D)

using Vector = std::array<double, kWidth>;
using Tokens = std::vector<int>;

// Lower-case words and single punctuation marks, each hashed to an id.
Tokens tokenize(std::string_view text);

Vector word_vector(int token);

// Returns the sum of the tokens' vectors, scaled to length 1, or zeros.
Vector bag(const Tokens& tokens);

// Sums each pair alone and in a fixed order, so that its bits do not depend on the other pairs of the call.
float score(const Vector& m, const Vector& text, const Vector& label);

// Replaces a fraction `rate` of the tokens by tokens drawn uniformly from the vocabulary.
void perturb(std::span<int> tokens, double rate, std::uint64_t seed);

// A digest of everything on which scores depend.
std::string revision();

// The first 32 hexadecimal digits of the SHA-256.
std::string digest(std::string_view bytes);
