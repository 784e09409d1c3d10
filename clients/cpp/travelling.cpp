#include "travelling.h"

#include <cmath>

double unit(double weight) { return std::ldexp(1.0, std::ilogb(weight)); }

Arrays travelling(const Found& found, const Arrays& broadcast, const CodecChain& codec, const Rounding& rounding,
                  Lost& lost) {
  double power = unit(found.weight), scale = found.weight / power;
  Arrays encoded;
  for (const auto& [name, plain] : found.arrays) {
    auto start = broadcast.find(name);
    Vector from;
    if (start != broadcast.end() && start->second.shape == plain.shape) from = start->second.numbers();
    Plain wanted = plain;
    for (size_t i = 0; i < plain.numbers.size(); ++i) {
      double x = found.sums ? plain.numbers[i] : found.weight * plain.numbers[i];
      wanted.numbers[i] = (x - (from.empty() ? 0.0 : found.weight * from[i])) / power;
    }
    bool thin = codec.thins(name);
    if (thin && lost.count(name))
      for (size_t i = 0; i < wanted.numbers.size(); ++i) wanted.numbers[i] += scale * lost[name][i];
    encoded[name] = codec.encode(name, wanted, rounding);
    if (thin) {
      Vector arrived = codec.decode(name, encoded[name], wanted.shape);
      for (size_t i = 0; i < arrived.size(); ++i) arrived[i] = (wanted.numbers[i] - arrived[i]) / scale;
      lost[name] = arrived;
    }
  }
  if (found.orders) encoded["orders"] = *found.orders;
  return encoded;
}
