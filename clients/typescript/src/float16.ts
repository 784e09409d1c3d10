// The narrow formats of floating-point numbers, which JavaScript of this age has no types for.

const LARGEST_FLOAT16 = 65504;

/** Returns the nearest number to x, the even one of two. */
export function roundToEven(x: number): number {
  const below = Math.floor(x);
  const fraction = x - below;
  if (fraction !== 0.5) return fraction < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

/** Returns the bits of the float16 nearest to x; those of infinity if x is too large. */
export function toFloat16(x: number): number {
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0;
  const size = Math.abs(x);
  if (Number.isNaN(x)) return 0x7e00;
  let exponent = Math.max(-14, Math.min(15, Math.floor(Math.log2(size || 2 ** -14))));
  if (exponent > -14 && 2 ** exponent > size) exponent -= 1; // log2 may round up to the next power
  if (exponent < 15 && 2 ** (exponent + 1) <= size) exponent += 1;
  const steps = roundToEven(size / 2 ** (exponent - 10)); // 1024 to 2048, or less for subnormal numbers
  // Steps of 2048 carry into the exponent, as they do in the encoding.
  const bits = ((exponent + 14) << 10) + steps;
  return sign | (size > LARGEST_FLOAT16 && bits >= 0x7c00 ? 0x7c00 : Math.min(bits, 0x7c00));
}

/** Returns the number of a float16's bits. */
export function fromFloat16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24);
}

const word = new DataView(new ArrayBuffer(4));

/** Returns the upper two bytes of x as float32, rounded to the nearest and the even one of two. */
export function toBfloat16(x: number): number {
  word.setFloat32(0, x);
  const bits = word.getUint32(0);
  return Math.floor((bits + 0x7fff + ((bits >>> 16) & 1)) / 0x10000) & 0xffff;
}

/** Returns the number whose upper two bytes as float32 these are. */
export function fromBfloat16(bits: number): number {
  word.setUint32(0, bits << 16);
  return word.getFloat32(0);
}
