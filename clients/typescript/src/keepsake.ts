// The files of a client: its key, its name, and its last update, which may not have arrived.

import { randomBytes } from "node:crypto";
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { join } from "node:path";

import { FedbbptError } from "./errors.js";
import type { TaskId } from "./generated/fedbbpt/v1/TaskId.js";
import type { UpdateHeader, UpdateHeaderInput } from "./generated/fedbbpt/v1/UpdateHeader.js";
import { messages } from "./protos.js";
import type { Lost } from "./travelling.js";

interface Saved {
  runId: string;
  /** UpdateHeader with all bytes of its arrays, in base64. */
  update: string;
  /** What the codec has not sent yet, float64 in base64. */
  lost: Record<string, string>;
}

/** A folder that belongs to one client of one run. */
export class Keepsake {
  constructor(private readonly folder: string) {
    try {
      mkdirSync(folder, { recursive: true });
    } catch (error) {
      throw new FedbbptError("StoreError", (error as Error).message, folder, "--state DIR, a folder to write to");
    }
  }

  /** Returns the client's key, which the first call draws. */
  clientKey(): string {
    return this.once("client.key", () => randomBytes(16).toString("hex"));
  }

  /** Returns the name of a client that its user gave none, which the first call draws. */
  clientName(stem: string): string {
    return this.once("client.name", () => `${stem}-${randomBytes(3).toString("hex")}`);
  }

  private once(name: string, draw: () => string): string {
    const path = join(this.folder, name);
    if (!existsSync(path)) this.write(path, draw());
    return readFileSync(path, "utf8");
  }

  /** Replaces the saved update; it is on disk when this returns. */
  save(runId: string, update: UpdateHeaderInput, lost: Lost): void {
    const saved: Saved = {
      runId,
      update: messages.UpdateHeader.serialize(update).toString("base64"),
      lost: Object.fromEntries([...lost].map(([name, numbers]) =>
        [name, Buffer.from(numbers.buffer, numbers.byteOffset, numbers.byteLength).toString("base64")])),
    };
    this.write(this.path, JSON.stringify(saved));
  }

  /** Returns the update that was saved for a task, byte for byte; null if there is none. */
  load(id: TaskId): UpdateHeader | null {
    const saved = this.read();
    if (!saved) return null;
    const update = messages.UpdateHeader.deserialize(Buffer.from(saved.update, "base64"));
    const own = update.id;
    const same = own?.runId === id.runId && own.clientId === id.clientId && own.round === id.round
      && own.phase === id.phase;
    return same ? update : null;
  }

  /** Returns what the codec had not sent after the last update of a run. */
  lost(runId: string): Lost {
    const saved = this.read();
    if (saved?.runId !== runId) return new Map();
    return new Map(Object.entries(saved.lost).map(([name, text]) => {
      const bytes = Buffer.from(text, "base64");
      return [name, Float64Array.from({ length: bytes.length / 8 }, (_, i) => bytes.readDoubleLE(8 * i))];
    }));
  }

  private get path(): string {
    return join(this.folder, "update.json");
  }

  private read(): Saved | null {
    if (!existsSync(this.path)) return null;
    try {
      return JSON.parse(readFileSync(this.path, "utf8")) as Saved;
    } catch (error) {
      throw new FedbbptError("StoreError", `the saved update cannot be read: ${(error as Error).message}`, this.path,
        "the file of the client's last run, or none");
    }
  }

  private write(path: string, text: string): void {
    try {
      const file = openSync(`${path}.new`, "w", 0o600);
      writeSync(file, text);
      fsyncSync(file);
      closeSync(file);
      renameSync(`${path}.new`, path);
    } catch (error) {
      throw new FedbbptError("StoreError", (error as Error).message, path, "a folder to write to, with room");
    }
  }
}
