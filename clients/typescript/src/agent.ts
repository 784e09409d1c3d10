// The client's loop: each task is answered with an update, which is saved before it is sent.

import { setTimeout as pause } from "node:timers/promises";

import type { Codec } from "./codecs.js";
import type { Arrived, Coordinator } from "./coordinator.js";
import { derive, uniforms } from "./draws.js";
import { FedbbptError, RETRYABLE } from "./errors.js";
import type { Sampling } from "./generated/fedbbpt/v1/Sampling.js";
import type { UpdateHeaderInput } from "./generated/fedbbpt/v1/UpdateHeader.js";
import type { Keepsake } from "./keepsake.js";
import { log } from "./log.js";
import { broadcastPrompt, withReadout, type ClientHalf, type Task } from "./methods.js";
import type { Measurement, Objectives } from "./objectives.js";
import type { Vector } from "./spaces.js";
import { bundle } from "./tensors.js";
import { travelling, type Lost } from "./travelling.js";

const PAUSE_MILLISECONDS = 2000;
const NOTHING: Measurement = { devLossSum: 0, devExamples: 0 };

/** Answers the tasks of one run. */
export class Agent {
  private lost: Lost;

  constructor(
    private readonly half: ClientHalf,
    private readonly objectives: Objectives,
    private readonly codec: Codec,
    private readonly keepsake: Keepsake,
    private readonly sampling: Sampling | null,
    private readonly runId: string,
  ) {
    this.lost = keepsake.lost(runId);
  }

  /** Answers all tasks of a run and returns how many updates were counted. */
  async run(coordinator: Coordinator): Promise<number> {
    let counted = 0;
    for (;;) {
      const arrived = await coordinator.nextTask();
      if (!arrived) return counted;
      const update = await this.answerPatiently(arrived, coordinator);
      const receipt = await coordinator.submit(update);
      log.info(`round ${arrived.header.id?.round}: ${receipt.replace("RECEIPT_", "").toLowerCase()}`);
      counted += Number(receipt === "RECEIPT_COUNTED");
    }
  }

  private async answerPatiently(arrived: Arrived, coordinator: Coordinator): Promise<UpdateHeaderInput> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.answer(arrived);
      } catch (error) {
        const waits = error instanceof FedbbptError && error.is(...RETRYABLE, "DeadlineExceeded");
        if (!waits) throw error;
        if ((attempt & (attempt - 1)) === 0) { // the first, the second, the fourth, ...
          log.warning(`round ${arrived.header.id?.round}: ${error.message}; trying again`);
          await coordinator.reportTrouble(error);
        }
        await pause(PAUSE_MILLISECONDS);
      }
    }
  }

  /** Returns the update for a task: the saved one if there is one, the same bytes as before. */
  private async answer({ header, arrays }: Arrived): Promise<UpdateHeaderInput> {
    const id = header.id;
    if (!id) throw new FedbbptError("InvalidRequest", "a task without an id", "TaskHeader.id");
    const saved = this.keepsake.load(id);
    if (saved) {
      log.info(`round ${id.round}: answered before; sending the same update again`);
      return saved;
    }
    const task: Task = {
      clientId: id.clientId,
      round: id.round,
      seed: BigInt(header.seed),
      evaluates: id.phase === "PHASE_EVALUATE",
      arrays,
    };
    const before = this.objectives.scorer.queries;
    const lost = new Map(this.lost);
    const update: UpdateHeaderInput = task.evaluates ? await this.evaluated(task) : await this.searched(task, lost);
    const queries = this.objectives.scorer.queries - before;
    const answered = { ...update, id, measurement: { ...update.measurement, queries } };
    this.keepsake.save(this.runId, answered, lost);
    this.lost = lost;
    return answered;
  }

  private async evaluated(task: Task): Promise<UpdateHeaderInput> {
    const prompt = broadcastPrompt(task);
    const prompts = [prompt, ...rowsOf(task, prompt.length)];
    const [measurement, ...finalists] = await this.objectives.measureAll(prompts);
    return { weight: this.objectives.weight, measurement, finalists };
  }

  private async searched(task: Task, lost: Lost): Promise<UpdateHeaderInput> {
    const every = this.sampling?.devEvery ?? 1;
    const measures = task.round % Math.max(1, every) === 0 || task.arrays.has("readouts");
    const measurement = measures ? await this.objectives.measure(broadcastPrompt(task)) : NOTHING;
    const found = await this.half(task, this.objectives);
    const seed = derive(task.seed, "codec", task.clientId);
    let drawn = 0;
    const rounding = (count: number) => uniforms(derive(seed, drawn++), count);
    const arrays = travelling(found, task.arrays, this.codec, rounding, lost);
    return { weight: found.weight, measurement, arrays: bundle(arrays) };
  }
}

/** Returns the finalists of a task, which are prompts z. */
function rowsOf(task: Task, length: number): Vector[] {
  const finalists = task.arrays.get("finalists");
  if (!finalists) return [];
  const numbers = finalists.numbers();
  const [rows, width] = finalists.shape;
  return Array.from({ length: rows }, (_, row) => {
    const z = numbers.slice(row * width, (row + 1) * width);
    return width === length ? z : withReadout(z, task.arrays);
  });
}
