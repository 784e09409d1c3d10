// The loss of prompts on a client's training examples, and the measurement of prompts on its dev examples.

import { Batches } from "./batches.js";
import { correct, crossEntropies, expansion, mean, type Expansion, type Scores } from "./criterion.js";
import type { Labelled } from "./examples.js";
import type { PerturbationInput } from "./generated/fedbbpt/ptm/v1/Perturbation.js";
import type { Sampling } from "./generated/fedbbpt/v1/Sampling.js";
import type { Part, Scorer } from "./scorer.js";
import { OFFSET_SCALE, type Vector } from "./spaces.js";

/** Sums over dev examples. */
export interface Measurement {
  devLossSum: number;
  devExamples: number;
  /** Absent if the PTM gives losses only. */
  devCorrect?: number;
}

/** What the search asks of a client's examples. */
export class Objectives {
  readonly train: Batches;
  readonly dev: Batches;
  /** B, the number of training examples. */
  readonly weight: number;

  constructor(readonly scorer: Scorer, train: Labelled, dev: Labelled, sampling: Sampling | null) {
    const size = sampling?.batchExamples ?? 0;
    const seed = BigInt(sampling?.seed ?? 0);
    this.train = new Batches(scorer, train, size, seed, "training examples");
    this.dev = new Batches(scorer, dev, size, seed, "dev examples");
    this.weight = train.labels.length;
  }

  /** Returns the mean loss of each candidate over the training examples of a draw. */
  async loss(candidates: readonly Vector[], draw: bigint): Promise<Float64Array> {
    return (await this.judged(await this.train.drawn(draw), candidates)).losses;
  }

  /** Returns the cross-entropies [P, B] of candidates on the drawn training examples, perhaps perturbed. */
  async each(
    candidates: readonly Vector[], perturbation: PerturbationInput | null, draw: bigint,
  ): Promise<Float64Array[]> {
    const { scores, labels } = await this.scored(await this.train.drawn(draw, perturbation), candidates);
    return crossEntropies(scores, labels);
  }

  /** Returns the loss around the first candidate, in mixtures of the others' scores and in the offsets. */
  async expansion(candidates: readonly Vector[], draw: bigint): Promise<Expansion> {
    const { scores, labels } = await this.scored(await this.train.drawn(draw), candidates);
    return expansion(scores, labels, this.scorer.space.offsets, OFFSET_SCALE);
  }

  /** Returns the measurement of a prompt on the run's dev sample. */
  async measure(z: Vector): Promise<Measurement> {
    return measurements(await this.judged(await this.dev.batch(0), [z]))[0];
  }

  /** Returns the measurements of prompts on all dev examples. */
  async measureAll(prompts: readonly Vector[]): Promise<Measurement[]> {
    const found: Judgement[] = [];
    await this.dev.whole(async (part) => {
      found.push(await this.judged([part], prompts));
    });
    return measurements(merged(found));
  }

  private async scored(parts: readonly Part[], candidates: readonly Vector[]) {
    const answers: Scores[] = [];
    for (const part of parts) answers.push(await this.scorer.scores(part, candidates));
    return { scores: beside(answers), labels: parts.flatMap((part) => part.data.labels) };
  }

  private async judged(parts: readonly Part[], candidates: readonly Vector[]): Promise<Judgement> {
    if (this.scorer.givesScores) {
      const { scores, labels } = await this.scored(parts, candidates);
      const losses = Float64Array.from(crossEntropies(scores, labels), mean);
      return { losses, correct: correct(scores, labels), examples: labels.length };
    }
    const found: Judgement[] = [];
    for (const part of parts) {
      const { labels } = part.data;
      if (this.scorer.lossOnly) {
        const losses = Float64Array.from(await this.scorer.losses(part, candidates));
        found.push({ losses, correct: null, examples: labels.length });
        continue;
      }
      const choices = await this.scorer.choices(part, candidates);
      const right = choices.map((row) => row.filter((choice, b) => choice === labels[b]).length);
      const losses = Float64Array.from(right, (number) => 1 - number / labels.length);
      found.push({ losses, correct: right, examples: labels.length });
    }
    return merged(found);
  }
}

interface Judgement {
  losses: Float64Array;
  correct: number[] | null;
  examples: number;
}

function measurements(judged: Judgement): Measurement[] {
  return Array.from(judged.losses, (loss, p) => ({
    devLossSum: loss * judged.examples,
    devExamples: judged.examples,
    ...(judged.correct ? { devCorrect: judged.correct[p] } : {}),
  }));
}

function merged(parts: readonly Judgement[]): Judgement {
  if (parts.length === 1) return parts[0];
  const examples = parts.reduce((sum, part) => sum + part.examples, 0);
  const losses = parts[0].losses.map((_, p) =>
    parts.reduce((sum, part) => sum + (part.examples / examples) * part.losses[p], 0));
  const right = parts.every((part) => part.correct)
    ? parts[0].correct!.map((_, p) => parts.reduce((sum, part) => sum + part.correct![p], 0))
    : null;
  return { losses, correct: right, examples };
}

/** Returns the scores of the same prompts on several sets of examples. */
function beside(parts: readonly Scores[]): Scores {
  if (parts.length === 1) return parts[0];
  const { prompts, classes } = parts[0];
  const examples = parts.reduce((sum, part) => sum + part.examples, 0);
  const values = new Float32Array(prompts * examples * classes);
  let before = 0;
  for (const part of parts) {
    const each = part.examples * classes;
    for (let p = 0; p < prompts; p += 1) {
      values.set(part.values.subarray(p * each, (p + 1) * each), (p * examples + before) * classes);
    }
    before += part.examples;
  }
  return { prompts, examples, classes, values };
}
