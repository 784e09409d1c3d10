// The PTM service, as a client uses it: retries, handles that the service may forget, and the pin of the revision.

import { randomBytes } from "node:crypto";

import { Channel, type Access, type Method } from "./channels.js";
import { FedbbptError } from "./errors.js";
import type { DescribeResponse } from "./generated/fedbbpt/ptm/v1/DescribeResponse.js";
import type { ExampleSetInput } from "./generated/fedbbpt/ptm/v1/ExampleSet.js";
import type { PtmServiceClient } from "./generated/fedbbpt/ptm/v1/PtmService.js";
import type { ScoreRequestInput } from "./generated/fedbbpt/ptm/v1/ScoreRequest.js";
import type { ScoreResponse } from "./generated/fedbbpt/ptm/v1/ScoreResponse.js";
import type { TaskInput } from "./generated/fedbbpt/ptm/v1/Task.js";
import { log } from "./log.js";
import { patiently, type Patience } from "./patience.js";
import { services } from "./protos.js";

const rpcs = services.Ptm.service;
const CALL_SECONDS = 600;
const PATIENCE_SECONDS = 60;
/** The most servers behind one address that may not know a task. */
const REPLICAS = 8;

/** The prompts of a Score call. */
export type Prompts = Pick<ScoreRequestInput, "latent" | "text" | "deep">;

/** Examples that the service keeps. */
export interface Handle {
  id: string;
  examples: ExampleSetInput;
}

/** A PTM service that knows one task. */
export class Ptm {
  private readonly channel: Channel<PtmServiceClient>;
  private readonly patience: Patience;
  private taskId = "";
  card!: DescribeResponse;

  private constructor(access: Access, private revision: string, private readonly task: TaskInput) {
    this.channel = new Channel(services.Ptm, access, "PtmUnavailable");
    const name = `the PTM service at ${access.address}`;
    this.patience = { name, seconds: PATIENCE_SECONDS, also: [], failed: () => this.channel.next() };
  }

  /**
   * Connects to a service and reads its card.
   *
   * @param revision the one that it must have; empty accepts the current one, and no other afterwards.
   */
  static async connect(access: Access, revision: string, task: TaskInput): Promise<Ptm> {
    const ptm = new Ptm(access, revision, task);
    await ptm.describe();
    ptm.revision = ptm.card.revision;
    return ptm;
  }

  private async describe(): Promise<void> {
    this.card = await this.call(rpcs.Describe, {});
    this.checkRevision(this.card.revision);
  }

  private checkRevision(revision: string): void {
    if (this.revision && revision !== this.revision) {
      throw new FedbbptError("RevisionChanged", `the PTM has revision ${revision}`, "revision",
        `${this.revision}, as the run wants it`);
    }
  }

  private call<Q, A>(method: Method<Q, A>, request: Q): Promise<A> {
    return patiently(this.patience, () => this.channel.call(method, request, CALL_SECONDS));
  }

  private async registerTask(): Promise<void> {
    const answer = await this.call(rpcs.RegisterTask, { task: this.task });
    this.taskId = answer.taskId;
  }

  /** Registers examples. */
  async register(examples: ExampleSetInput): Promise<Handle> {
    for (let attempt = 1; ; attempt += 1) {
      if (!this.taskId) await this.registerTask();
      try {
        const answer = await this.call(rpcs.RegisterExamples, { taskId: this.taskId, examples });
        return { id: answer.examplesId, examples };
      } catch (error) {
        if (!(error instanceof FedbbptError && error.is("UnknownTask")) || attempt > REPLICAS) throw error;
        // Replicas take turns, so registering the task often enough reaches all of them.
        for (let i = 0; i < attempt; i += 1) await this.registerTask();
      }
    }
  }

  /** Takes back a registration. */
  async release(handle: Handle): Promise<void> {
    await this.call(rpcs.Release, { examplesId: handle.id });
  }

  /** Scores prompts. Examples that the service has forgotten go along with the call. */
  async score(handle: Handle, prompts: Prompts): Promise<ScoreResponse> {
    // All attempts share a key, so that a lost answer is neither computed nor charged again.
    const request = { ...prompts, idempotencyKey: randomBytes(16).toString("hex") };
    let answer: ScoreResponse;
    try {
      answer = await this.call(rpcs.Score, { ...request, examplesId: handle.id });
    } catch (error) {
      if (!(error instanceof FedbbptError && error.is("UnknownExamples"))) throw error;
      log.info("the service does not know the examples; sending them along with the call");
      await this.describe();
      const inline = { task: this.task, examples: handle.examples };
      const idempotencyKey = randomBytes(16).toString("hex");
      answer = await this.call(rpcs.Score, { ...prompts, inline, idempotencyKey });
      handle.id = answer.examplesId;
    }
    this.checkRevision(answer.revision);
    return answer;
  }

  close(): void {
    this.channel.close();
  }
}
