// Draws that both ends of a run make: docs/protocol.md, "Draws that both ends make".

import { createHash } from "node:crypto";

/** Returns the 64-bit seed of a place in the run, under another seed. */
export function derive(seed: bigint, ...parts: (string | number | bigint)[]): bigint {
  const text = [seed, ...parts].map(String).join("\n");
  return createHash("sha256").update(text).digest().readBigUInt64LE(0);
}

/** Returns the first bytes of SHAKE-256 over the seed. */
export function stream(seed: bigint, length: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(seed);
  // A stream of no bytes is asked for where a population has no candidates to draw.
  return length ? createHash("shake256", { outputLength: length }).update(bytes).digest() : Buffer.alloc(0);
}

/** Returns +1 for each bit that is 1 and -1 for each that is 0, least significant first in each byte. */
export function signs(seed: bigint, count: number): Int8Array {
  const bytes = stream(seed, Math.ceil(count / 8));
  return Int8Array.from({ length: count }, (_, i) => ((bytes[i >> 3] >> (i & 7)) & 1 ? 1 : -1));
}

/** Returns uniform numbers in (0, 1). */
export function uniforms(seed: bigint, count: number): Float64Array {
  const bytes = stream(seed, 8 * count);
  return Float64Array.from({ length: count }, (_, i) =>
    (Number(bytes.readBigUInt64LE(8 * i) >> 11n) + 0.5) / 2 ** 53);
}

/** Returns numbers from N(0, 1) by Box-Muller. An odd count leaves out the last pair's second number. */
export function normals(seed: bigint, count: number): Float64Array {
  const pairs = Math.ceil(count / 2);
  const drawn = new Float64Array(2 * pairs);
  const uniform = uniforms(seed, 2 * pairs);
  for (let i = 0; i < drawn.length; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(uniform[i]));
    const angle = 2 * Math.PI * uniform[i + 1];
    drawn[i] = radius * Math.cos(angle);
    drawn[i + 1] = radius * Math.sin(angle);
  }
  return drawn.subarray(0, count);
}

/** Returns an order of 0 to count - 1, drawn by Fisher and Yates. It concerns this client alone. */
export function permutation(seed: bigint, count: number): number[] {
  const order = Array.from({ length: count }, (_, i) => i);
  const uniform = uniforms(seed, count);
  for (let i = count - 1; i > 0; i -= 1) {
    const j = Math.floor(uniform[i] * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
