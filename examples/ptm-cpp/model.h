// A linear model in closed form. It knows words, vectors and scores, and nothing of gRPC.
//
// A text is a hashed bag of words, x [D] the unit-length sum of its words' vectors; c_k [D] is a class, made the same
// way. A prompt V [L, D] weighs the text's features by m [D], the sum of its vectors over sqrt(L):
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

// The sum over the tokens at length 1, or zeros.
Vector bag(const Tokens& tokens);

// Sums are made in one order for each pair alone: its bits do not depend on the pairs beside it.
float score(const Vector& m, const Vector& text, const Vector& label);

// A fraction `rate` of the tokens gives way to tokens drawn uniformly from the vocabulary.
void perturb(std::span<int> tokens, double rate, std::uint64_t seed);

// Of all that scores depend on.
std::string revision();

// SHA-256 in hexadecimal digits, the first 32 of them.
std::string digest(std::string_view bytes);
