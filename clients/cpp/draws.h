// Draws that both ends of a run make: docs/protocol.md, "Draws that both ends make".
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

using Vector = std::vector<double>;

// Returns the 64-bit seed of a place in the run, under another seed.
uint64_t derive(uint64_t seed, std::initializer_list<std::string> parts);
// Returns the first bytes of SHAKE-256 over the seed.
std::string stream(uint64_t seed, size_t length);
// Returns +1 for each bit that is 1 and -1 for each that is 0, least significant first in each byte.
std::vector<int> signs(uint64_t seed, size_t count);
// Returns uniform numbers in (0, 1).
Vector uniforms(uint64_t seed, size_t count);
// Returns numbers from N(0, 1) by Box-Muller. An odd count leaves out the last pair's second number.
Vector normals(uint64_t seed, size_t count);
// Returns an order of 0 to count - 1. It concerns this client alone.
std::vector<size_t> permutation(uint64_t seed, size_t count);
// Returns the SHA-256 of bytes.
std::string sha256(const std::string& bytes);
// Returns the CRC-32C (Castagnoli) of bytes.
uint32_t crc32c(const std::string& bytes);
