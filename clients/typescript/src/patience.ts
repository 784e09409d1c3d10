// Retries of idempotent calls, with exponential backoff and jitter.

import { setTimeout as pause } from "node:timers/promises";

import { FedbbptError, RETRYABLE } from "./errors.js";
import { log } from "./log.js";

const FIRST_PAUSE_SECONDS = 0.1;
const LONGEST_PAUSE_SECONDS = 5;

/** How a service's calls are repeated. */
export interface Patience {
  /** The service, for the log. */
  name: string;
  /** How long a call is repeated after its first failure, in seconds. */
  seconds: number;
  /** Reasons besides the retryable ones after which a call is made again. */
  also: readonly string[];
  /** Called after each failure, for example to choose another server. */
  failed: () => void;
}

/** Returns the answer of a call, which is repeated while its error is one that waiting mends. */
export async function patiently<T>(patience: Patience, call: () => Promise<T>): Promise<T> {
  let deadline = Infinity;
  let longest = FIRST_PAUSE_SECONDS;
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof FedbbptError) || !error.is(...RETRYABLE, ...patience.also)) throw error;
      const now = Date.now() / 1000;
      if (deadline === Infinity) {
        deadline = now + patience.seconds;
        log.warning(`${patience.name}: ${error.what}; trying again for ${patience.seconds} s`);
      }
      if (now + error.retryAfterSeconds >= deadline) throw error;
      patience.failed();
      await pause(1000 * (error.retryAfterSeconds + Math.random() * longest));
      longest = Math.min(2 * longest, LONGEST_PAUSE_SECONDS);
    }
  }
}
