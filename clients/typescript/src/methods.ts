// The client's half of each method: what it makes of a task.

import { FedbbptError } from "./errors.js";
import { fedBpt } from "./fed_bpt.js";
import { fedCma } from "./fed_cma.js";
import { fedReadout } from "./fed_readout.js";
import type { JoinResponse } from "./generated/fedbbpt/v1/JoinResponse.js";
import type { Objectives } from "./objectives.js";
import type { Vector } from "./spaces.js";
import { need, type Arrays } from "./tensors.js";
import type { Found } from "./travelling.js";

/** A task with its broadcast. */
export interface Task {
  /** The id of the client in draws. */
  clientId: string;
  round: number;
  seed: bigint;
  evaluates: boolean;
  arrays: Arrays;
}

/** The client's half of a method. */
export type ClientHalf = (task: Task, objectives: Objectives) => Promise<Found>;

/** Returns the client's half of a run's method. Throws PluginMissing for a method that this client does not have. */
export function clientHalf(run: JoinResponse): ClientHalf {
  const search = searchOf(run);
  if (run.task?.views.length) return fedReadout(search, run.task);
  if (search) return search;
  throw new FedbbptError("InvalidRequest", "fed-readout without views", "task.views", "at least one");
}

function searchOf(run: JoinResponse): ClientHalf | null {
  const { method } = run;
  switch (method?.method) {
    case "fedCma": return fedCma(method.fedCma!);
    case "fedBpt": return fedBpt(method.fedBpt!);
    case "fedReadout": return null;
    case "extension": {
      const { name, version } = method.extension!;
      throw new FedbbptError("PluginMissing", `the run uses the method ${name} in version ${version}`, "method",
        "a client that has this plug-in");
    }
    default:
      throw new FedbbptError("PluginMissing", `this client does not have the method ${String(method?.method)}`,
        "method", "the client of the Python package");
  }
}

/** Returns the name of the array that clients of a run search from; empty if there is none. */
export function pointOf(run: JoinResponse): string {
  return run.method?.method === "fedBpt" ? "mean" : "";
}

/** Returns whether the method asks the PTM for the scores of each class. */
export function needsScores(run: JoinResponse): boolean {
  return Boolean(run.method?.fedCma?.expansionSent) || (run.method?.fedBpt?.perturbRate ?? 0) > 0;
}

/** Returns the prompt z that a task's round begins with, with the readout that belongs to it. */
export function broadcastPrompt(task: Task): Vector {
  return withReadout(need(task.arrays, "mean").numbers(), task.arrays);
}

/** Returns a candidate followed by the readout of its round, if it has one. */
export function withReadout(z: Vector, arrays: Arrays): Vector {
  const readout = arrays.get("readout");
  return readout ? Float64Array.from([...z, ...readout.numbers()]) : z;
}
