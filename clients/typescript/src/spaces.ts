// The spaces that a run searches: how z becomes prompts, and what of it changes the scores of the classes.

import { FedbbptError } from "./errors.js";
import type { TaskSettings } from "./generated/fedbbpt/v1/TaskSettings.js";
import type { Prompts } from "./ptm.js";
import { Tensor } from "./tensors.js";

/** The change of a score per unit of an offset's entry of z. */
export const OFFSET_SCALE = 0.25;

/** A candidate z, or a part of it. */
export type Vector = Float64Array;

/** The space of the entries of z that make a prompt and offsets. */
export interface PromptSpace {
  /** The length of z without a readout. */
  dim: number;
  /** The number of the last entries that are offsets. */
  offsets: number;
  /** The number of tokens that examples leave free for prompts. */
  tokens: number;
  /** Returns the prompts of candidates; null if the space has none. */
  prompts(candidates: readonly Vector[]): Prompts | null;
  /** The size of one prompt in a message, in bytes. */
  promptBytes: number;
}

/** Returns the space of a run's prompts. Throws UnsupportedPrompt for one that this client does not have. */
export function promptSpace(task: TaskSettings): PromptSpace {
  switch (task.prompt) {
    case "latent": return latentSpace(task);
    case "text": return textSpace(task);
    case "none":
      return { dim: 0, offsets: 0, tokens: task.none?.room ?? 0, promptBytes: 0, prompts: () => null };
    default:
      throw new FedbbptError("UnsupportedPrompt", `this client has no prompts of the kind ${String(task.prompt)}`,
        "task.prompt", "the client of the Python package");
  }
}

function latentSpace(task: TaskSettings): PromptSpace {
  const { dim, offsets, projection } = task.latent!;
  const length = dim - offsets;
  const placed = projection?.injection !== "INJECTION_CLASS";
  return {
    dim,
    offsets,
    tokens: placed ? (projection?.tokens ?? 0) : 0,
    promptBytes: 4 * length,
    prompts(candidates) {
      const numbers = new Float64Array(candidates.length * length);
      candidates.forEach((z, row) => numbers.set(z.subarray(0, length), row * length));
      const z = Tensor.of("D_TYPE_FLOAT32", [candidates.length, length], numbers);
      return { latent: { z: z.message(), projection } };
    },
  };
}

function textSpace(task: TaskSettings): PromptSpace {
  const { dim, candidates: words, promptTokens } = task.text!;
  const longest = words.reduce((most, word) => Math.max(most, Buffer.byteLength(word)), 0);
  return {
    dim,
    offsets: 0,
    tokens: promptTokens,
    promptBytes: dim * (longest + 1),
    prompts: (candidates) => ({ text: { texts: candidates.map((z) => Array.from(z, (i) => words[i]).join(" ")) } }),
  };
}

/** The readout at the end of z, in runs with views: D and in the last column b, row-major [K, C + 1]. */
export interface ReadoutSpace {
  views: readonly string[];
  /** K, the number of classes. */
  classes: number;
  /** V, the number of texts that the model scores. */
  columns: number;
  /** C, the number of scores that the readout takes. */
  width: number;
}

/** Returns the readout of a run; null if it has none. */
export function readoutSpace(task: TaskSettings): ReadoutSpace | null {
  if (!task.views.length) return null;
  const columns = task.classes.length + task.columns.length;
  const width = (task.views.length + (task.prompt === "none" ? 0 : 1)) * columns;
  return { views: task.views, classes: task.classes.length, columns, width };
}

/** Returns whether a readout uses the scores under the prompt of z, its last V columns. */
export function usesPrompt(space: ReadoutSpace, readout: Vector): boolean {
  const fixed = space.views.length * space.columns;
  for (let k = 0; k < space.classes; k += 1) {
    for (let c = fixed; c < space.width; c += 1) if (readout[k * (space.width + 1) + c] !== 0) return true;
  }
  return false;
}
