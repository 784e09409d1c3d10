// One client of one run, from its files to the end of the run.

import { basename, join } from "node:path";

import { Agent } from "./agent.js";
import { isLoopback, type Access } from "./channels.js";
import { Codec, LINKS } from "./codecs.js";
import { Coordinator } from "./coordinator.js";
import { FedbbptError } from "./errors.js";
import { holdOut, labelled, readTable, take, type Columns, type Labelled, type Table } from "./examples.js";
import type { JoinResponse } from "./generated/fedbbpt/v1/JoinResponse.js";
import type { TaskSettings } from "./generated/fedbbpt/v1/TaskSettings.js";
import { Keepsake } from "./keepsake.js";
import { log } from "./log.js";
import { clientHalf, needsScores, pointOf } from "./methods.js";
import { Objectives } from "./objectives.js";
import type { Options } from "./options.js";
import { Ptm } from "./ptm.js";
import { codedSteps, HeldSearch, newtonSteps } from "./replay.js";
import { Scorer } from "./scorer.js";

const PROTOCOL_VERSION = 1;

/** What a client has done. */
export interface Result {
  run: string;
  client: string;
  updates: number;
  queries: number;
}

/** Takes part in a run until it ends. */
export async function takePart(options: Options): Promise<Result> {
  const columns: Columns = {
    text: options["text-column"] ?? "text",
    pair: options["pair-column"] ?? "text_pair",
    label: options["label-column"] ?? "label",
  };
  const stem = basename(options.data!).split(".")[0].replace(/[^A-Za-z0-9._@-]/g, "-").replace(/^[^A-Za-z0-9]+/, "");
  const keepsake = new Keepsake(options.state ?? join(".fedbbpt", options.name ?? (stem || "client")));
  const table = readTable(options.data!, columns);
  const devTable = options.dev ? readTable(options.dev, columns) : null;
  const rows = devTable ? null : holdOut(table);
  const name = options.name ?? keepsake.clientName(stem || "client");
  const coordinator = new Coordinator(coordinatorAccess(options), {
    protocolVersion: PROTOCOL_VERSION,
    clientId: name,
    clientKey: keepsake.clientKey(),
    codecs: [...LINKS],
    examples: rows ? rows.train.length : table.labels.length,
    run: options.run ?? "",
  });
  try {
    const run = await coordinator.join();
    return await answerTasks(run, coordinator, options, { table, devTable, rows, keepsake, name });
  } finally {
    coordinator.close();
  }
}

interface Own {
  table: Table;
  devTable: Table | null;
  rows: { train: number[]; dev: number[] } | null;
  keepsake: Keepsake;
  name: string;
}

async function answerTasks(run: JoinResponse, coordinator: Coordinator, options: Options, own: Own): Promise<Result> {
  let ptm: Ptm | null = null;
  try {
    const task = supported(run);
    const half = clientHalf(run);
    const { train, dev } = divided(own, task.labels);
    const texts = { template: task.template, classes: [...task.classes, ...task.columns] };
    ptm = await Ptm.connect(ptmAccess(options, run.ptmAddress), run.ptmRevision, texts);
    const { model, revision, precision } = ptm.card;
    await coordinator.reportPtm({ model, revision, precision });
    const scorer = new Scorer(ptm, task, options["send-labels-to-ptm"] ?? false);
    if (needsScores(run)) scorer.requireScores("the method");
    const objectives = new Objectives(scorer, train, dev, run.sampling);
    await objectives.train.batch(0); // shows unsuitable examples before the first round
    await objectives.dev.batch(0);
    coordinator.held = heldSearch(run);
    log.info(`joined ${run.runId} as ${own.name} with ${train.labels.length} examples`);
    const codec = new Codec(run.codec, run.kept, pointOf(run));
    const agent = new Agent(half, objectives, codec, own.keepsake, run.sampling, run.runId);
    const updates = await agent.run(coordinator);
    return { run: run.runId, client: own.name, updates, queries: scorer.queries };
  } catch (error) {
    await tell(coordinator, error);
    throw error;
  } finally {
    ptm?.close();
  }
}

/** Tells the coordinator why this client stops, if it can do nothing about it in this run. */
async function tell(coordinator: Coordinator, error: unknown): Promise<void> {
  if (!(error instanceof FedbbptError)) return;
  if (error.is("PluginMissing", "UnsupportedPrompt")) await coordinator.leave();
  else if (!error.is("SessionEvicted", "SessionUnknown", "UnknownRun", "CoordinatorUnavailable", "InvalidUpdate")) {
    await coordinator.reportTrouble(error);
  }
}

/** Returns the task of a run. Throws PluginMissing for a run that needs what this client does not have. */
function supported(run: JoinResponse): TaskSettings {
  const fix = "the client of the Python package";
  if (run.secure) throw new FedbbptError("PluginMissing", "this client has no secure aggregation", "privacy", fix);
  if (run.clipNorm > 0) throw new FedbbptError("PluginMissing", "this client clips no examples", "privacy", fix);
  if (!run.task) throw new FedbbptError("InvalidRequest", "a run without a task", "JoinResponse.task");
  return run.task;
}

function divided(own: Own, labels: readonly string[]): { train: Labelled; dev: Labelled } {
  const whole = labelled(own.table, labels);
  if (own.rows) return { train: take(whole, own.rows.train), dev: take(whole, own.rows.dev) };
  return { train: whole, dev: labelled(own.devTable!, labels) };
}

function heldSearch(run: JoinResponse): HeldSearch | null {
  const settings = run.method?.fedCma;
  const point = pointOf(run);
  const coded = run.downCodec.length > 0 && !(run.downCodec.length === 1 && run.downCodec[0] === "CODEC_FLOAT32");
  if (run.task?.views.length) return null;
  if (coded && point) return new HeldSearch(codedSteps(point, new Codec(run.downCodec, run.kept, point)));
  if (!coded && settings?.expansionSent) {
    return new HeldSearch(newtonSteps(settings.population, run.task?.latent?.offsets ?? 0));
  }
  return null;
}

function coordinatorAccess(options: Options): Access {
  return {
    address: options.coordinator!,
    option: "--coordinator",
    tlsCa: options["tls-ca"],
    clientCert: options["client-cert"],
    clientKey: options["client-key"],
    tokenFile: options["token-file"],
  };
}

function ptmAccess(options: Options, announced: string): Access {
  const address = options.ptm ?? announced;
  if (!address) {
    throw new FedbbptError("InvalidInput", "neither the coordinator nor this client knows the address of the PTM",
      "--ptm", "--ptm HOST:PORT");
  }
  const local = [...address.split(","), ...options.coordinator!.split(",")].every((each) => isLoopback(each.trim()));
  if (!options.ptm && !options["accept-ptm"] && !local) {
    throw new FedbbptError("PtmNotAccepted", `the coordinator wants this client's inputs at ${announced}`, "--ptm",
      `--ptm ${announced} if you know this service, or --accept-ptm for any that the coordinator names`);
  }
  return {
    address,
    option: "--ptm",
    tlsCa: options["ptm-tls-ca"],
    clientCert: options["ptm-client-cert"],
    clientKey: options["ptm-client-key"],
    tokenFile: options["ptm-token-file"],
  };
}
