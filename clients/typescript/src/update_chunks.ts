// StreamUpdate, the call for updates whose arrays are large.

import type { Channel } from "./channels.js";
import { crc32c } from "./checksums.js";
import { FedbbptError } from "./errors.js";
import type { CoordinatorServiceClient } from "./generated/fedbbpt/v1/CoordinatorService.js";
import type { Receipt } from "./generated/fedbbpt/v1/Receipt.js";
import type { UpdateHeaderInput } from "./generated/fedbbpt/v1/UpdateHeader.js";
import { CHUNK_BYTES } from "./tensors.js";

/** Sends an update in chunks and returns its receipt. */
export async function streamUpdate(
  channel: Channel<CoordinatorServiceClient>, update: UpdateHeaderInput, seconds: number,
): Promise<Receipt> {
  const data = Buffer.from(update.arrays?.data ?? "");
  const header = { ...update, arrays: { ...update.arrays, data: Buffer.alloc(0) } };
  return new Promise((resolve, reject) => {
    const options = { deadline: Date.now() + 1000 * seconds };
    const call = channel.client.streamUpdate(channel.metadata(), options, (error, answer) => {
      if (error) reject(channel.problem(error));
      else if (answer) resolve(answer.receipt);
      else reject(new FedbbptError("WrongService", "an empty answer"));
    });
    call.on("error", () => undefined); // the callback reports it
    call.write({ header });
    for (let offset = 0; offset < data.length; offset += CHUNK_BYTES) {
      const part = data.subarray(offset, offset + CHUNK_BYTES);
      call.write({ chunk: { offset, data: part, crc32c: crc32c(part) } });
    }
    call.end();
  });
}
