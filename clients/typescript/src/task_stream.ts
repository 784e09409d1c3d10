// A client's side of an open TakePart: it sends updates and heartbeats, and reads receipts and tasks.

import type { ClientDuplexStream, ServiceError } from "@grpc/grpc-js";

import type { Channel } from "./channels.js";
import { FedbbptError } from "./errors.js";
import type { CoordinatorServiceClient } from "./generated/fedbbpt/v1/CoordinatorService.js";
import type { OpeningInput } from "./generated/fedbbpt/v1/Opening.js";
import type { TakePartRequestInput } from "./generated/fedbbpt/v1/TakePartRequest.js";
import type { TakePartResponse } from "./generated/fedbbpt/v1/TakePartResponse.js";
import type { UpdateHeaderInput } from "./generated/fedbbpt/v1/UpdateHeader.js";

/** The number of heartbeat intervals after which a silent stream is broken. */
const SILENT_HEARTBEATS = 3;

/** One call of TakePart. */
export class TaskStream {
  private readonly call: ClientDuplexStream<TakePartRequestInput, TakePartResponse>;
  private readonly arrived: TakePartResponse[] = [];
  private problem: FedbbptError | null = null;
  private wake: () => void = () => undefined;
  private heard = Date.now();
  private readonly beats: NodeJS.Timeout;
  private overdue: NodeJS.Timeout | undefined;

  constructor(
    channel: Channel<CoordinatorServiceClient>, opening: OpeningInput, private readonly heartbeatSeconds: number,
  ) {
    this.call = channel.client.takePart(channel.metadata());
    this.call.on("data", (response: TakePartResponse) => {
      this.heard = Date.now();
      if (response.receipt !== "RECEIPT_UNSPECIFIED") clearTimeout(this.overdue);
      this.arrived.push(response);
      this.wake();
    });
    this.call.on("error", (error: ServiceError) => this.fail(channel.problem(error)));
    this.call.on("end", () => this.fail(unavailable("the stream ended before the run did")));
    this.call.write({ opening });
    this.beats = setInterval(() => this.beat(), 1000 * heartbeatSeconds);
  }

  private beat(): void {
    this.call.write({ heartbeat: {} });
    if (Date.now() - this.heard >= 1000 * SILENT_HEARTBEATS * this.heartbeatSeconds) {
      this.fail(unavailable(`nothing was heard in ${SILENT_HEARTBEATS} heartbeats`));
      this.call.cancel();
    }
  }

  private fail(problem: FedbbptError): void {
    this.problem ??= problem;
    this.wake();
  }

  /** Sends an update, whose receipt must come within some seconds: a connection can be lost in one direction alone. */
  submit(update: UpdateHeaderInput, seconds: number): void {
    this.call.write({ update });
    this.overdue = setTimeout(() => {
      this.fail(unavailable(`no receipt in ${seconds} s`));
      this.call.cancel();
    }, 1000 * seconds);
  }

  /** Waits for the next response. Throws the stream's error once all that has arrived is read. */
  async read(): Promise<TakePartResponse> {
    for (;;) {
      const response = this.arrived.shift();
      if (response) return response;
      if (this.problem) throw this.problem;
      await new Promise<void>((resolve) => { this.wake = resolve; });
    }
  }

  close(): void {
    clearInterval(this.beats);
    clearTimeout(this.overdue);
    this.call.end();
    this.call.cancel();
  }
}

function unavailable(what: string): FedbbptError {
  return new FedbbptError("CoordinatorUnavailable", what);
}
