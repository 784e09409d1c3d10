// Searches of fed-bpt: CMA-ES with a diagonal or identity covariance, as docs/protocol.md prescribes it, or a full one.

import { derive, normals } from "./draws.js";
import type { Vector } from "./spaces.js";

/** What a search found: its final mean, and the step sizes with which its generations were drawn. */
export interface Searched {
  mean: Vector;
  sigmas: Float64Array;
  /** The indices of the mu best candidates of each generation, best first. */
  orders: number[][];
}

/** How a search is made. */
export interface Search {
  mean: Vector;
  sigma: number;
  covariance: "full" | "diagonal" | "identity";
  population: number;
  iterations: number;
  seed: bigint;
  /** The largest Euclidean norm of a candidate; infinity if there is none. */
  limit: number;
  /** Returns the losses of a generation's candidates, all finite. */
  losses: (candidates: Vector[], generation: number) => Promise<Float64Array>;
}

/** The strategy parameters for n dimensions and lambda candidates. */
interface Constants {
  weights: Float64Array;
  m: number;
  a: number;
  d: number;
  b: number;
  u: number;
  v: number;
  length: number;
}

function constants(n: number, population: number, speed: number): Constants {
  const raw = Float64Array.from({ length: Math.floor(population / 2) }, (_, i) =>
    Math.log((population + 1) / 2) - Math.log(i + 1));
  const sum = raw.reduce((total, w) => total + w, 0);
  const weights = raw.map((w) => w / sum);
  const m = 1 / weights.reduce((total, w) => total + w * w, 0);
  const a = (m + 2) / (n + m + 5);
  const u = Math.min(1, (speed * 2) / ((n + 1.3) ** 2 + m));
  return {
    weights,
    m,
    a,
    d: 1 + 2 * Math.max(0, Math.sqrt((m - 1) / (n + 1)) - 1) + a,
    b: (4 + m / n) / (n + 4 + (2 * m) / n),
    u,
    v: Math.min(1 - u, (speed * 2 * (0.25 + m + 1 / m - 2)) / ((n + 2) ** 2 + m)),
    length: expectedLength(n),
  };
}

/** Returns sqrt(2) Gamma((n + 1) / 2) / Gamma(n / 2), by the recurrence E(n + 2) = E(n) (n + 1) / n. */
export function expectedLength(n: number): number {
  let found = n % 2 ? Math.sqrt(2 / Math.PI) : Math.sqrt(Math.PI / 2);
  for (let k = n % 2 ? 1 : 2; k < n; k += 2) found *= (k + 1) / k;
  return found;
}

/** Returns z, scaled down to a Euclidean norm if it is longer. */
export function shortened(z: Vector, limit: number): Vector {
  if (limit === Infinity) return z;
  const factor = Math.max(norm(z) / limit, 1);
  return z.map((x) => x / factor);
}

function norm(z: Vector): number {
  return Math.sqrt(z.reduce((sum, x) => sum + x * x, 0));
}

/** Returns the order of losses, the lower index first among equals. */
export function ranked(losses: Float64Array): number[] {
  return Array.from(losses.keys()).sort((i, j) => losses[i] - losses[j] || i - j);
}

/** Runs a search. */
export async function search(options: Search): Promise<Searched> {
  const n = options.mean.length;
  const speed = { full: 1, diagonal: (n + 2) / 3, identity: 0 }[options.covariance];
  const k = constants(n, options.population, speed);
  const shape = options.covariance === "full" ? new FullShape(n) : new DiagonalShape(n);
  let mean = Float64Array.from(options.mean);
  let { sigma } = options;
  let p = new Float64Array(n);
  let q = new Float64Array(n);
  const sigmas: number[] = [];
  const orders: number[][] = [];
  for (let g = 0; g < options.iterations; g += 1) {
    sigmas.push(sigma);
    const drawn = normals(derive(options.seed, "generation", g), options.population * n);
    const candidates = Array.from({ length: options.population }, (_, i) => {
      const step = shape.spread(drawn.subarray(i * n, (i + 1) * n), sigma);
      return shortened(mean.map((x, j) => x + step[j]), options.limit).map(Math.fround);
    });
    const best = ranked(await options.losses(candidates, g)).slice(0, k.weights.length);
    orders.push(best);
    const ys = best.map((i) => candidates[i].map((x, j) => (x - mean[j]) / sigma));
    const y = new Float64Array(n);
    ys.forEach((step, i) => step.forEach((x, j) => { y[j] += k.weights[i] * x; }));
    mean = mean.map((x, j) => x + sigma * y[j]);
    const whitened = shape.whitened(y);
    const gain = Math.sqrt(k.a * (2 - k.a) * k.m);
    p = p.map((x, j) => (1 - k.a) * x + gain * whitened[j]);
    const length = norm(p);
    sigma *= Math.exp(Math.min(1, (k.a / k.d) * (length / k.length - 1)));
    if (options.covariance === "identity") continue;
    const unbiased = length / Math.sqrt(1 - (1 - k.a) ** (2 * (g + 1)));
    const h = unbiased < (1.4 + 2 / (n + 1)) * k.length ? 1 : 0;
    q = q.map((x, j) => (1 - k.b) * x + h * Math.sqrt(k.b * (2 - k.b) * k.m) * y[j]);
    shape.update(1 - k.u - k.v + k.u * (1 - h) * k.b * (2 - k.b), q, k.u, ys, k.weights.map((w) => k.v * w));
  }
  return { mean: shortened(mean, options.limit), sigmas: Float64Array.from(sigmas), orders };
}

/** A covariance C, up to the step size. */
interface Shape {
  /** Returns sigma C^1/2 z. */
  spread(z: Vector, sigma: number): Vector;
  /** Returns y as it would be under C = 1. */
  whitened(y: Vector): Vector;
  /** Sets C to kept C + u q q' + the sum of v_i y_i y_i'. */
  update(kept: number, q: Vector, u: number, ys: readonly Vector[], v: Float64Array): void;
}

class DiagonalShape implements Shape {
  private c: Float64Array;

  constructor(n: number) {
    this.c = new Float64Array(n).fill(1);
  }

  spread(z: Vector, sigma: number): Vector {
    return z.map((x, j) => sigma * Math.sqrt(this.c[j]) * x);
  }

  whitened(y: Vector): Vector {
    return y.map((x, j) => x / Math.sqrt(this.c[j]));
  }

  update(kept: number, q: Vector, u: number, ys: readonly Vector[], v: Float64Array): void {
    this.c = this.c.map((c, j) => kept * c + u * q[j] ** 2 + ys.reduce((sum, y, i) => sum + v[i] * y[j] ** 2, 0));
  }
}

/**
 * A full covariance by its Cholesky factor, which each vector changes in O(n^2) (Krause, Arbones, Igel: CMA-ES with
 * optimal covariance update and storage complexity, NIPS 2016).
 */
class FullShape implements Shape {
  private readonly rows: Float64Array[];

  constructor(private readonly n: number) {
    this.rows = Array.from({ length: n }, (_, i) => new Float64Array(n).fill(1, i, i + 1));
  }

  spread(z: Vector, sigma: number): Vector {
    return Float64Array.from(this.rows, (row, i) => {
      let sum = 0;
      for (let j = 0; j <= i; j += 1) sum += row[j] * z[j];
      return sigma * sum;
    });
  }

  whitened(y: Vector): Vector {
    const found = new Float64Array(this.n);
    for (let i = 0; i < this.n; i += 1) {
      let rest = y[i];
      for (let j = 0; j < i; j += 1) rest -= this.rows[i][j] * found[j];
      found[i] = rest / this.rows[i][i];
    }
    return found;
  }

  update(kept: number, q: Vector, u: number, ys: readonly Vector[], v: Float64Array): void {
    const factor = Math.sqrt(kept);
    for (const row of this.rows) row.forEach((x, j) => { row[j] = factor * x; });
    this.add(q, u);
    ys.forEach((y, i) => this.add(y, v[i]));
  }

  /** Changes the factor of C to that of C + weight x x'. */
  private add(x: Vector, weight: number): void {
    const rest = x.map((value) => Math.sqrt(weight) * value);
    for (let j = 0; j < this.n; j += 1) {
      const before = this.rows[j][j];
      const after = Math.hypot(before, rest[j]);
      const [c, s] = [after / before, rest[j] / before];
      this.rows[j][j] = after;
      for (let i = j + 1; i < this.n; i += 1) {
        this.rows[i][j] = (this.rows[i][j] + s * rest[i]) / c;
        rest[i] = c * rest[i] - s * this.rows[i][j];
      }
    }
  }
}
