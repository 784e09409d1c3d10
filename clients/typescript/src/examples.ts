// A client's private examples, from JSONL or CSV files with the columns text and label.

import { readFileSync } from "node:fs";

import { parse } from "csv-parse/sync";

import { FedbbptError } from "./errors.js";
import type { ExampleInput } from "./generated/fedbbpt/ptm/v1/Example.js";

/** Every fourth example of each class measures prompts, unless there is a file of dev examples. */
const DEV_STRIDE = 4;

/** The names of the columns. */
export interface Columns {
  text: string;
  pair: string;
  label: string;
}

/** Examples with the names of their classes. */
export interface Table {
  source: string;
  examples: ExampleInput[];
  labels: string[];
}

/** Examples with the indices of their classes. */
export interface Labelled {
  examples: ExampleInput[];
  labels: number[];
}

/** Returns the examples of a file. Throws InvalidData if it cannot be read as examples. */
export function readTable(path: string, columns: Columns): Table {
  const rows = /\.jsonl?$/i.test(path) ? readJsonLines(path) : readCsv(path);
  const table: Table = { source: path, examples: [], labels: [] };
  rows.forEach((row, index) => {
    const where = `${path}: example ${index + 1}`;
    const text = field(row, columns.text, where);
    const pair = row[columns.pair];
    if (!text.trim()) throw new FedbbptError("InvalidData", "the text is blank", where, "a text");
    const single = pair === undefined || pair === null || pair === "";
    table.examples.push(single ? { text } : { text, textPair: String(pair) });
    table.labels.push(field(row, columns.label, where));
  });
  if (!rows.length) throw new FedbbptError("InvalidData", "no examples", path, "at least one");
  return table;
}

type Row = Record<string, unknown>;

function field(row: Row, name: string, where: string): string {
  const value = row[name];
  if (value === undefined || value === null) {
    const fix = `it has ${Object.keys(row).join(", ") || "none"}; --text-column and --label-column name others`;
    throw new FedbbptError("InvalidData", `no column ${JSON.stringify(name)}`, where, fix);
  }
  return String(value);
}

function content(path: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(readFileSync(path));
  } catch (error) {
    throw new FedbbptError("InvalidData", `cannot be read: ${(error as Error).message}`, path, "a file in UTF-8");
  }
}

function readJsonLines(path: string): Row[] {
  return content(path).split(/\r?\n/).flatMap((line, index) => {
    if (!line.trim()) return [];
    try {
      const row: unknown = JSON.parse(line);
      if (typeof row === "object" && row !== null && !Array.isArray(row)) return [row as Row];
    } catch {
      // The message below says what is wrong.
    }
    throw new FedbbptError("InvalidData", "is no JSON object", `${path}: line ${index + 1}`,
      '{"text": ..., "label": ...}');
  });
}

function readCsv(path: string): Row[] {
  try {
    return parse(content(path), { columns: true, bom: true, skip_empty_lines: true });
  } catch (error) {
    if (error instanceof FedbbptError) throw error;
    throw new FedbbptError("InvalidData", (error as Error).message, path, "a CSV file with a header, or JSONL");
  }
}

/** Returns the examples with the classes as indices. Throws InvalidData for a label that the run does not have. */
export function labelled(table: Table, names: readonly string[]): Labelled {
  const labels = table.labels.map((name, index) => {
    const found = names.indexOf(name);
    if (found < 0) {
      const fix = `one of the run's: ${names.join(", ")}`;
      throw new FedbbptError("InvalidData", `the label ${JSON.stringify(name)}`,
        `${table.source}: example ${index + 1}`, fix);
    }
    return found;
  });
  return { examples: table.examples, labels };
}

/** Returns the rows to train on and the rows to measure prompts on, the same at every start. */
export function holdOut(table: Table): { train: number[]; dev: number[] } {
  const seen = new Map<string, number>();
  const train: number[] = [];
  const dev: number[] = [];
  table.labels.forEach((label, row) => {
    const before = seen.get(label) ?? 0;
    seen.set(label, before + 1);
    (before % DEV_STRIDE === DEV_STRIDE - 1 ? dev : train).push(row);
  });
  if (!dev.length) {
    const what = `${table.labels.length} examples are too few to hold some out`;
    throw new FedbbptError("InvalidData", what, table.source, "more examples, or --dev FILE");
  }
  return { train, dev };
}

/** Returns the examples in some rows. */
export function take(data: Labelled, rows: readonly number[]): Labelled {
  return { examples: rows.map((row) => data.examples[row]), labels: rows.map((row) => data.labels[row]) };
}
