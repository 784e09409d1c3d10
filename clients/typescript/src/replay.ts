// Replays: a client computes each broadcast from the one before. docs/protocol.md, "Replays".

import { createHash } from "node:crypto";

import type { Codec } from "./codecs.js";
import { near } from "./fed_cma.js";
import type { Replay } from "./generated/fedbbpt/v1/Replay.js";
import { need, Tensor, type Arrays } from "./tensors.js";

/** The coordinator's search cannot be followed here, so the client needs whole broadcasts. */
export class CannotReplay extends Error {}

/** How one step of a method is replayed. */
export interface Steps {
  /** Returns the state after a step, by its news and the seed of the task before it. */
  replayed(held: Arrays, news: Arrays, seed: bigint): Arrays;
  /** Returns the broadcast of a state. */
  broadcast(held: Arrays): Arrays;
}

/** Returns the digest of a state and of its task's seed. */
export function digest(arrays: Arrays, seed: bigint): Buffer {
  const found = createHash("sha256").update(`${seed}\n`);
  for (const name of [...arrays.keys()].sort()) {
    const array = need(arrays, name);
    found.update(array.described(name)).update(array.bytes);
  }
  return found.digest().subarray(0, 8);
}

/** The state after the client's last task. */
export class HeldSearch {
  private held: Arrays | null = null;
  private seed = 0n;
  after: Buffer = Buffer.alloc(0);

  constructor(private readonly steps: Steps) {}

  /** Returns the broadcast of a task. Throws CannotReplay. */
  broadcast(replay: Replay, arrays: Arrays, seed: bigint): Arrays {
    try {
      const held = this.following(replay, arrays);
      const after = digest(held, seed);
      if (!after.equals(replay.after)) {
        throw new CannotReplay("this machine computes the search to other bits than the coordinator");
      }
      [this.held, this.seed, this.after] = [held, seed, after];
      return this.steps.broadcast(held);
    } catch (error) {
      throw error instanceof CannotReplay ? error : new CannotReplay(`the search cannot be read: ${String(error)}`);
    }
  }

  private following(replay: Replay, arrays: Arrays): Arrays {
    if (!replay.before.length) return arrays;
    if (!this.held || !this.after.equals(replay.before)) {
      throw new CannotReplay("the coordinator continues another search than this client holds");
    }
    if (!arrays.size) return this.held;
    const seeds = replay.seeds.map((missed) => BigInt(missed.toString()));
    if (!seeds.length) return this.steps.replayed(this.held, arrays, this.seed);
    return [this.seed, ...seeds].reduce(
      (held, each, row) => this.steps.replayed(held, rowOf(arrays, row), each), this.held);
  }
}

/** Returns a row of each array. */
function rowOf(arrays: Arrays, row: number): Arrays {
  return new Map([...arrays].map(([name, array]) => {
    const size = array.bytes.length / array.shape[0];
    return [name, new Tensor(array.dtype, array.shape.slice(1), array.bytes.subarray(row * size, (row + 1) * size))];
  }));
}

/** Steps of fed-cma with `expansion_sent`. */
export function newtonSteps(population: number, offsets: number): Steps {
  return {
    broadcast: (held) => new Map(["mean", "center", "scale"].map((name) => [name, need(held, name)])),
    replayed(held, news, seed) {
      const arrays = new Map(held);
      if (need(news, "accepted").numbers()[0]) {
        const drawn = Buffer.alloc(8);
        drawn.writeBigUInt64LE(seed);
        arrays.set("center", need(held, "mean")).set("before", need(held, "center"));
        arrays.set("drawn", new Tensor("D_TYPE_INT64", [1], drawn));
      }
      const around: Arrays = new Map([
        ["mean", need(arrays, "center")], ["center", need(arrays, "before")], ["scale", need(held, "scale")],
      ]);
      const drawn = need(arrays, "drawn").bytes.readBigUInt64LE(0);
      const center = need(arrays, "center").numbers();
      const candidates = near(around, drawn, population, offsets);
      const reached = Float64Array.from(center);
      need(news, "mixture").numbers().forEach((weight, i) => {
        for (let j = 0; j < reached.length; j += 1) {
          const move = i < population
            ? candidates[i][j] - center[j]
            : Number(j === reached.length - offsets + i - population);
          reached[j] += weight * move;
        }
      });
      return arrays.set("mean", Tensor.of("D_TYPE_FLOAT32", need(held, "mean").shape, reached));
    },
  };
}

/** Steps whose points travel as encoded differences. */
export function codedSteps(point: string, codec: Codec): Steps {
  return {
    broadcast: (held) => held,
    replayed(held, news) {
      const before = need(held, point);
      const step = codec.decode(point, need(news, "step"), before.shape);
      const reached = before.numbers().map((x, i) => x + step[i]);
      const others = [...news].filter(([name]) => name !== "step");
      return new Map([[point, Tensor.of("D_TYPE_FLOAT32", before.shape, reached)], ...others]);
    },
  };
}
