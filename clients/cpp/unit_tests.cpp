// Tests of what docs/protocol.md prescribes, with its vectors. Prints what is wrong; exits with 1 if anything is.

#include <cmath>
#include <iostream>

#include "cmaes.h"
#include "criterion.h"
#include "error.h"
#include "travelling.h"

using namespace fedbbpt::v1;

namespace {

int failures = 0;

void expect(bool holds, const char* claim) {
  if (holds) return;
  ++failures;
  std::cerr << "wrong: " << claim << "\n";
}

bool near(double a, double b, double error) { return std::abs(a - b) <= error; }

std::string hex(const std::string& bytes) {
  static const char* digits = "0123456789abcdef";
  std::string found;
  for (unsigned char c : bytes) found += {digits[c >> 4], digits[c & 15]};
  return found;
}

void test_draws() {
  expect(derive(7, {"generator", "code"}) == 7845913016300791816u, "derive takes the first bytes of a digest of lines");
  expect(hex(stream(7, 16)) == "d2c50d9e3b10bdeb0fe26b0b8dd347e2", "the stream is SHAKE-256 of the seed");
  std::vector<int> expected = {-1, 1, -1, -1, 1, -1, 1, 1, 1, -1, 1, -1, -1, -1, 1, 1};
  expect(signs(7, 16) == expected, "signs read the least significant bit first");
  expect(uniforms(7, 2) == Vector{0.9208536286878859, 0.8839084834429936}, "uniforms use the upper 53 bits");
  Vector odd = normals(7, 3), even = normals(7, 4);
  bool drawn = near(odd[0], 0.302763005594593, 1e-15) && near(odd[1], -0.2706343033864904, 1e-15);
  expect(drawn, "normals are Box-Muller's");
  expect(odd.size() == 3 && odd[2] == even[2], "an odd count of normals leaves out the last pair's second number");
  expect(crc32c("123456789") == 0xe3069283u, "the checksum is that of Castagnoli");
  expect(near(expected_length(3), 2 * std::sqrt(2 / M_PI), 1e-15), "the expected length of three normals");
}

void test_formats() {
  for (uint16_t bits = 0; bits < 0x7c00; ++bits)
    expect(to_float16(from_float16(bits)) == bits, "float16 decodes to what it encodes");
  expect(to_float16(65519) == 0x7bff && to_float16(65520) == 0x7c00, "float16 overflows halfway to the next power");
  expect(to_float16(1 + 0x1p-11) == 0x3c00 && to_float16(1 + 3 * 0x1p-11) == 0x3c02, "float16 rounds ties to even");
  expect(to_float16(-0x1p-25) == 0x8000 && to_float16(0x1p-24) == 1, "float16 has subnormal numbers");
}

void test_codecs() {
  Rounding halves = [](size_t count) { return Vector(count, 0.5); };
  Found found;
  found.arrays["mean"] = {{8}, {0.5, -2, 0.25, 1, 0, 0.125, -0.75, 0}};
  Lost lost;
  Arrays sent = travelling(found, {}, CodecChain({CODEC_TOP_K, CODEC_FLOAT16}, 0.25, "mean"), halves, lost);
  expect(hex(sent["mean"].bytes) == "0a00c0003c", "the largest numbers travel");
  expect(lost["mean"] == Vector{0.5, 0, 0.25, 0, 0, 0.125, -0.75, 0}, "what has not arrived is kept");
  Plain plain{{13}, {}};
  for (int i = 0; i < 13; ++i) plain.numbers.push_back(3 * std::sin(i));
  std::vector<std::pair<std::vector<Link>, double>> chains = {
      {{CODEC_FLOAT32}, 2e-7}, {{CODEC_FLOAT16}, 1e-3}, {{CODEC_BFLOAT16}, 1e-2},
      {{CODEC_INT8}, 0.05},    {{CODEC_INT4}, 0.9},     {{CODEC_ROTATE, CODEC_INT8}, 0.1}};
  for (const auto& [links, error] : chains) {
    CodecChain codec(links);
    Vector back = codec.decode("mean", codec.encode("mean", plain, halves), plain.shape);
    for (size_t i = 0; i < 13; ++i) expect(near(back[i], plain.numbers[i], error), "a codec decodes what it encodes");
  }
  expect(unit(1) == 1 && unit(3) == 2 && unit(4866) == 4096 && unit(0.3) == 0.25, "the unit is a power of two");
}

void test_criterion() {
  Scores broken{1, 2, 2, {NAN, 0, 0, 1}}, equal{1, 2, 2, {1, 1, 1, 1}};
  expect(std::isinf(cross_entropies(broken, {0, 1})[0][0]), "a score that is not a number makes the loss infinite");
  expect(correct(broken, {0, 1})[0] == 1 && correct(equal, {0, 1})[0] == 1, "the first of equal scores is the answer");
  expect(finite({1, NAN, 2}) == Vector{1, 100, 2}, "100 stands for a loss that is not finite");
  expect(finite({1, INFINITY, 200}) == Vector{1, 200, 200}, "or the worst finite loss, if it is larger");
  Scores scores{2, 2, 3, {0.3f, -0.2f, 1.1f, 0.5f, 0.1f, 0.9f, -0.4f, 0.2f, 0.7f, 0.6f, -1, 0.4f}};
  auto loss = [&](double a) {
    double sum = 0;
    for (size_t b = 0; b < 2; ++b) {
      Vector mixed;
      const float *base = scores.at(0, b), *other = scores.at(1, b);
      for (size_t k = 0; k < 3; ++k) mixed.push_back(base[k] + a * (other[k] - base[k]));
      sum += cross_entropy(mixed.data(), 3, b == 0 ? 2 : 0);
    }
    return sum / 2;
  };
  Expansion found = expansion(scores, {2, 0}, 3, 0.25);
  expect(near(found.gradient[0], (loss(1e-4) - loss(-1e-4)) / 2e-4, 1e-6), "the gradient is the slope of the loss");
  double curvature = (loss(1e-4) - 2 * loss(0) + loss(-1e-4)) / 1e-8;
  expect(near(found.hessian[0], curvature, 1e-4) && found.hessian.size() == 10, "the Hessian is its curvature");
}

}  // namespace

int main() {
  test_draws();
  test_formats();
  test_codecs();
  test_criterion();
  std::cout << (failures ? "there are failures\n" : "all tests pass\n");
  return failures ? 1 : 0;
}
