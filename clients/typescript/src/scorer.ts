// Scores prompts of a run's space on labelled examples, within the limits of the PTM's card.

import type { Scores } from "./criterion.js";
import { FedbbptError } from "./errors.js";
import { take, type Labelled } from "./examples.js";
import type { PerturbationInput } from "./generated/fedbbpt/ptm/v1/Perturbation.js";
import type { ScoreResponse } from "./generated/fedbbpt/ptm/v1/ScoreResponse.js";
import type { TaskSettings } from "./generated/fedbbpt/v1/TaskSettings.js";
import { log } from "./log.js";
import type { Handle, Prompts, Ptm } from "./ptm.js";
import {
  OFFSET_SCALE, promptSpace, readoutSpace, usesPrompt, type PromptSpace, type ReadoutSpace, type Vector,
} from "./spaces.js";
import { Tensor } from "./tensors.js";

/** More than a message holds besides its numbers and texts, in bytes. */
const ENVELOPE_BYTES = 4096;
const EXAMPLE_BYTES = 32;
/** An own class with a bound counts as ten times less likely than the bound. */
const PENALTY_NATS = Math.log(10);

/** Examples under one handle. */
export interface Part {
  handle: Handle;
  data: Labelled;
  /** The scores under the views [B, m V], once they are asked. */
  views?: Float32Array;
  /** The columns of the only prompt that was asked last, by its numbers. */
  kept?: { key: string; scores: Scores };
}

/** Every query of the client is counted here. */
export class Scorer {
  readonly space: PromptSpace;
  readonly readout: ReadoutSpace | null;
  queries = 0;
  private readonly texts: number;
  private readonly room: number;
  private warned = false;

  constructor(private readonly ptm: Ptm, private readonly task: TaskSettings, sendLabels: boolean) {
    this.space = promptSpace(task);
    this.readout = readoutSpace(task);
    this.texts = task.classes.length + task.columns.length;
    this.room = Number(ptm.card.maxMessageBytes) - ENVELOPE_BYTES;
    if (this.lossOnly && !sendLabels) {
      const what = "the PTM returns losses only, so it needs every example's label";
      throw new FedbbptError("LabelsWithheld", what, "labels",
        "--send-labels-to-ptm if it may have the labels, or a service with scores");
    }
    if (this.space.offsets || this.readout) this.requireScores("a search of offsets or readouts");
  }

  get givesScores(): boolean {
    return this.ptm.card.output === "OUTPUT_LABEL_LOGITS" || this.ptm.card.output === "OUTPUT_LABEL_LOGPROBS";
  }

  get lossOnly(): boolean {
    return this.ptm.card.output === "OUTPUT_LOSS_ONLY";
  }

  /** The number of different examples that a handle must hold, if the PTM gives losses only. */
  get fewest(): number {
    return this.lossOnly ? this.ptm.card.minExamples : 0;
  }

  /** Throws OutputWithheld if the PTM gives no score for each class. */
  requireScores(wanting: string): void {
    if (this.givesScores) return;
    throw new FedbbptError("OutputWithheld", `the PTM gives no scores, which ${wanting} needs`, "ptm",
      "a run that needs losses only, or another agreement with the provider");
  }

  /** Returns examples in parts of about equal length, each of which fits one handle. */
  parts(data: Labelled): Labelled[] {
    const { card } = this.ptm;
    const longest = data.examples.reduce(
      (most, one) => Math.max(most, Buffer.byteLength(`${one.text ?? ""}${one.textPair ?? ""}`)), 0);
    const fits = Math.floor(this.room / 2 / (EXAMPLE_BYTES + longest));
    const scored = Math.floor(this.room / (4 * this.texts));
    const limit = Math.max(1, Math.min(card.maxExamples, Number(card.maxPairs) || fits, fits, scored));
    const number = Math.max(1, Math.ceil(data.labels.length / limit));
    const start = (i: number) => Math.floor((i * data.labels.length) / number);
    return Array.from({ length: number }, (_, i) =>
      take(data, Array.from({ length: start(i + 1) - start(i) }, (_, row) => start(i) + row)));
  }

  /** Registers one of `parts`, perhaps perturbed. */
  async register(data: Labelled, perturbation: PerturbationInput | null = null): Promise<Part> {
    const room = Math.max(this.space.tokens, this.readout ? this.task.viewTokens : 0);
    const examples = this.lossOnly
      ? data.examples.map((one, i) => ({ ...one, label: data.labels[i] }))
      : data.examples;
    const handle = await this.ptm.register({ examples, promptTokens: room, perturbation });
    return { handle, data };
  }

  async release(parts: readonly Part[]): Promise<void> {
    for (const part of parts) await this.ptm.release(part.handle);
  }

  private promptsPerCall(bytes: number, examples: number): number {
    const { card } = this.ptm;
    const pairs = Number(card.maxPairs);
    return Math.max(1, Math.min(
      Math.floor(this.room / 2 / Math.max(1, bytes)),
      Math.floor(this.room / (4 * examples * this.texts)),
      card.maxPrompts,
      pairs ? Math.floor(pairs / examples) : Infinity,
    ));
  }

  private async ask(part: Part, prompts: Prompts, number: number): Promise<ScoreResponse> {
    const answer = await this.ptm.score(part.handle, prompts);
    this.queries += number * part.data.labels.length;
    if (answer.bounds && !this.warned && answer.bounds.data.some((mark) => mark !== 0)) {
      this.warned = true;
      log.warning("some answers rest on bounds, since the model's server did not tell every label's score");
    }
    return answer;
  }

  private scoresOf(answer: ScoreResponse, prompts: number, part: Part, pessimistic: boolean): Scores {
    const examples = part.data.labels.length;
    const tensor = Tensor.from(answer.scores, "scores");
    const wanted = [prompts, examples, this.texts];
    if (tensor.shape.join() !== wanted.join()) {
      throw new FedbbptError("InvalidTensor", `scores of shape [${tensor.shape.join(", ")}]`, "scores",
        `[${wanted.join(", ")}]: prompts, examples, texts`);
    }
    const values = Float32Array.from(tensor.numbers());
    const marks = answer.bounds?.data;
    if (pessimistic && marks) {
      for (let i = 0; i < prompts * examples; i += 1) {
        const own = i * this.texts + part.data.labels[i % examples];
        if (marks[own]) values[own] -= Math.fround(PENALTY_NATS);
      }
    }
    return { prompts, examples, classes: this.texts, values };
  }

  /** Returns the scores [P, B, K] of candidates, with their offsets or readouts. */
  async scores(part: Part, candidates: readonly Vector[]): Promise<Scores> {
    this.requireScores("the method");
    const found: Scores[] = [];
    for (const some of this.calls(part, candidates)) {
      const columns = await this.columns(part, some);
      found.push(this.readout ? this.readOut(columns, some) : this.shifted(columns, some));
    }
    return joined(found);
  }

  private shifted(scores: Scores, candidates: readonly Vector[]): Scores {
    const { offsets, dim } = this.space;
    if (!offsets) return scores;
    const { examples, classes, values } = scores;
    candidates.forEach((z, p) => {
      for (let i = 0; i < examples * classes; i += 1) {
        // Offsets are float32, and so is the sum.
        values[p * examples * classes + i] += Math.fround(OFFSET_SCALE * Math.fround(z[dim - offsets + (i % classes)]));
      }
    });
    return scores;
  }

  private readOut(columns: Scores, candidates: readonly Vector[]): Scores {
    const { classes, width } = this.readout!;
    const values = new Float32Array(columns.prompts * columns.examples * classes);
    candidates.forEach((z, p) => {
      const readout = z.subarray(this.space.dim);
      for (let b = 0; b < columns.examples; b += 1) {
        const at = (p * columns.examples + b) * columns.classes;
        for (let k = 0; k < classes; k += 1) {
          const row = k * (width + 1);
          let sum = columns.values[at + k];
          for (let c = 0; c < columns.classes; c += 1) sum += columns.values[at + c] * readout[row + c];
          values[(p * columns.examples + b) * classes + k] = sum + readout[row + width];
        }
      }
    });
    return { prompts: columns.prompts, examples: columns.examples, classes, values };
  }

  /** Returns the scores without offsets and readouts: [P, B, V], or with views [P, B, C] or [P, B, m V]. */
  async columns(part: Part, candidates: readonly Vector[], prompted?: boolean): Promise<Scores> {
    const { readout, space } = this;
    if (!readout) {
      const prompts = space.prompts(candidates)!;
      return this.scoresOf(await this.ask(part, prompts, candidates.length), candidates.length, part, true);
    }
    const fixed = await this.views(part);
    const uses = prompted ?? candidates.some((z) => usesPrompt(readout, z.subarray(space.dim)));
    const prompts = uses ? space.prompts(candidates) : null;
    if (!prompts) return sideBySide(fixed, null, candidates.length, part.data.labels.length);
    const key = candidates.length === 1 ? Float32Array.from(candidates[0].subarray(0, space.dim)).join() : "";
    if (key && part.kept?.key === key) return part.kept.scores;
    const answer = this.scoresOf(await this.ask(part, prompts, candidates.length), candidates.length, part, false);
    const scores = sideBySide(fixed, answer, candidates.length, part.data.labels.length);
    if (key) part.kept = { key, scores };
    return scores;
  }

  private async views(part: Part): Promise<Float32Array> {
    if (part.views) return part.views;
    const { views } = this.readout!;
    const examples = part.data.labels.length;
    const found = new Float32Array(examples * views.length * this.texts);
    const longest = views.reduce((most, view) => Math.max(most, Buffer.byteLength(view)), 1);
    const size = this.promptsPerCall(longest, examples);
    for (let start = 0; start < views.length; start += size) {
      const texts = views.slice(start, start + size);
      const scores = this.scoresOf(await this.ask(part, { text: { texts } }, texts.length), texts.length, part, false);
      for (let m = 0; m < texts.length; m += 1) {
        for (let b = 0; b < examples; b += 1) {
          const from = (m * examples + b) * this.texts;
          found.set(scores.values.subarray(from, from + this.texts), (b * views.length + start + m) * this.texts);
        }
      }
    }
    part.views = found;
    return found;
  }

  /** Returns the chosen classes [P, B], or -1 where another one may be likelier, of a PTM that gives classes only. */
  async choices(part: Part, candidates: readonly Vector[]): Promise<number[][]> {
    const found: number[][] = [];
    for (const some of this.calls(part, candidates)) {
      const answer = await this.ask(part, this.space.prompts(some)!, some.length);
      const numbers = Tensor.from(answer.choices, "choices").numbers();
      const marks = answer.bounds?.data;
      const classes = Array.from(numbers, (choice, i) => (marks?.[i] ? -1 : choice));
      const examples = part.data.labels.length;
      some.forEach((_, p) => found.push(classes.slice(p * examples, (p + 1) * examples)));
    }
    return found;
  }

  /** Returns the mean losses [P], of a PTM that gives losses only. */
  async losses(part: Part, candidates: readonly Vector[]): Promise<number[]> {
    const found: number[] = [];
    for (const some of this.calls(part, candidates)) {
      const answer = await this.ask(part, this.space.prompts(some)!, some.length);
      found.push(...Tensor.from(answer.losses, "losses").numbers());
    }
    return found;
  }

  /** Returns candidates in groups, each of which fits one call. */
  private calls(part: Part, candidates: readonly Vector[]): Vector[][] {
    const size = this.promptsPerCall(this.space.promptBytes, part.data.labels.length);
    return Array.from({ length: Math.ceil(candidates.length / size) }, (_, i) =>
      candidates.slice(i * size, (i + 1) * size));
  }
}

/** Returns the scores of several sets of prompts on the same examples. */
function joined(parts: readonly Scores[]): Scores {
  if (parts.length === 1) return parts[0];
  const values = new Float32Array(parts.reduce((sum, part) => sum + part.values.length, 0));
  let at = 0;
  for (const part of parts) {
    values.set(part.values, at);
    at += part.values.length;
  }
  return { ...parts[0], prompts: parts.reduce((sum, part) => sum + part.prompts, 0), values };
}

/** Returns the scores under the views [B, m V], and after them those under each prompt [P, B, V], if there are any. */
function sideBySide(fixed: Float32Array, prompted: Scores | null, prompts: number, examples: number): Scores {
  const first = fixed.length / examples;
  const classes = first + (prompted?.classes ?? 0);
  const values = new Float32Array(prompts * examples * classes);
  for (let i = 0; i < prompts * examples; i += 1) {
    const b = i % examples;
    values.set(fixed.subarray(b * first, (b + 1) * first), i * classes);
    if (prompted) {
      values.set(prompted.values.subarray(i * prompted.classes, (i + 1) * prompted.classes), i * classes + first);
    }
  }
  return { prompts, examples, classes, values };
}
