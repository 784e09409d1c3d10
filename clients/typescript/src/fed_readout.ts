// Rounds that fit a readout: sums over the client's examples, in fed-readout and between the rounds of a search.

import { crossEntropy, probabilities } from "./criterion.js";
import { FedbbptError } from "./errors.js";
import type { TaskSettings } from "./generated/fedbbpt/v1/TaskSettings.js";
import type { ClientHalf } from "./methods.js";
import type { Batches } from "./batches.js";
import type { Objectives } from "./objectives.js";
import type { Vector } from "./spaces.js";
import { need } from "./tensors.js";
import type { Found } from "./travelling.js";

/** The columns [B, C] of examples with their classes. Examples with columns that are not finite are left out. */
interface Columns {
  rows: Float32Array[];
  labels: number[];
}

/** Returns the client's half of a run with views, whose other rounds are those of `search`. */
export function fedReadout(search: ClientHalf | null, settings: TaskSettings): ClientHalf {
  let kept: { key: string; train: Columns; dev: Columns } | null = null;
  return async (task, objectives) => {
    if (!task.arrays.has("readouts")) {
      if (search) return search(task, objectives);
      throw new FedbbptError("InvalidTensor", "is missing", "readouts", "the readouts of the round");
    }
    const readouts = need(task.arrays, "readouts");
    const [number, classes, width] = readouts.shape;
    const { readout, space } = objectives.scorer;
    const prompted = width - 1 === readout!.width && settings.prompt !== "none";
    const z = need(task.arrays, "mean").numbers().subarray(0, space.dim);
    const key = prompted ? z.join() : "";
    if (kept?.key !== key) {
      const train = await columnsOf(objectives, objectives.train, z, prompted);
      kept = { key, train, dev: await columnsOf(objectives, objectives.dev, z, prompted) };
    }
    if (!kept.train.labels.length) {
      throw new FedbbptError("InvalidTensor", "no training example has scores that are all finite", "scores",
        "a model, or a precision, that gives finite ones");
    }
    const values = readouts.numbers();
    const size = classes * width;
    const each = Array.from({ length: number }, (_, r) => values.subarray(r * size, (r + 1) * size));
    return update(kept.train, kept.dev, each, classes, width, task.arrays.has("whole"));
  };
}

async function columnsOf(objectives: Objectives, part: Batches, z: Vector, prompted: boolean): Promise<Columns> {
  const found: Columns = { rows: [], labels: [] };
  await part.whole(async (registered) => {
    const scores = await objectives.scorer.columns(registered, [z], prompted);
    for (let b = 0; b < scores.examples; b += 1) {
      const row = scores.values.slice(b * scores.classes, (b + 1) * scores.classes);
      if (!row.every(Number.isFinite)) continue;
      found.rows.push(row);
      found.labels.push(registered.data.labels[b]);
    }
  });
  return found;
}

/** Returns the sums of readouts [R][K, w], over the training examples, or with `whole` over all. */
function update(
  train: Columns, dev: Columns, readouts: readonly Vector[], classes: number, width: number, whole: boolean,
): Found {
  const counted = whole ? [train, dev] : [train];
  const loss = new Float64Array(readouts.length);
  const devLoss = new Float64Array(readouts.length);
  const gradient = new Float64Array(readouts.length * classes * width);
  const moments = new Float64Array(2 * (width - 1));
  readouts.forEach((readout, r) => {
    const into = gradient.subarray(r * classes * width, (r + 1) * classes * width);
    for (const part of counted) loss[r] += add(part, readout, classes, width, into);
    devLoss[r] = add(dev, readout, classes, width, null);
  });
  let weight = 0;
  for (const part of counted) {
    weight += part.labels.length;
    for (const row of part.rows) {
      row.forEach((s, c) => {
        moments[c] += s;
        moments[width - 1 + c] += s * s;
      });
    }
  }
  return {
    weight,
    sums: true,
    arrays: new Map([
      ["loss", { shape: [readouts.length], numbers: loss }],
      ["gradient", { shape: [readouts.length, classes, width], numbers: gradient }],
      ["moments", { shape: [2, width - 1], numbers: moments }],
      ["dev_loss", { shape: [readouts.length], numbers: devLoss }],
      ["dev_weight", { shape: [1], numbers: Float64Array.of(dev.labels.length) }],
    ]),
  };
}

/** Returns the loss of a readout summed over examples, and adds its derivatives (p - e) (s, 1)' to the gradient. */
function add(part: Columns, readout: Vector, classes: number, width: number, gradient: Vector | null): number {
  let loss = 0;
  part.rows.forEach((s, b) => {
    const scores = Float64Array.from({ length: classes }, (_, k) => {
      let sum = s[k];
      for (let c = 0; c < width - 1; c += 1) sum += readout[k * width + c] * s[c];
      return sum + readout[k * width + width - 1];
    });
    const label = part.labels[b];
    loss += crossEntropy(scores, 0, classes, label);
    if (!gradient) return;
    const p = probabilities(scores);
    p[label] -= 1;
    for (let k = 0; k < classes; k += 1) {
      for (let c = 0; c < width - 1; c += 1) gradient[k * width + c] += p[k] * s[c];
      gradient[k * width + width - 1] += p[k];
    }
  });
  return loss;
}
