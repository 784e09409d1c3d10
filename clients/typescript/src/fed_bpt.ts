// fed-bpt (FedBPT, arXiv 2310.01467): the client runs a CMA-ES of its own from the broadcast distribution.

import { search } from "./cmaes.js";
import { finite, mean } from "./criterion.js";
import { derive } from "./draws.js";
import { FedbbptError } from "./errors.js";
import type { FedBptSettings } from "./generated/fedbbpt/v1/FedBptSettings.js";
import { withReadout, type ClientHalf, type Task } from "./methods.js";
import type { Objectives } from "./objectives.js";
import type { Vector } from "./spaces.js";
import { need, Tensor } from "./tensors.js";

/** The least divisor in the perturbed objective, in nats. */
const LEAST_PERTURBED_LOSS = 1e-6;

/** Returns the client's half of fed-bpt. */
export function fedBpt(settings: FedBptSettings): ClientHalf {
  const full = settings.localCovariance === "COVARIANCE_FULL";
  if (full && settings.commonSeed) {
    const what = "all clients of this run must draw the same candidates of a full covariance, so all run one program";
    throw new FedbbptError("PluginMissing", what, "method.common_seed", "the client of the Python package");
  }
  return async (task, objectives) => {
    const seed = settings.commonSeed ? task.seed : derive(task.seed, task.clientId);
    const losses = objectiveOf(settings, task, seed, objectives);
    const found = await search({
      mean: need(task.arrays, "mean").numbers(),
      sigma: need(task.arrays, "sigma").numbers()[0],
      covariance: full ? "full" : settings.localCovariance === "COVARIANCE_DIAGONAL" ? "diagonal" : "identity",
      population: settings.localPopulation,
      iterations: settings.localIterations,
      seed,
      limit: task.arrays.get("limit")?.numbers()[0] ?? Infinity,
      losses,
    });
    const loss = { shape: [1], numbers: await losses([found.mean], settings.localIterations) };
    if (settings.ordersSent) {
      const shape = [settings.localIterations, Math.floor(settings.localPopulation / 2)];
      const orders = Tensor.of("D_TYPE_UINT8", shape, found.orders.flat());
      return { weight: 1, arrays: new Map([["loss", loss]]), orders };
    }
    return {
      weight: 1,
      arrays: new Map([
        ["mean", { shape: [found.mean.length], numbers: found.mean }],
        ["sigmas", { shape: [found.sigmas.length], numbers: found.sigmas }],
        ["loss", loss],
      ]),
    };
  };
}

/** Returns the objective of candidates by generation: the loss, or its ratio to that of perturbed inputs. */
function objectiveOf(settings: FedBptSettings, task: Task, seed: bigint, objectives: Objectives) {
  const draw = (generation: number) => derive(task.seed, task.clientId, generation);
  const whole = (candidates: readonly Vector[]) => candidates.map((z) => withReadout(z, task.arrays));
  if (!settings.perturbRate) {
    return async (candidates: Vector[], generation: number) =>
      finite(await objectives.loss(whole(candidates), draw(generation)));
  }
  const perturbation = { rate: settings.perturbRate, seed: String(derive(seed, "perturbation")) };
  return async (candidates: Vector[], generation: number) => {
    const clean = await objectives.each(whole(candidates), null, draw(generation));
    const perturbed = await objectives.each(whole(candidates), perturbation, draw(generation));
    // NaN if a perturbed loss is not finite: a ratio of 0 would rank such a candidate best.
    const ratio = (loss: number, other: number) =>
      Number.isFinite(other) ? loss / Math.max(other, LEAST_PERTURBED_LOSS) : NaN;
    return finite(clean.map((losses, p) =>
      settings.ratioOfMeans
        ? ratio(mean(losses), mean(perturbed[p]))
        : mean(losses.map((loss, b) => ratio(loss, perturbed[p][b])))));
  };
}
