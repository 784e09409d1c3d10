// CRC-32C (Castagnoli), the checksum of arrays and of chunks.

import { Crc32c } from "@aws-crypto/crc32c";

/** Returns the CRC-32C of all parts together. */
export function crc32c(...parts: Uint8Array[]): number {
  const checksum = new Crc32c();
  for (const part of parts) checksum.update(part);
  return checksum.digest();
}
