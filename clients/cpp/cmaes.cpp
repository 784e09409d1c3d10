#include "cmaes.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "tensors.h"

namespace {

// The strategy parameters, by their names in docs/protocol.md.
struct Constants {
  Vector weights;
  double m, a, d, b, u, v, length;
};

Constants constants(double n, double population, double speed) {
  Constants k{};
  double sum = 0, squares = 0;
  for (int i = 1; i <= int(population / 2); ++i) k.weights.push_back(std::log((population + 1) / 2) - std::log(i));
  for (double w : k.weights) sum += w;
  for (double& w : k.weights) {
    w /= sum;
    squares += w * w;
  }
  double m = k.m = 1 / squares;
  k.a = (m + 2) / (n + m + 5);
  k.d = 1 + 2 * std::max(0.0, std::sqrt((m - 1) / (n + 1)) - 1) + k.a;
  k.b = (4 + m / n) / (n + 4 + 2 * m / n);
  k.u = std::min(1.0, speed * 2 / ((n + 1.3) * (n + 1.3) + m));
  k.v = std::min(1 - k.u, speed * 2 * (0.25 + m + 1 / m - 2) / ((n + 2) * (n + 2) + m));
  k.length = expected_length(size_t(n));
  return k;
}

double norm(const Vector& z) { return std::sqrt(std::inner_product(z.begin(), z.end(), z.begin(), 0.0)); }

Vector shortened(Vector z, double limit) {
  double factor = std::max(norm(z) / limit, 1.0);
  for (double& x : z) x /= factor;
  return z;
}

// A covariance C, up to the step size.
struct Form {
  virtual ~Form() = default;
  // Returns C^1/2 z.
  virtual Vector spread(const Vector& z) const = 0;
  // Returns y as it would be under C = 1.
  virtual Vector whitened(const Vector& y) const = 0;
  // Sets C to kept C + u q q' + the sum of v w_i y_i y_i'.
  virtual void update(double kept, const Vector& q, const Constants& k, const std::vector<Vector>& ys) = 0;
};

struct DiagonalForm : Form {
  explicit DiagonalForm(size_t n) : c(n, 1.0) {}

  Vector spread(const Vector& z) const override {
    Vector found(z);
    for (size_t j = 0; j < c.size(); ++j) found[j] = std::sqrt(c[j]) * z[j];
    return found;
  }

  Vector whitened(const Vector& y) const override {
    Vector found(y);
    for (size_t j = 0; j < c.size(); ++j) found[j] = y[j] / std::sqrt(c[j]);
    return found;
  }

  void update(double kept, const Vector& q, const Constants& k, const std::vector<Vector>& ys) override {
    for (size_t j = 0; j < c.size(); ++j) {
      double squares = 0;
      for (size_t i = 0; i < ys.size(); ++i) squares += k.v * k.weights[i] * ys[i][j] * ys[i][j];
      c[j] = kept * c[j] + k.u * q[j] * q[j] + squares;
    }
  }

  Vector c;
};

// A full covariance by its Cholesky factor, which each vector changes in O(n^2) (Krause, Arbones, Igel: CMA-ES with
// optimal covariance update and storage complexity, NIPS 2016).
struct FullForm : Form {
  explicit FullForm(size_t n) : rows(n, Vector(n)) {
    for (size_t i = 0; i < n; ++i) rows[i][i] = 1;
  }

  Vector spread(const Vector& z) const override {
    Vector found(z.size());
    for (size_t i = 0; i < z.size(); ++i)
      for (size_t j = 0; j <= i; ++j) found[i] += rows[i][j] * z[j];
    return found;
  }

  Vector whitened(const Vector& y) const override {
    Vector found(y);
    for (size_t i = 0; i < y.size(); ++i) {
      for (size_t j = 0; j < i; ++j) found[i] -= rows[i][j] * found[j];
      found[i] /= rows[i][i];
    }
    return found;
  }

  void update(double kept, const Vector& q, const Constants& k, const std::vector<Vector>& ys) override {
    for (Vector& row : rows)
      for (double& x : row) x *= std::sqrt(kept);
    add(q, k.u);
    for (size_t i = 0; i < ys.size(); ++i) add(ys[i], k.v * k.weights[i]);
  }

  // Changes the factor of C to that of C + weight x x'.
  void add(Vector x, double weight) {
    for (double& each : x) each *= std::sqrt(weight);
    for (size_t j = 0; j < x.size(); ++j) {
      double before = rows[j][j], after = std::hypot(before, x[j]), c = after / before, s = x[j] / before;
      rows[j][j] = after;
      for (size_t i = j + 1; i < x.size(); ++i) {
        rows[i][j] = (rows[i][j] + s * x[i]) / c;
        x[i] = c * x[i] - s * rows[i][j];
      }
    }
  }

  std::vector<Vector> rows;
};

// The evolution paths, the step size and the form of a search.
struct State {
  Vector mean;
  double sigma;
  Vector p, q;
  std::unique_ptr<Form> form;
};

void tell(State& state, const Constants& k, const std::vector<Vector>& best, size_t generation, bool adapts) {
  size_t n = state.mean.size();
  Vector y(n);
  std::vector<Vector> ys(best.size(), Vector(n));
  for (size_t i = 0; i < best.size(); ++i)
    for (size_t j = 0; j < n; ++j) {
      ys[i][j] = (best[i][j] - state.mean[j]) / state.sigma;
      y[j] += k.weights[i] * ys[i][j];
    }
  Vector whitened = state.form->whitened(y);
  double gain = std::sqrt(k.a * (2 - k.a) * k.m);
  for (size_t j = 0; j < n; ++j) {
    state.mean[j] += state.sigma * y[j];
    state.p[j] = (1 - k.a) * state.p[j] + gain * whitened[j];
  }
  double length = norm(state.p);
  state.sigma *= std::exp(std::min(1.0, k.a / k.d * (length / k.length - 1)));
  if (!adapts) return;
  double unbiased = length / std::sqrt(1 - std::pow(1 - k.a, 2.0 * double(generation + 1)));
  double h = unbiased < (1.4 + 2 / (double(n) + 1)) * k.length ? 1 : 0;
  for (size_t j = 0; j < n; ++j)
    state.q[j] = (1 - k.b) * state.q[j] + h * std::sqrt(k.b * (2 - k.b) * k.m) * y[j];
  state.form->update(1 - k.u - k.v + k.u * (1 - h) * k.b * (2 - k.b), state.q, k, ys);
}

}  // namespace

double expected_length(size_t n) {
  // By the recurrence E(n + 2) = E(n) (n + 1) / n.
  double found = n % 2 ? std::sqrt(2 / M_PI) : std::sqrt(M_PI / 2);
  for (size_t k = n % 2 ? 1 : 2; k < n; k += 2) found *= double(k + 1) / double(k);
  return found;
}

Searched search(const Search& options) {
  size_t n = options.mean.size();
  bool full = options.covariance == Covariance::kFull, identity = options.covariance == Covariance::kIdentity;
  Constants k = constants(double(n), double(options.population), full ? 1 : identity ? 0 : (double(n) + 2) / 3);
  State state{options.mean, options.sigma, Vector(n), Vector(n), nullptr};
  if (full) state.form = std::make_unique<FullForm>(n);
  else state.form = std::make_unique<DiagonalForm>(n);
  Searched found;
  for (size_t g = 0; g < options.iterations; ++g) {
    found.sigmas.push_back(state.sigma);
    Vector drawn = normals(derive(options.seed, {"generation", std::to_string(g)}), options.population * n);
    std::vector<Vector> candidates;
    for (size_t i = 0; i < options.population; ++i) {
      Vector x = state.form->spread({drawn.begin() + long(i * n), drawn.begin() + long((i + 1) * n)});
      for (size_t j = 0; j < n; ++j) x[j] = state.mean[j] + state.sigma * x[j];
      x = shortened(x, options.limit);
      for (double& each : x) each = to_float32(each);
      candidates.push_back(x);
    }
    Vector losses = options.losses(candidates, g);
    std::vector<size_t> order(losses.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) { return losses[i] < losses[j]; });
    order.resize(k.weights.size());
    std::vector<Vector> best;
    for (size_t i : order) best.push_back(candidates[i]);
    found.orders.push_back(order);
    tell(state, k, best, g, !identity);
  }
  found.mean = shortened(state.mean, options.limit);
  return found;
}
