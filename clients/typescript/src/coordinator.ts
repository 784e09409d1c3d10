// A client's link to the coordinator: it joins, keeps one stream of tasks open, and submits updates.

import { Channel, type Access } from "./channels.js";
import { FedbbptError, secondsOf } from "./errors.js";
import type { CoordinatorServiceClient } from "./generated/fedbbpt/v1/CoordinatorService.js";
import type { JoinRequestInput } from "./generated/fedbbpt/v1/JoinRequest.js";
import type { JoinResponse } from "./generated/fedbbpt/v1/JoinResponse.js";
import type { Receipt } from "./generated/fedbbpt/v1/Receipt.js";
import type { ReportPtmRequestInput } from "./generated/fedbbpt/v1/ReportPtmRequest.js";
import type { TakePartResponse } from "./generated/fedbbpt/v1/TakePartResponse.js";
import type { TaskHeader } from "./generated/fedbbpt/v1/TaskHeader.js";
import type { UpdateHeaderInput } from "./generated/fedbbpt/v1/UpdateHeader.js";
import { log } from "./log.js";
import { patiently, type Patience } from "./patience.js";
import { services } from "./protos.js";
import { CannotReplay, type HeldSearch } from "./replay.js";
import { TaskStream } from "./task_stream.js";
import { Assembler, CHUNK_BYTES, type Arrays } from "./tensors.js";
import { streamUpdate } from "./update_chunks.js";

const rpcs = services.Coordinator.service;
const CALL_SECONDS = 30;
const PATIENCE_SECONDS = 600;
const LOST_STREAM = ["CoordinatorUnavailable", "Unavailable", "StoreReplaced", "SessionUnknown", "ChecksumMismatch"];

/** A task as it arrived. */
export interface Arrived {
  header: TaskHeader;
  arrays: Arrays;
}

/** The coordinator of one run. */
export class Coordinator {
  private readonly channel: Channel<CoordinatorServiceClient>;
  private readonly patience: Patience;
  private session = "";
  private sessionOfStream = "";
  private runId = "";
  private run!: JoinResponse;
  private identity: Omit<ReportPtmRequestInput, "session"> | null = null;
  private stream: TaskStream | null = null;
  private arrived: Arrived[] = [];
  private incomplete: { header: TaskHeader; assembler: Assembler } | null = null;
  private finished = false;
  /** The search that the client follows, if it replays. */
  held: HeldSearch | null = null;

  constructor(access: Access, private readonly hello: JoinRequestInput) {
    this.channel = new Channel(services.Coordinator, access, "CoordinatorUnavailable");
    this.patience = {
      name: `the coordinator at ${access.address}`,
      seconds: PATIENCE_SECONDS,
      also: ["DeadlineExceeded"],
      failed: () => this.channel.next(),
    };
  }

  /** Enters the run, or enters it again. */
  async join(): Promise<JoinResponse> {
    const run = await patiently(this.patience, () => this.channel.call(rpcs.Join, this.hello, CALL_SECONDS));
    if (this.runId && this.runId !== run.runId) {
      throw new FedbbptError("UnknownRun", `the coordinator now serves ${run.runId}, not ${this.runId}`, "run_id",
        "start the client again");
    }
    [this.run, this.runId, this.session] = [run, run.runId, run.session];
    this.hello.run = run.runName;
    if (this.identity) await this.reportPtm(this.identity);
    return run;
  }

  private async joinAgain(session: string): Promise<void> {
    if (session === this.session) await this.join();
  }

  /** Tells the coordinator which PTM the client asks, now and after each Join. Does not fail. */
  async reportPtm(identity: Omit<ReportPtmRequestInput, "session">): Promise<void> {
    this.identity = identity;
    const request = { session: this.session, ...identity };
    await this.tell(this.channel.call(rpcs.ReportPtm, request, CALL_SECONDS));
  }

  /** Tells the coordinator what keeps the client from its work. Does not fail. */
  async reportTrouble(error: FedbbptError): Promise<void> {
    const request = { session: this.session, text: `${error.reason}: ${error.message}`.slice(0, 300) };
    await this.tell(this.channel.call(rpcs.ReportTrouble, request, CALL_SECONDS));
  }

  private async tell(call: Promise<unknown>): Promise<void> {
    try {
      await call;
    } catch (error) {
      log.info(`the coordinator was not told: ${String(error)}`);
    }
  }

  /** Leaves the run for good. */
  async leave(): Promise<void> {
    this.closeStream();
    await this.tell(this.channel.call(rpcs.Leave, { session: this.session }, CALL_SECONDS));
  }

  /** Returns the next task, or null if the run has ended. Joins again if the stream was lost. */
  async nextTask(): Promise<Arrived | null> {
    for (;;) {
      try {
        while (!this.arrived.length && !this.finished) await this.receive();
        const task = this.arrived.shift();
        return task ? { header: task.header, arrays: this.broadcast(task) } : null;
      } catch (error) {
        const session = this.sessionOfStream;
        this.closeStream();
        if (error instanceof CannotReplay) {
          log.warning(`${error.message}; it gets each broadcast whole from now on`);
          this.held = null;
          continue;
        }
        if (!(error instanceof FedbbptError)) throw error;
        if (error.is("RunFinished")) return null;
        // The client itself may have replaced the stream's session, by joining again during a submit.
        const replaced = error.is("SessionEvicted") && session !== this.session;
        if (!replaced && !error.is(...LOST_STREAM)) throw error;
        log.info(`the stream of tasks ended (${error.message}); joining again`);
        this.channel.next();
        try {
          await this.joinAgain(session);
        } catch (again) {
          if (again instanceof FedbbptError && again.is("RunFinished")) return null;
          throw again;
        }
      }
    }
  }

  private broadcast({ header, arrays }: Arrived): Arrays {
    if (!header.replay) return arrays;
    if (!this.held) throw new CannotReplay("a replay for a client that does not replay");
    return this.held.broadcast(header.replay, arrays, BigInt(header.seed));
  }

  /** Reads one response of the stream. Returns the receipt in it, if any. */
  private async receive(): Promise<Receipt | null> {
    const response = await this.opened().read();
    this.take(response);
    return response.receipt === "RECEIPT_UNSPECIFIED" ? null : response.receipt;
  }

  private take(response: TakePartResponse): void {
    if (response.event === "finished") this.finished = true;
    if (response.event === "task") {
      const header = response.task!;
      const limit = Number(this.run.maxUpdateBytes);
      this.incomplete = { header, assembler: new Assembler(header.arrays ?? NO_ARRAYS, limit) };
    }
    if (response.event === "chunk") {
      if (!this.incomplete) throw new FedbbptError("InvalidRequest", "a chunk without a task", "chunk");
      this.incomplete.assembler.add(response.chunk!);
    }
    if (this.incomplete?.assembler.complete) {
      const { header, assembler } = this.incomplete;
      this.incomplete = null;
      this.arrived.push({ header, arrays: assembler.arrays() });
    }
  }

  private opened(): TaskStream {
    if (!this.stream) {
      this.sessionOfStream = this.session;
      const replays = this.held ? { replays: true, state: this.held.after } : {};
      const opening = { session: this.session, ...replays };
      this.stream = new TaskStream(this.channel, opening, secondsOf(this.run.heartbeat) || 10);
    }
    return this.stream;
  }

  private closeStream(): void {
    this.stream?.close();
    [this.stream, this.incomplete, this.arrived] = [null, null, []];
  }

  /** Sends an update until there is a receipt. */
  async submit(update: UpdateHeaderInput): Promise<Receipt> {
    const large = (update.arrays?.data?.length ?? 0) > CHUNK_BYTES;
    for (;;) {
      const { session } = this;
      try {
        const receipt = await patiently(this.patience, () => large
          ? streamUpdate(this.channel, { ...update, session: this.session }, CALL_SECONDS)
          : this.exchange(update));
        this.arrived = this.arrived.filter(({ header }) => !sameTask(header, update));
        return receipt;
      } catch (error) {
        if (!(error instanceof FedbbptError)) throw error;
        if (error.is("RunFinished", "UnknownRound")) return "RECEIPT_TOO_LATE";
        const replaced = error.is("SessionEvicted") && session !== this.session;
        if (!replaced && !error.is("SessionUnknown")) throw error;
        try {
          await this.joinAgain(session);
        } catch (again) {
          if (again instanceof FedbbptError && again.is("RunFinished")) return "RECEIPT_TOO_LATE";
          throw again;
        }
      }
    }
  }

  private async exchange(update: UpdateHeaderInput): Promise<Receipt> {
    try {
      if (!this.finished) this.opened().submit(update, CALL_SECONDS);
      while (!this.finished) {
        const receipt = await this.receive();
        if (receipt) return receipt;
      }
      return "RECEIPT_TOO_LATE";
    } catch (error) {
      this.closeStream();
      throw error;
    }
  }

  close(): void {
    this.closeStream();
    this.channel.close();
  }
}

const NO_ARRAYS = { tensors: [], totalBytes: "0", crc32c: 0, data: Buffer.alloc(0) };

function sameTask(header: TaskHeader, update: UpdateHeaderInput): boolean {
  return header.id?.round === update.id?.round && header.id?.phase === update.id?.phase;
}
