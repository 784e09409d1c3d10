// The vectors of docs/protocol.md, "Draws that both ends make".

import assert from "node:assert/strict";
import { test } from "node:test";

import { derive, normals, signs, stream, uniforms } from "../draws.js";
import { expectedLength } from "../cmaes.js";

test("derive takes the first bytes of a digest of lines", () => {
  assert.equal(derive(7n, "generator", "code"), 7845913016300791816n);
});

test("the stream is SHAKE-256 of the seed", () => {
  assert.equal(stream(7n, 16).toString("hex"), "d2c50d9e3b10bdeb0fe26b0b8dd347e2");
});

test("signs read the least significant bit first", () => {
  assert.deepEqual([...signs(7n, 16)], [-1, 1, -1, -1, 1, -1, 1, 1, 1, -1, 1, -1, -1, -1, 1, 1]);
});

test("uniforms use the upper 53 bits", () => {
  assert.deepEqual([...uniforms(7n, 2)], [0.9208536286878859, 0.8839084834429936]);
});

test("an odd count of normals leaves out the last pair's second number", () => {
  const drawn = normals(7n, 3);
  assert.equal(drawn.length, 3);
  assert.ok(Math.abs(drawn[0] - 0.302763005594593) < 1e-15);
  assert.ok(Math.abs(drawn[1] + 0.2706343033864904) < 1e-15);
  assert.deepEqual([...normals(7n, 4).subarray(0, 3)], [...drawn]);
});

test("the expected length of normals approaches the root of n", () => {
  assert.ok(Math.abs(expectedLength(1) - Math.sqrt(2 / Math.PI)) < 1e-15);
  assert.ok(Math.abs(expectedLength(3) - 2 * Math.sqrt(2 / Math.PI)) < 1e-15);
  assert.ok(Math.abs(expectedLength(1000) / Math.sqrt(1000) - 1) < 1e-3);
});
