// Draws the entries of a projection A from its seed, as docs/protocol.md ("Draws that both ends make") specifies.
#pragma once

#include <cstdint>
#include <vector>

constexpr long kMaxProjection = 1L << 21;  // elements of A, which needs 32 MiB while it is drawn

std::vector<double> signs(std::uint64_t seed, long count);
std::vector<double> normals(std::uint64_t seed, long count);
