// Arrays: their types, their bytes, and the bundles in which they travel.

import { crc32c } from "./checksums.js";
import { FedbbptError } from "./errors.js";
import { fromFloat16, toFloat16 } from "./float16.js";
import type { DType } from "./generated/fedbbpt/v1/DType.js";
import type { Tensor as TensorMessage } from "./generated/fedbbpt/v1/Tensor.js";
import type { TensorBundle, TensorBundleInput } from "./generated/fedbbpt/v1/TensorBundle.js";
import type { TensorChunk } from "./generated/fedbbpt/v1/TensorChunk.js";

/** The largest arrays, in bytes, that travel inside their bundle, and the size of the chunks of larger ones. */
export const CHUNK_BYTES = 256 * 1024;
const MAX_TENSORS = 1024;

interface Format {
  bytes: number;
  /** As NumPy writes the type in a digest. */
  name: string;
  read: (bytes: Buffer, offset: number) => number;
  write: (bytes: Buffer, x: number, offset: number) => unknown;
}

const FORMATS: Partial<Record<DType, Format>> = {
  D_TYPE_FLOAT32: { bytes: 4, name: "<f4", read: (b, o) => b.readFloatLE(o), write: (b, x, o) => b.writeFloatLE(x, o) },
  D_TYPE_FLOAT64: {
    bytes: 8, name: "<f8", read: (b, o) => b.readDoubleLE(o), write: (b, x, o) => b.writeDoubleLE(x, o),
  },
  D_TYPE_FLOAT16: {
    bytes: 2, name: "<f2", read: (b, o) => fromFloat16(b.readUInt16LE(o)),
    write: (b, x, o) => b.writeUInt16LE(toFloat16(x), o),
  },
  D_TYPE_INT8: { bytes: 1, name: "|i1", read: (b, o) => b.readInt8(o), write: (b, x, o) => b.writeInt8(x, o) },
  D_TYPE_UINT8: { bytes: 1, name: "|u1", read: (b, o) => b.readUInt8(o), write: (b, x, o) => b.writeUInt8(x, o) },
  D_TYPE_INT32: { bytes: 4, name: "<i4", read: (b, o) => b.readInt32LE(o), write: (b, x, o) => b.writeInt32LE(x, o) },
  // Numbers beyond 2^53 are read from the bytes where they occur.
  D_TYPE_INT64: {
    bytes: 8, name: "<i8", read: (b, o) => Number(b.readBigInt64LE(o)),
    write: (b, x, o) => b.writeBigInt64LE(BigInt(x), o),
  },
};

/** Returns the number of elements of a shape. */
export function count(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** An array as it travels: a type, a shape, and little-endian bytes in row-major order. */
export class Tensor {
  constructor(
    readonly dtype: DType,
    readonly shape: readonly number[],
    readonly bytes: Buffer,
  ) {}

  /** Returns the numbers in a type, each rounded to the nearest one that it has. */
  static of(dtype: DType, shape: readonly number[], numbers: ArrayLike<number>): Tensor {
    const format = formatOf(dtype, "array");
    const bytes = Buffer.alloc(format.bytes * numbers.length);
    for (let i = 0; i < numbers.length; i += 1) format.write(bytes, numbers[i], format.bytes * i);
    return new Tensor(dtype, shape, bytes);
  }

  /** Returns the array of a message. Throws InvalidTensor if its size does not fit its shape. */
  static from(message: TensorMessage | null | undefined, where: string): Tensor {
    if (!message) throw new FedbbptError("InvalidTensor", "no array", where, "an array");
    const shape = message.shape.map(Number);
    const wanted = count(shape) * formatOf(message.dtype, where).bytes;
    if (message.data.length !== wanted) {
      throw new FedbbptError("InvalidTensor", `${message.data.length} bytes`, where, `${wanted}, as its shape says`);
    }
    return new Tensor(message.dtype, shape, Buffer.from(message.data));
  }

  /** Returns the message of the array. */
  message() {
    return { dtype: this.dtype, shape: [...this.shape], data: this.bytes };
  }

  /** Returns the elements. */
  numbers(): Float64Array {
    const format = formatOf(this.dtype, "array");
    const found = new Float64Array(this.bytes.length / format.bytes);
    for (let i = 0; i < found.length; i += 1) found[i] = format.read(this.bytes, format.bytes * i);
    return found;
  }

  /** Returns the line by which digests and checksums describe the array. */
  described(name: string): string {
    const sizes = this.shape.length === 1 ? `${this.shape[0]},` : this.shape.join(", ");
    return `${name} ${formatOf(this.dtype, name).name} (${sizes})\n`;
  }
}

/** Named arrays. */
export type Arrays = Map<string, Tensor>;

/** Returns an array by its name. Throws InvalidTensor if there is none. */
export function need(arrays: Arrays, name: string): Tensor {
  const found = arrays.get(name);
  if (!found) throw new FedbbptError("InvalidTensor", "is missing", name, "the arrays that the method broadcasts");
  return found;
}

function formatOf(dtype: DType, where: string): Format {
  const format = FORMATS[dtype];
  if (!format) throw new FedbbptError("InvalidTensor", `the type ${dtype}`, where, "a type of tensor.proto");
  return format;
}

/** Returns the bundle of arrays with all of their bytes in it. */
export function bundle(arrays: Arrays): TensorBundleInput & { data: Buffer } {
  const data = Buffer.concat([...arrays.values()].map((array) => array.bytes));
  const tensors = [...arrays].map(([name, array]) => ({ name, dtype: array.dtype, shape: [...array.shape] }));
  return { tensors, totalBytes: data.length, crc32c: crc32c(data), data };
}

/** Assembles the arrays of a bundle from its own bytes, or from the chunks that follow it. */
export class Assembler {
  private parts: Buffer[] = [];
  private length = 0;
  private readonly total: number;

  /** Throws InvalidTensor if the announced sizes do not add up or exceed `limit` bytes. */
  constructor(private readonly announced: TensorBundle, limit: number) {
    this.total = Number(announced.totalBytes);
    const sizes = announced.tensors.map((spec) =>
      count(spec.shape.map(Number)) * formatOf(spec.dtype, spec.name).bytes);
    const needed = sizes.reduce((sum, size) => sum + size, 0);
    if (needed !== this.total || announced.tensors.length > MAX_TENSORS) {
      const what = `${this.total} bytes announced for ${sizes.length} tensors of ${needed}`;
      throw new FedbbptError("InvalidTensor", what, "arrays.total_bytes", "the sum of their sizes");
    }
    if (this.total > limit) {
      throw new FedbbptError("MessageTooLarge", `${this.total} bytes of arrays`, "arrays", `at most ${limit}`);
    }
    if (announced.data.length) this.append(Buffer.from(announced.data));
  }

  /** Whether all bytes are there. */
  get complete(): boolean {
    return this.length === this.total;
  }

  /** Appends a chunk. Throws InvalidTensor for one out of place, ChecksumMismatch. */
  add(chunk: TensorChunk): void {
    if (Number(chunk.offset) !== this.length || !chunk.data.length) {
      throw new FedbbptError("InvalidTensor", `a chunk at byte ${chunk.offset}`, "chunk.offset", `${this.length}`);
    }
    const data = Buffer.from(chunk.data);
    if (crc32c(data) !== chunk.crc32c) {
      throw new FedbbptError("ChecksumMismatch", "the chunk was corrupted in transit", "chunk.crc32c");
    }
    this.append(data);
  }

  private append(data: Buffer): void {
    this.parts.push(data);
    this.length += data.length;
    if (this.length > this.total) {
      throw new FedbbptError("InvalidTensor", "more bytes than announced", "arrays", `${this.total} in all`);
    }
  }

  /** Returns the arrays. Throws ChecksumMismatch, and InvalidTensor for a number that is not finite. */
  arrays(): Arrays {
    const data = Buffer.concat(this.parts);
    if (crc32c(data) !== this.announced.crc32c) {
      throw new FedbbptError("ChecksumMismatch", "the arrays were corrupted in transit", "arrays.crc32c");
    }
    const found: Arrays = new Map();
    let offset = 0;
    for (const spec of this.announced.tensors) {
      const shape = spec.shape.map(Number);
      const size = count(shape) * formatOf(spec.dtype, spec.name).bytes;
      const array = new Tensor(spec.dtype, shape, data.subarray(offset, offset + size));
      if (array.numbers().some((x) => !Number.isFinite(x))) {
        throw new FedbbptError("InvalidTensor", "NaN or infinite elements", spec.name, "finite numbers");
      }
      found.set(spec.name, array);
      offset += size;
    }
    return found;
  }
}
