#!/usr/bin/env node
// The command fedbbpt-client.

import { readFileSync } from "node:fs";

import { takePart } from "./client.js";
import { exitCode, FedbbptError } from "./errors.js";
import { setLevel } from "./log.js";
import { HELP, parse, UsageError } from "./options.js";

function version(): string {
  const about = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as { version: string };
  return about.version;
}

async function main(words: string[]): Promise<number> {
  const options = parse(words);
  if (options.help) {
    process.stdout.write(HELP);
    return 0;
  }
  if (options.version) {
    process.stdout.write(`fedbbpt-client ${version()}\n`);
    return 0;
  }
  setLevel(options.logLevel);
  const result = await takePart(options);
  const lines = Object.entries(result).map(([name, value]) => `${name.padEnd(8)} ${value}`);
  process.stdout.write(options.json ? `${JSON.stringify(result)}\n` : `finished\n${lines.join("\n")}\n`);
  return 0;
}

function failed(error: unknown): number {
  if (error instanceof UsageError) {
    process.stderr.write(`${error.message}\n  hint: fedbbpt-client --help\n`);
    return 2;
  }
  if (error instanceof FedbbptError) {
    process.stderr.write(`${error.reason}: ${error.message}\n${error.fix ? `  hint: ${error.fix}\n` : ""}`);
    return exitCode(error);
  }
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  return 1;
}

process.on("SIGINT", () => process.exit(130));
process.on("SIGTERM", () => process.exit(143));
main(process.argv.slice(2)).then((code) => process.exit(code), (error: unknown) => process.exit(failed(error)));
