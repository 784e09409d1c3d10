// Cross-entropy of class scores, the number of right answers, and the expansion that a Newton step needs.

/** The most that stands for a loss that is not finite, unless a finite one is worse. */
const WORST_LOSS = 100;

/** Scores [P, B, K], row-major. They are float32. */
export interface Scores {
  prompts: number;
  examples: number;
  classes: number;
  values: Float32Array;
}

/** Returns log sum exp(s) - s[label] of one example's scores, in nats; infinity if it would be NaN. */
export function crossEntropy(scores: ArrayLike<number>, start: number, classes: number, label: number): number {
  let top = -Infinity;
  for (let k = 0; k < classes; k += 1) {
    if (Number.isNaN(scores[start + k])) return Infinity;
    top = Math.max(top, scores[start + k]);
  }
  let sum = 0;
  for (let k = 0; k < classes; k += 1) sum += Math.exp(scores[start + k] - top);
  const loss = Math.log(sum) - (scores[start + label] - top);
  return Number.isNaN(loss) ? Infinity : loss;
}

/** Returns the cross-entropies [P, B] of prompts on examples. */
export function crossEntropies(scores: Scores, labels: readonly number[]): Float64Array[] {
  const { prompts, examples, classes, values } = scores;
  return Array.from({ length: prompts }, (_, p) =>
    Float64Array.from({ length: examples }, (_, b) =>
      crossEntropy(values, (p * examples + b) * classes, classes, labels[b])));
}

/** Returns the mean of numbers. */
export function mean(numbers: Float64Array): number {
  return numbers.reduce((sum, x) => sum + x, 0) / numbers.length;
}

/** Returns the number of examples with the highest score, the first of equals, at their label, for each prompt. */
export function correct(scores: Scores, labels: readonly number[]): number[] {
  const { prompts, examples, classes, values } = scores;
  return Array.from({ length: prompts }, (_, p) => {
    let right = 0;
    for (let b = 0; b < examples; b += 1) {
      const own = values.subarray((p * examples + b) * classes, (p * examples + b + 1) * classes);
      if (!own.some(Number.isNaN) && own.indexOf(Math.max(...own)) === labels[b]) right += 1;
    }
    return right;
  });
}

/** Returns losses with the worst finite one, or 100 if that is larger, in place of those that are not finite. */
export function finite(losses: ArrayLike<number>): Float64Array {
  const found = Float64Array.from(losses);
  const worst = found.reduce((most, loss) => (Number.isFinite(loss) ? Math.max(most, loss) : most), WORST_LOSS);
  return found.map((loss) => (Number.isFinite(loss) ? loss : worst));
}

/** The loss around a prompt to second order in the mixtures of candidates' scores and in offsets. */
export interface Expansion {
  /** The mean loss of each of the 1 + P prompts. */
  losses: Float64Array;
  /** [Q], Q = P + offsets. */
  gradient: Float64Array;
  /** The rows of the upper triangle, one after the other. */
  hessian: Float64Array;
}

/**
 * Returns the expansion of the mean cross-entropy of S_0 + sum a_i (S_i - S_0) + offsetScale (offsets of a).
 *
 * @param scores of the prompt itself and of P candidates.
 * @param offsets the number of offsets, K or 0.
 */
export function expansion(scores: Scores, labels: readonly number[], offsets: number, offsetScale: number): Expansion {
  const { prompts, examples, classes, values } = scores;
  const losses = Float64Array.from(crossEntropies(scores, labels), mean);
  const size = prompts - 1 + offsets;
  const gradient = new Float64Array(size);
  const full = new Float64Array(size * size);
  const each = examples * classes;
  const isFinite = (p: number) => values.subarray(p * each, (p + 1) * each).every(Number.isFinite);
  const broken = Array.from({ length: prompts }, (_, p) => !isFinite(p));
  if (!broken[0]) {
    const x = Array.from({ length: size }, () => new Float64Array(classes)); // changes of scores per unit of a
    for (let j = 0; j < offsets; j += 1) x[prompts - 1 + j][j] = offsetScale;
    for (let b = 0; b < examples; b += 1) {
      const base = b * classes;
      const p = probabilities(values.subarray(base, base + classes));
      for (let i = 0; i < prompts - 1; i += 1) {
        if (broken[i + 1]) continue;
        for (let k = 0; k < classes; k += 1) x[i][k] = values[(i + 1) * each + base + k] - values[base + k];
      }
      addExample(x, p, labels[b], gradient, full);
    }
  }
  const hessian: number[] = [];
  for (let i = 0; i < size; i += 1) for (let j = i; j < size; j += 1) hessian.push(full[i * size + j] / examples);
  return { losses, gradient: gradient.map((g) => g / examples), hessian: Float64Array.from(hessian) };
}

/** Returns the softmax of scores. */
export function probabilities(scores: ArrayLike<number>): Float64Array {
  const top = Array.from(scores).reduce((most, s) => Math.max(most, s), -Infinity);
  const found = Float64Array.from(scores, (s) => Math.exp(s - top));
  const sum = found.reduce((total, p) => total + p, 0);
  return found.map((p) => p / sum);
}

/** Adds an example's X_i (p - e) and X_i (diag(p) - p p') X_j. */
export function addExample(
  x: readonly Float64Array[], p: Float64Array, label: number, gradient: Float64Array, full: Float64Array,
): void {
  const size = x.length;
  const centred = x.map((row, i) => {
    const expected = row.reduce((sum, value, k) => sum + value * p[k], 0);
    gradient[i] += expected - row[label];
    return row.map((value, k) => (value - expected) * Math.sqrt(p[k]));
  });
  for (let i = 0; i < size; i += 1) {
    for (let j = i; j < size; j += 1) {
      full[i * size + j] += centred[i].reduce((sum, value, k) => sum + value * centred[j][k], 0);
    }
  }
}
