// Errors: what is wrong, where, and what would be right, under the reasons that docs/protocol.md lists in "Errors".

import { status, type ServiceError } from "@grpc/grpc-js";

import { messages } from "./protos.js";

/** An expected failure. Its reason is that of google.rpc.ErrorInfo, or one of this client's own. */
export class FedbbptError extends Error {
  /** Seconds that the service asks to wait before a retry; 0 if it asks for none. */
  retryAfterSeconds = 0;

  constructor(
    readonly reason: string,
    readonly what: string,
    readonly where = "",
    readonly fix = "",
  ) {
    super(where ? `${where}: ${what}` : what);
  }

  /** Returns whether the error has one of these reasons. */
  is(...reasons: string[]): boolean {
    return reasons.includes(this.reason);
  }
}

const BAD_INPUT = 3;
const EXIT_CODES: Record<string, number> = {
  PtmUnavailable: 4, CoordinatorUnavailable: 4, Unavailable: 4, ChildFailed: 4, DeadlineExceeded: 4,
  Unauthenticated: 5, TlsFailed: 5, InsecureAddress: 5, StoreError: 6, StoreFull: 6, StoreReplaced: 6,
};

/** Returns the exit code for an error, as docs/commands.md lists them. */
export function exitCode(error: FedbbptError): number {
  return EXIT_CODES[error.reason] ?? (/^Invalid|^PromptTooLong$/.test(error.reason) ? BAD_INPUT : 8);
}

/** The errors after which the same call may succeed. */
export const RETRYABLE = ["Overloaded", "RateLimited", "StoreFull", "StoreError", "Unavailable", "PtmUnavailable",
  "CoordinatorUnavailable", "StoreReplaced", "ChildFailed", "ChecksumMismatch"];

/**
 * Returns the error that a service raised.
 *
 * @param error what grpc-js reports.
 * @param unavailable the reason for statuses that no fedbbpt service sent.
 */
export function fromServiceError(error: ServiceError, unavailable: string): FedbbptError {
  const details = statusDetails(error);
  const info = details.info;
  const problem = info?.domain === "fedbbpt"
    ? new FedbbptError(info.reason, printable(error.details), printable(info.metadata["where"] ?? ""),
      printable(info.metadata["fix"] ?? ""))
    : withoutReason(error, unavailable);
  problem.retryAfterSeconds = details.retrySeconds;
  return problem;
}

function statusDetails(error: ServiceError) {
  const [packed] = error.metadata?.get("grpc-status-details-bin") ?? [];
  let retrySeconds = 0;
  let info: ReturnType<typeof messages.ErrorInfo.deserialize> | undefined;
  if (packed instanceof Buffer) {
    for (const detail of messages.Status.deserialize(packed).details as unknown as Packed[]) {
      const type = detail.type_url ?? detail.typeUrl ?? "";
      if (type.endsWith("/google.rpc.ErrorInfo")) info = messages.ErrorInfo.deserialize(detail.value);
      if (type.endsWith("/google.rpc.RetryInfo")) {
        retrySeconds = secondsOf(messages.RetryInfo.deserialize(detail.value).retryDelay);
      }
    }
  }
  return { info, retrySeconds };
}

interface Packed {
  typeUrl?: string;
  type_url?: string;
  value: Buffer;
}

function withoutReason(error: ServiceError, unavailable: string): FedbbptError {
  const text = printable(error.details || error.message);
  switch (error.code) {
    case status.DEADLINE_EXCEEDED:
      return new FedbbptError("DeadlineExceeded", "no answer in time");
    case status.UNAUTHENTICATED:
    case status.PERMISSION_DENIED:
      return new FedbbptError("Unauthenticated", text);
    case status.UNIMPLEMENTED:
      return new FedbbptError("WrongService", `the service that answers does not have this call (${text})`, "",
        "the right one of the addresses of coordinator and PTM service, or the same version on both sides");
    case status.RESOURCE_EXHAUSTED:
      return /larger than max/i.test(text)
        ? new FedbbptError("MessageTooLarge", text, "", "fewer or shorter examples, or fewer prompts, in one call")
        : new FedbbptError("Overloaded", text);
    case status.DATA_LOSS:
      return new FedbbptError("ChecksumMismatch", text);
    default:
      return new FedbbptError(unavailable, `${status[error.code] ?? error.code}: ${text}`);
  }
}

/** Returns a duration of a message in seconds. */
export function secondsOf(duration: { seconds: string | { toString(): string }; nanos: number } | null): number {
  return duration === null ? 0 : Number(duration.seconds.toString()) + duration.nanos / 1e9;
}

/** Returns a text of another process without control characters, so that it cannot write over a terminal. */
export function printable(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, (character) =>
    `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`);
}
