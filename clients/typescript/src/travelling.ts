// The arrays of an update in the form in which they travel: times the weight, as differences, scaled, and encoded.

import type { Codec, Plain, Rounding } from "./codecs.js";
import type { Arrays } from "./tensors.js";
import { count, Tensor } from "./tensors.js";

/** What a method found: arrays that are not yet multiplied by the weight, unless they are sums already. */
export interface Found {
  weight: number;
  arrays: Map<string, Plain>;
  /** The rankings of candidates, which every codec sends unchanged. */
  orders?: Tensor;
  /** Whether the arrays are sums over examples already. */
  sums?: boolean;
}

/** What CODEC_TOP_K has not sent yet, by the name of the array. */
export type Lost = Map<string, Float64Array>;

/** Returns the largest power of two that is at most the weight. */
export function unit(weight: number): number {
  let found = 2 ** Math.floor(Math.log2(weight));
  if (found > weight) found /= 2;
  if (2 * found <= weight) found *= 2;
  return found;
}

/** Returns the encoded arrays of an update, and replaces what the codec has lost. */
export function travelling(found: Found, broadcast: Arrays, codec: Codec, rounding: Rounding, lost: Lost): Arrays {
  const { weight } = found;
  const power = unit(weight);
  const encoded: Arrays = new Map();
  for (const [name, plain] of found.arrays) {
    const start = startOf(name, plain.shape, broadcast);
    let numbers = plain.numbers.map((x, i) =>
      ((found.sums ? x : weight * x) - (start ? weight * start[i] : 0)) / power);
    const sparse = codec.sparse && name === codec.point;
    const scale = weight / power;
    const before = lost.get(name);
    if (sparse && before) numbers = numbers.map((x, i) => x + scale * before[i]);
    const array = codec.encode(name, { shape: plain.shape, numbers }, rounding);
    if (sparse) {
      const arrived = codec.decode(name, array, plain.shape);
      lost.set(name, numbers.map((x, i) => (x - arrived[i]) / scale));
    }
    encoded.set(name, array);
  }
  if (found.orders) encoded.set("orders", found.orders);
  return encoded;
}

/** Returns the numbers of an array of the broadcast with that name and shape, from which a search started. */
function startOf(name: string, shape: readonly number[], broadcast: Arrays): Float64Array | null {
  const found = broadcast.get(name);
  return found && found.shape.join() === shape.join() && count(shape) ? found.numbers() : null;
}
