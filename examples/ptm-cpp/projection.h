// The entries of a projection A out of its seed, as docs/protocol.md ("Draws that both ends make") has them.
#pragma once

#include <cstdint>
#include <vector>

constexpr long kMaxProjection = 1L << 21;  // elements of A, which takes 32 MiB on its way

std::vector<double> signs(std::uint64_t seed, long count);
std::vector<double> normals(std::uint64_t seed, long count);
