#include "replay.h"

#include <cstring>

#include "error.h"
#include "methods.h"

using fedbbpt::v1::Replay;

namespace {

// Returns a row of each array.
Arrays row_of(const Arrays& arrays, size_t row) {
  Arrays found;
  for (const auto& [name, array] : arrays) {
    size_t size = array.bytes.size() / size_t(array.shape.at(0));
    found[name] = {array.dtype, {array.shape.begin() + 1, array.shape.end()}, array.bytes.substr(row * size, size)};
  }
  return found;
}

Arrays newton_step(const Arrays& held, const Arrays& news, uint64_t seed, size_t population, size_t offsets) {
  Arrays arrays = held;
  if (need(news, "accepted").numbers().at(0) != 0) {
    arrays["center"] = need(held, "mean");
    arrays["before"] = need(held, "center");
    arrays["drawn"].bytes.assign(reinterpret_cast<const char*>(&seed), sizeof seed);
  }
  uint64_t drawn;
  std::memcpy(&drawn, need(arrays, "drawn").bytes.data(), sizeof drawn);
  Arrays around = {
      {"mean", need(arrays, "center")}, {"center", need(arrays, "before")}, {"scale", need(held, "scale")}};
  Vector center = need(arrays, "center").numbers(), reached = center, mixture = need(news, "mixture").numbers();
  std::vector<Vector> candidates = near(around, drawn, population, offsets);
  size_t n = center.size();
  for (size_t i = 0; i < mixture.size(); ++i)
    for (size_t j = 0; j < n; ++j) {
      double move = i < population ? candidates[i][j] - center[j] : double(j == n - offsets + i - population);
      reached[j] += mixture[i] * move;
    }
  arrays["mean"] = Array::of(fedbbpt::v1::D_TYPE_FLOAT32, need(held, "mean").shape, reached);
  return arrays;
}

}  // namespace

Steps newton_steps(size_t population, size_t offsets) {
  auto broadcast = [](const Arrays& held) {
    Arrays found;
    for (const char* name : {"mean", "center", "scale"}) found[name] = need(held, name);
    return found;
  };
  auto replayed = [=](const Arrays& held, const Arrays& news, uint64_t seed) {
    return newton_step(held, news, seed, population, offsets);
  };
  return {replayed, broadcast};
}

Steps coded_steps(const std::string& point, const CodecChain& codec) {
  auto replayed = [=](const Arrays& held, const Arrays& news, uint64_t) {
    const Array& before = need(held, point);
    Vector reached = before.numbers(), step = codec.decode(point, need(news, "step"), before.shape);
    for (size_t i = 0; i < reached.size(); ++i) reached[i] += step[i];
    Arrays found = news;
    found.erase("step");
    found[point] = Array::of(fedbbpt::v1::D_TYPE_FLOAT32, before.shape, reached);
    return found;
  };
  return {replayed, [](const Arrays& held) { return held; }};
}

std::string digest(const Arrays& arrays, uint64_t seed) {
  std::string text = std::to_string(seed) + "\n";
  for (const auto& [name, array] : arrays) text += array.described(name) + array.bytes;
  return sha256(text).substr(0, 8);
}

Arrays HeldSearch::broadcast(const Replay& replay, const Arrays& arrays, uint64_t seed) {
  try {
    Arrays held = following(replay, arrays);
    std::string after = digest(held, seed);
    if (after != replay.after())
      throw CannotReplay("this machine computes the search to other bits than the coordinator");
    held_ = std::move(held);
    seed_ = seed;
    after_ = after;
    return steps_.broadcast(held_);
  } catch (const Error& error) {
    throw CannotReplay(std::string("the search cannot be read: ") + error.what());
  } catch (const std::out_of_range&) {
    throw CannotReplay("the search cannot be read");
  }
}

Arrays HeldSearch::following(const Replay& replay, const Arrays& arrays) const {
  if (replay.before().empty()) return arrays;
  if (after_.empty() || replay.before() != after_)
    throw CannotReplay("the coordinator continues another search than this client holds");
  if (arrays.empty()) return held_;
  if (!replay.seeds_size()) return steps_.replayed(held_, arrays, seed_);
  Arrays held = steps_.replayed(held_, row_of(arrays, 0), seed_);
  for (int i = 0; i < replay.seeds_size(); ++i)
    held = steps_.replayed(held, row_of(arrays, size_t(i) + 1), replay.seeds(i));
  return held;
}
