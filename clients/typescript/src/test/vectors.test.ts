// The golden vectors of the protocol, which ship with the Python package: VECTORS names their folder.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";

import { crc32c } from "../checksums.js";
import { search } from "../cmaes.js";
import { Codec } from "../codecs.js";
import { derive, normals, signs, uniforms } from "../draws.js";
import { near, sample } from "../fed_cma.js";
import type { Codec as Link } from "../generated/fedbbpt/v1/Codec.js";
import { digest, newtonSteps } from "../replay.js";
import { Tensor, type Arrays } from "../tensors.js";

const folder = process.env["VECTORS"] ?? "../../fedbbpt/conformance/vectors";
// Each vector has a form of its own.
const read = (name: string): any => JSON.parse(readFileSync(join(folder, `${name}.json`), "utf8"));
const plain = (rows: Float64Array[]) => rows.map((row) => [...row]);
const close = (found: ArrayLike<number>, expected: number[], error = 1e-14) => {
  assert.equal(found.length, expected.length);
  expected.forEach((x, i) => {
    assert.ok(Math.abs(found[i] - x) <= error * Math.max(1, Math.abs(x)), `${found[i]} is not ${x}`);
  });
};

test("draws", () => {
  const vectors = read("draws");
  for (const name of ["derive", "derive_from_a_large_seed"]) {
    const { seed, parts, value } = vectors[name];
    assert.equal(derive(BigInt(seed), ...parts), BigInt(value));
  }
  assert.deepEqual([...signs(BigInt(vectors.signs.seed), vectors.signs.count)], vectors.signs.value);
  assert.deepEqual([...uniforms(BigInt(vectors.uniforms.seed), vectors.uniforms.count)], vectors.uniforms.value);
  for (const name of ["normals", "normals_of_an_odd_count"]) {
    const { seed, value } = vectors[name];
    close(normals(BigInt(seed), value.flat().length), value.flat());
  }
});

test("codecs", () => {
  const vectors = read("codecs");
  const never = () => { throw new Error("nothing is rounded by chance"); };
  const links: Record<string, Link[]> = {
    float16: ["CODEC_FLOAT16"], bfloat16: ["CODEC_BFLOAT16"], "topk+float16": ["CODEC_TOP_K", "CODEC_FLOAT16"],
  };
  for (const [name, chain] of Object.entries(links)) {
    const { kept, values, bytes } = vectors[name];
    const array = { shape: [values.length], numbers: Float64Array.from(values) };
    assert.equal(new Codec(chain, kept, "mean").encode("mean", array, never).bytes.toString("hex"), bytes, name);
  }
  for (const [name, link] of [["int8", "CODEC_INT8"], ["int4", "CODEC_INT4"]] as const) {
    const { bytes, count, values } = vectors[name];
    const data = Buffer.from(bytes, "hex");
    const decoded = new Codec([link]).decode("mean", new Tensor("D_TYPE_INT8", [data.length], data), [count]);
    assert.deepEqual([...decoded], values, name);
  }
  const { name, values, rotated } = vectors.rotate;
  const array = { shape: [values.length], numbers: Float64Array.from(values) };
  const codec = new Codec(["CODEC_ROTATE", "CODEC_FLOAT32"]);
  assert.deepEqual([...codec.encode(name, array, never).numbers()], rotated);
});

test("candidates of fed-cma", () => {
  const { population, population_of_an_expansion: expanded } = read("fed-cma");
  const found = sample(Float64Array.from(population.mean), Float64Array.from(population.scale), BigInt(population.seed),
    population.candidates.length);
  assert.deepEqual(plain(found), population.candidates);
  const arrays: Arrays = new Map(["mean", "center", "scale"].map((name) =>
    [name, Tensor.of("D_TYPE_FLOAT32", [expanded[name].length], expanded[name])]));
  const drawn = near(arrays, BigInt(expanded.seed), expanded.population, expanded.offsets);
  assert.deepEqual(plain(drawn), expanded.candidates);
});

for (const [name, vector] of Object.entries(read("fed-bpt")) as [string, any][]) {
  if (!vector.candidates || !vector.orders) continue;
  test(`${name} of fed-bpt`, async () => {
    assert.equal(derive(BigInt(vector.task_seed), vector.client_id), BigInt(vector.seed));
    const found = await search({
      mean: Float64Array.from(vector.mean),
      sigma: vector.sigma[0],
      covariance: "diagonal",
      population: vector.local_population,
      iterations: vector.orders.length,
      seed: BigInt(vector.seed),
      limit: vector.limit?.[0] ?? Infinity,
      losses: async (candidates, generation) => {
        assert.deepEqual(plain(candidates), vector.candidates[generation]);
        const order: number[] = vector.orders[generation];
        return Float64Array.from(candidates, (_, i) => (order.includes(i) ? order.indexOf(i) : candidates.length));
      },
    });
    assert.deepEqual(found.orders, vector.orders);
    close(found.mean, vector.final_mean);
    close(found.sigmas, vector.sigmas);
  });
}

test("checksums and replays", () => {
  const { crc32c: checksum, replay } = read("wire");
  assert.equal(crc32c(Buffer.from(checksum.bytes, "hex")), checksum.value);
  const state = (values: Record<string, number[]>): Arrays => new Map(Object.entries(values).map(([name, numbers]) => {
    if (name !== "drawn") return [name, Tensor.of("D_TYPE_FLOAT32", [numbers.length], numbers)];
    return [name, Tensor.of("D_TYPE_INT64", [1], numbers)];
  }));
  const held = state(replay.state);
  const last = BigInt(replay.seed_of_the_last_task);
  const now = BigInt(replay.seed_of_this_task);
  assert.equal(digest(held, last).toString("hex"), replay.digest_of_the_state);
  const news: Arrays = new Map([
    ["mixture", Tensor.of("D_TYPE_FLOAT64", [replay.news.mixture.length], replay.news.mixture)],
    ["accepted", Tensor.of("D_TYPE_UINT8", [1], replay.news.accepted)],
  ]);
  const next = newtonSteps(replay.population, replay.offsets).replayed(held, news, last);
  assert.equal(digest(next, now).toString("hex"), replay.digest_of_the_next_state);
});
