// Codecs: the example of docs/protocol.md, the bits of each format, and what decodes to what.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Codec } from "../codecs.js";
import { fromFloat16, toFloat16 } from "../float16.js";
import type { Codec as Link } from "../generated/fedbbpt/v1/Codec.js";
import { travelling, unit } from "../travelling.js";

const halves = (count: number) => new Float64Array(count).fill(0.5);

test("float16 rounds to the nearest and the even one of two", () => {
  const bits: [number, number][] = [[0, 0], [1, 0x3c00], [-2, 0xc000], [65504, 0x7bff], [65520, 0x7c00],
    [2 ** -24, 1], [2 ** -25, 0], [1 + 2 ** -11, 0x3c00], [1 + 3 * 2 ** -11, 0x3c02], [0.1, 0x2e66], [1e9, 0x7c00]];
  for (const [x, expected] of bits) assert.equal(toFloat16(x), expected, `${x}`);
  for (let each = 0; each < 0x7c00; each += 1) assert.equal(toFloat16(fromFloat16(each)), each);
});

test("the largest numbers travel, and what has not arrived is kept", () => {
  const codec = new Codec(["CODEC_TOP_K", "CODEC_FLOAT16"], 0.25, "mean");
  const lost = new Map();
  const numbers = Float64Array.of(0.5, -2, 0.25, 1, 0, 0.125, -0.75, 0);
  const found = { weight: 1, arrays: new Map([["mean", { shape: [8], numbers }]]) };
  const encoded = travelling(found, new Map(), codec, halves, lost).get("mean")!;
  assert.equal(encoded.bytes.toString("hex"), "0a00c0003c");
  assert.deepEqual([...lost.get("mean")], [0.5, 0, 0.25, 0, 0, 0.125, -0.75, 0]);
});

const chains: [Link[], number][] = [
  [["CODEC_FLOAT32"], 2e-7], [["CODEC_FLOAT16"], 1e-3], [["CODEC_BFLOAT16"], 1e-2], [["CODEC_INT8"], 0.05],
  [["CODEC_INT4"], 0.9], [["CODEC_ROTATE", "CODEC_INT8"], 0.1],
];
for (const [links, error] of chains) {
  test(`${links.join(" + ")} decodes to about what it encodes`, () => {
    const codec = new Codec(links);
    const numbers = Float64Array.from({ length: 13 }, (_, i) => Math.sin(i) * 3);
    const decoded = codec.decode("mean", codec.encode("mean", { shape: [13], numbers }, halves), [13]);
    numbers.forEach((x, i) => assert.ok(Math.abs(x - decoded[i]) <= error, `${x} and ${decoded[i]}`));
  });
}

test("the unit is the largest power of two that is at most the weight", () => {
  assert.deepEqual([1, 1.5, 2, 3, 4866, 0.3].map(unit), [1, 1, 2, 2, 4096, 0.25]);
});
