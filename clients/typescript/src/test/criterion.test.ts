// Losses, right answers and the expansion.

import assert from "node:assert/strict";
import { test } from "node:test";

import { correct, crossEntropies, expansion, finite, type Scores } from "../criterion.js";

const scores = (prompts: number, examples: number, classes: number, values: number[]): Scores =>
  ({ prompts, examples, classes, values: Float32Array.from(values) });

test("equal scores cost the logarithm of the number of classes", () => {
  assert.deepEqual([...crossEntropies(scores(1, 1, 2, [3, 3]), [1])[0]], [Math.log(2)]);
});

test("a score that is not a number makes the loss infinite and the answer wrong", () => {
  const broken = scores(1, 2, 2, [NaN, 0, 0, 1]);
  assert.deepEqual([...crossEntropies(broken, [0, 1])[0]].map(Number.isFinite), [false, true]);
  assert.deepEqual(correct(broken, [0, 1]), [1]);
});

test("the first of equal scores is the answer", () => {
  assert.deepEqual(correct(scores(1, 2, 2, [1, 1, 1, 1]), [0, 1]), [1]);
});

test("losses that are not finite become 100 or the worst finite one", () => {
  assert.deepEqual([...finite([1, NaN, 2])], [1, 100, 2]);
  assert.deepEqual([...finite([1, Infinity, 200])], [1, 200, 200]);
});

test("the derivatives of the expansion are those of the loss", () => {
  const values = [0.3, -0.2, 1.1, 0.5, 0.1, 0.9, -0.4, 0.2, 0.7, 0.6, -1, 0.4];
  const labels = [2, 0];
  const loss = (a: number, b: number) => {
    const mixed = Array.from({ length: 6 }, (_, i) =>
      values[i] + a * (values[6 + i] - values[i]) + (i % 3 === 1 ? 0.25 * b : 0));
    const each = crossEntropies({ prompts: 1, examples: 2, classes: 3, values: mixed as never }, labels)[0];
    return (each[0] + each[1]) / 2;
  };
  const found = expansion(scores(2, 2, 3, values), labels, 3, 0.25);
  const step = 1e-4;
  const slope = (loss(step, 0) - loss(-step, 0)) / (2 * step);
  const curvature = (loss(step, 0) - 2 * loss(0, 0) + loss(-step, 0)) / step ** 2;
  const cross = (loss(step, step) - loss(step, -step) - loss(-step, step) + loss(-step, -step)) / (4 * step ** 2);
  assert.ok(Math.abs(found.gradient[0] - slope) < 1e-6);
  assert.ok(Math.abs(found.hessian[0] - curvature) < 1e-4);
  assert.ok(Math.abs(found.hessian[2] - cross) < 1e-4);
  assert.equal(found.hessian.length, 10);
});
