// Codecs: chains of rotations or CODEC_TOP_K and one format, which make arrays smaller. docs/protocol.md, "Codecs".

import { derive, signs } from "./draws.js";
import { FedbbptError } from "./errors.js";
import { fromBfloat16, toBfloat16 } from "./float16.js";
import type { Codec as Link } from "./generated/fedbbpt/v1/Codec.js";
import { count, Tensor } from "./tensors.js";

/** The links that this client can encode. */
export const LINKS: readonly Link[] = ["CODEC_FLOAT32", "CODEC_FLOAT16", "CODEC_BFLOAT16", "CODEC_INT8", "CODEC_INT4",
  "CODEC_ROTATE", "CODEC_TOP_K"];
/** Arrays of fewer numbers travel as float32 where integers would be used, and are not rotated. */
const SHORT = 8;
const SCALE_BYTES = 4;

/** Numbers in (0, 1), by which integers are rounded up or down. */
export type Rounding = (count: number) => Float64Array;

/** An array before it is encoded. */
export interface Plain {
  shape: readonly number[];
  numbers: Float64Array;
}

/** Encodes and decodes the arrays of a run. */
export class Codec {
  private readonly format: Link;
  private readonly rotations: number;
  /** Whether only the largest numbers of the point travel. */
  readonly sparse: boolean;

  /** `point` names the array that a search starts from, and `kept` is the share of its numbers that travel. */
  constructor(links: readonly Link[], private readonly kept = 1, readonly point = "") {
    const unknown = links.find((link) => !LINKS.includes(link));
    this.format = links[links.length - 1] ?? "CODEC_FLOAT32";
    this.rotations = links.filter((link) => link === "CODEC_ROTATE").length;
    this.sparse = links.includes("CODEC_TOP_K");
    if (unknown !== undefined || this.format === "CODEC_ROTATE" || this.format === "CODEC_TOP_K") {
      throw new FedbbptError("InvalidRequest", `the codec ${links.join(" + ")}`, "codec", "links that were announced");
    }
  }

  /** Returns an array as it travels. */
  encode(name: string, plain: Plain, rounding: Rounding): Tensor {
    if (this.sparse && name === this.point) return this.encodeLargest(name, plain, rounding);
    let found = plain;
    for (let i = 0; i < this.rotations; i += 1) found = rotated(name, found);
    return encoded(this.format, name, found, rounding);
  }

  /** Returns an array of a shape from the form in which it travelled. */
  decode(name: string, array: Tensor, shape: readonly number[]): Float64Array {
    if (this.sparse && name === this.point) return this.decodeLargest(name, array, shape);
    const shapes = [shape];
    for (let i = 0; i < this.rotations; i += 1) shapes.push(rotatedShape(shapes[i]));
    let numbers = decoded(this.format, name, array, shapes[this.rotations]);
    for (let i = this.rotations - 1; i >= 0; i -= 1) numbers = rotatedBack(name, numbers, count(shapes[i]));
    return numbers;
  }

  private keptOf(number: number): number {
    return Math.min(number, Math.ceil(this.kept * number));
  }

  private encodeLargest(name: string, plain: Plain, rounding: Rounding): Tensor {
    const { numbers } = plain;
    const order = Array.from(numbers.keys()).sort((a, b) => Math.abs(numbers[b]) - Math.abs(numbers[a]) || a - b);
    const chosen = order.slice(0, this.keptOf(numbers.length)).sort((a, b) => a - b);
    const mask = Buffer.alloc(Math.ceil(numbers.length / 8));
    for (const i of chosen) mask[i >> 3] |= 1 << (i & 7);
    const largest = { shape: [chosen.length], numbers: Float64Array.from(chosen, (i) => numbers[i]) };
    const bytes = Buffer.concat([mask, encoded(this.format, name, largest, rounding).bytes]);
    return new Tensor("D_TYPE_INT8", [bytes.length], bytes);
  }

  private decodeLargest(name: string, array: Tensor, shape: readonly number[]): Float64Array {
    const number = count(shape);
    const marks = Math.ceil(number / 8);
    const chosen = Array.from({ length: number }, (_, i) => i).filter((i) => (array.bytes[i >> 3] >> (i & 7)) & 1);
    if (chosen.length !== this.keptOf(number)) throw misfit(name, `${chosen.length} numbers are marked`);
    const rest = array.bytes.subarray(marks);
    const short = this.format !== "CODEC_FLOAT16" && chosen.length < SHORT;
    const inner = short || this.format === "CODEC_FLOAT16"
      ? new Tensor(short ? "D_TYPE_FLOAT32" : "D_TYPE_FLOAT16", [chosen.length], rest)
      : new Tensor("D_TYPE_INT8", [rest.length], rest);
    const values = decoded(this.format, name, inner, [chosen.length]);
    const found = new Float64Array(number);
    chosen.forEach((i, at) => { found[i] = values[at]; });
    return found;
  }
}

function misfit(name: string, what: string): FedbbptError {
  return new FedbbptError("InvalidTensor", what, name, "an array as the run's codec encodes it");
}

function encoded(format: Link, name: string, plain: Plain, rounding: Rounding): Tensor {
  const { shape, numbers } = plain;
  switch (format) {
    case "CODEC_FLOAT16": return fitting(name, Tensor.of("D_TYPE_FLOAT16", shape, numbers));
    case "CODEC_BFLOAT16": {
      const bytes = Buffer.alloc(2 * numbers.length);
      numbers.forEach((x, i) => bytes.writeUInt16LE(toBfloat16(x), 2 * i));
      return new Tensor("D_TYPE_INT8", [bytes.length], bytes);
    }
    case "CODEC_INT8": case "CODEC_INT4":
      if (numbers.length >= SHORT) return integers(format === "CODEC_INT8" ? 127 : 7, numbers, rounding);
  }
  return fitting(name, Tensor.of("D_TYPE_FLOAT32", shape, numbers));
}

function fitting(name: string, array: Tensor): Tensor {
  if (array.numbers().every(Number.isFinite)) return array;
  throw new FedbbptError("InvalidTensor", `a number is too large for ${array.dtype}`, name, "a codec of wider range");
}

function integers(levels: number, numbers: Float64Array, rounding: Rounding): Tensor {
  const largest = numbers.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  const scale = largest ? nextFloat32(Math.fround(largest / levels)) : 0;
  const up = rounding(numbers.length);
  const steps = Int8Array.from(numbers, (x, i) => (scale ? Math.floor(x / scale + up[i]) : 0));
  const bytes = Buffer.alloc(SCALE_BYTES + (levels > 7 ? steps.length : Math.ceil(steps.length / 2)));
  bytes.writeFloatLE(scale);
  steps.forEach((step, i) => {
    if (levels > 7) bytes.writeInt8(step, SCALE_BYTES + i);
    else bytes[SCALE_BYTES + (i >> 1)] |= (step & 15) << (i % 2 ? 4 : 0);
  });
  return new Tensor("D_TYPE_INT8", [bytes.length], bytes);
}

/** Returns the next float32 above a positive one, so that no number needs more steps than there are. */
function nextFloat32(x: number): number {
  const word = new DataView(new ArrayBuffer(4));
  word.setFloat32(0, x);
  word.setUint32(0, word.getUint32(0) + 1);
  return word.getFloat32(0);
}

function decoded(format: Link, name: string, array: Tensor, shape: readonly number[]): Float64Array {
  const number = count(shape);
  const { bytes } = array;
  const short = number < SHORT && format !== "CODEC_BFLOAT16";
  const plain = format === "CODEC_FLOAT32" || format === "CODEC_FLOAT16" || short;
  if (plain) {
    const found = array.numbers();
    if (found.length !== number) throw misfit(name, `${found.length} numbers, not ${number}`);
    return found;
  }
  const wanted = format === "CODEC_BFLOAT16" ? 2 * number
    : SCALE_BYTES + (format === "CODEC_INT8" ? number : Math.ceil(number / 2));
  if (bytes.length !== wanted) throw misfit(name, `${bytes.length} bytes, not ${wanted}`);
  if (format === "CODEC_BFLOAT16") {
    return Float64Array.from({ length: number }, (_, i) => fromBfloat16(bytes.readUInt16LE(2 * i)));
  }
  const scale = bytes.readFloatLE(0);
  return Float64Array.from({ length: number }, (_, i) => {
    if (format === "CODEC_INT8") return scale * bytes.readInt8(SCALE_BYTES + i);
    const half = (bytes[SCALE_BYTES + (i >> 1)] >> (i % 2 ? 4 : 0)) & 15;
    return scale * (half > 7 ? half - 16 : half);
  });
}

function rotatedShape(shape: readonly number[]): readonly number[] {
  const number = count(shape);
  return number < SHORT ? shape : [2 ** Math.ceil(Math.log2(number))];
}

function rotated(name: string, plain: Plain): Plain {
  if (plain.numbers.length < SHORT) return plain;
  const shape = rotatedShape(plain.shape);
  const padded = new Float64Array(shape[0]);
  const flips = signsOf(name, shape[0]);
  plain.numbers.forEach((x, i) => { padded[i] = x * flips[i]; });
  return { shape, numbers: hadamard(padded) };
}

function rotatedBack(name: string, numbers: Float64Array, length: number): Float64Array {
  if (length < SHORT) return numbers;
  const flips = signsOf(name, numbers.length);
  return hadamard(numbers).map((x, i) => x * flips[i]).subarray(0, length);
}

function signsOf(name: string, length: number): Int8Array {
  return signs(derive(0n, "rotate", name), length);
}

/** Returns H x / sqrt(m), by log2(m) passes of sums and differences. */
function hadamard(x: Float64Array): Float64Array {
  const y = Float64Array.from(x);
  for (let step = 1; step < y.length; step *= 2) {
    for (let i = 0; i < y.length; i += 2 * step) {
      for (let j = i; j < i + step; j += 1) [y[j], y[j + step]] = [y[j] + y[j + step], y[j] - y[j + step]];
    }
  }
  return y.map((value) => value / Math.sqrt(y.length));
}
