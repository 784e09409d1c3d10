// A client's examples in the batches on which a run scores its candidates and measures its prompts.

import { derive, permutation } from "./draws.js";
import { FedbbptError } from "./errors.js";
import { take, type Labelled } from "./examples.js";
import type { PerturbationInput } from "./generated/fedbbpt/ptm/v1/Perturbation.js";
import type { Part, Scorer } from "./scorer.js";

/** Examples, divided once by the run's seed. Only the batch that was asked for last stays registered. */
export class Batches {
  private readonly rows: number[][];
  private current = -1;
  private registered: Part[] = [];
  private perturbedBy = "";
  private perturbed: Part[] = [];

  /**
   * @param size the most examples of a batch; 0 for all.
   * @param seed the seed of the division.
   * @param name what the examples are, for messages.
   */
  constructor(private readonly scorer: Scorer, readonly data: Labelled, size: number, seed: bigint, name: string) {
    const length = data.labels.length;
    const number = size ? Math.max(1, Math.ceil(length / size)) : 1;
    const order = number === 1 ? data.labels.map((_, i) => i) : permutation(derive(seed, "batches"), length);
    const start = (i: number) => Math.floor((i * length) / number);
    this.rows = Array.from({ length: number }, (_, i) =>
      order.slice(start(i), start(i + 1)).sort((a, b) => a - b));
    const different = Math.min(...this.rows.map((rows) =>
      new Set(rows.map((row) => JSON.stringify(data.examples[row]))).size));
    if (different < scorer.fewest) {
      throw new FedbbptError("InvalidData", `${different} different ones in a batch`, name,
        `at least ${scorer.fewest}: the PTM gives only mean losses, over at least that many`);
    }
  }

  /** Returns the batch of a generation, in parts that fit the PTM. */
  drawn(draw: bigint, perturbation: PerturbationInput | null = null): Promise<Part[]> {
    return this.batch(Number(derive(draw, "batch") % BigInt(this.rows.length)), perturbation);
  }

  /** Returns a batch, counted from 0. */
  async batch(index: number, perturbation: PerturbationInput | null = null): Promise<Part[]> {
    if (index !== this.current) {
      const before = [...this.registered, ...this.perturbed];
      // The batch is forgotten first: a call that fails is not made again, and the examples expire.
      [this.registered, this.perturbed, this.perturbedBy, this.current] = [[], [], "", -1];
      await this.scorer.release(before);
      this.registered = await this.registerAll(take(this.data, this.rows[index]), null);
      this.current = index;
    }
    if (!perturbation) return this.registered;
    const key = JSON.stringify(perturbation);
    if (key !== this.perturbedBy) {
      const before = this.perturbed;
      [this.perturbed, this.perturbedBy] = [[], ""];
      await this.scorer.release(before);
      this.perturbed = await this.registerAll(take(this.data, this.rows[index]), perturbation);
      this.perturbedBy = key;
    }
    return this.perturbed;
  }

  private async registerAll(data: Labelled, perturbation: PerturbationInput | null): Promise<Part[]> {
    const found: Part[] = [];
    for (const part of this.scorer.parts(data)) found.push(await this.scorer.register(part, perturbation));
    return found;
  }

  /** Calls `use` with all examples, a part at a time. */
  async whole(use: (part: Part) => Promise<void>): Promise<void> {
    if (this.rows.length === 1) {
      for (const part of await this.batch(0)) await use(part);
      return;
    }
    // A PTM that gives losses only may reject sets of examples that overlap, so these parts are those of the batches.
    const sets = this.scorer.lossOnly ? this.rows.map((rows) => take(this.data, rows)) : [this.data];
    for (const data of sets.flatMap((set) => this.scorer.parts(set))) {
      const part = await this.scorer.register(data);
      try {
        await use(part);
      } finally {
        await this.scorer.release([part]);
      }
    }
  }
}
