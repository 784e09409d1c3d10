// The arrays of an update in the form in which they travel: times the weight, as differences, scaled, and encoded.
#pragma once

#include <map>
#include <optional>

#include "codecs.h"

// What a method found.
struct Found {
  double weight = 1;
  std::map<std::string, Plain> arrays;
  std::optional<Array> orders;  // the rankings of candidates, which every codec sends unchanged
  bool sums = false;             // whether the arrays are sums over examples, which need no weight
};

// What CODEC_TOP_K has not sent yet, by the name of the array.
using Lost = std::map<std::string, Vector>;

// Returns the largest power of two that is at most the weight.
double unit(double weight);
// Returns the encoded arrays of an update, and replaces what the codec has lost.
Arrays travelling(const Found& found, const Arrays& broadcast, const CodecChain& codec, const Rounding& rounding,
                  Lost& lost);
