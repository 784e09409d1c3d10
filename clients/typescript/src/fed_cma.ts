// fed-cma: the losses of the round's candidates, or the expansion of the loss that a Newton step needs.

import { finite } from "./criterion.js";
import { derive, normals } from "./draws.js";
import type { FedCmaSettings } from "./generated/fedbbpt/v1/FedCmaSettings.js";
import { withReadout, type ClientHalf, type Task } from "./methods.js";
import type { Vector } from "./spaces.js";
import { need, type Arrays } from "./tensors.js";
import type { Found } from "./travelling.js";

/** Returns the client's half of fed-cma. */
export function fedCma(settings: FedCmaSettings): ClientHalf {
  return async (task, objectives) => {
    const draw = derive(task.seed, task.clientId, 0);
    const weight = objectives.weight;
    const { offsets } = objectives.scorer.space;
    const complete = (candidates: Vector[]) => candidates.map((z) => withReadout(z, task.arrays));
    if (!settings.expansionSent) {
      const losses = finite(await objectives.loss(complete(candidatesOf(settings, task)), draw));
      return { weight, arrays: new Map([["losses", { shape: [losses.length], numbers: losses }]]) };
    }
    const drawn = near(task.arrays, task.seed, settings.population, offsets);
    const found = await objectives.expansion(complete([need(task.arrays, "mean").numbers(), ...drawn]), draw);
    const [mean, center] = finite(found.losses.subarray(0, 2));
    return expansionUpdate(weight, mean, center, found.gradient, found.hessian);
  };
}

function expansionUpdate(weight: number, mean: number, center: number, gradient: Vector, hessian: Vector): Found {
  return {
    weight,
    arrays: new Map([
      ["loss", { shape: [1], numbers: Float64Array.of(mean) }],
      ["decrease", { shape: [1], numbers: Float64Array.of(center - mean) }],
      ["gradient", { shape: [gradient.length], numbers: gradient }],
      ["hessian", { shape: [hessian.length], numbers: hessian }],
    ]),
  };
}

function candidatesOf(settings: FedCmaSettings, task: Task): Vector[] {
  const { population } = settings;
  if (settings.candidatesSent) {
    const sent = need(task.arrays, "candidates").numbers();
    const n = sent.length / population;
    return Array.from({ length: population }, (_, p) => sent.slice(p * n, (p + 1) * n));
  }
  return sample(need(task.arrays, "mean").numbers(), need(task.arrays, "scale").numbers(), task.seed, population);
}

/** Returns candidates mean + scale D, computed in float64 and rounded to float32. */
export function sample(mean: Vector, scale: Vector, seed: bigint, population: number): Vector[] {
  const drawn = normals(seed, population * mean.length);
  return Array.from({ length: population }, (_, p) =>
    mean.map((m, i) => Math.fround(m + scale[i] * drawn[p * mean.length + i])));
}

/** Returns the candidates of a Newton step: the center, and others around the mean that share its offsets. */
export function near(arrays: Arrays, seed: bigint, population: number, offsets: number): Vector[] {
  const mean = need(arrays, "mean").numbers();
  const [scale] = need(arrays, "scale").numbers();
  const scales = new Float64Array(mean.length).fill(scale, 0, mean.length - offsets);
  return [need(arrays, "center").numbers(), ...sample(mean, scales, seed, population - 1)];
}
