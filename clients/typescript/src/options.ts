// The command line.

import { parseArgs } from "node:util";

import { LEVELS, type Level } from "./log.js";

export const HELP = `Usage: fedbbpt-client --coordinator HOST:PORT --data FILE [options]

Take part in a fedbbpt run with private data. Inputs go to the PTM service; labels stay here.
A client that was killed continues when you give the same command again.

  --coordinator HOST:PORT   the coordinator, or with commas it and its standby
  --data FILE               training examples: JSONL, or CSV with a header
  --dev FILE                examples to measure prompts on; by default a quarter of --data
  --ptm HOST:PORT,...       the PTM service; by default the one that the coordinator names
  --run NAME                the name of the run, if the coordinator has several
  --name ID                 this client's id in the run; by default the data file's name with a random end
  --state DIR               the folder for what outlives a crash; by default .fedbbpt/NAME
  --text-column NAME        the column with the input (text)
  --pair-column NAME        the column with a second input (text_pair), if there is one
  --label-column NAME       the column with the label (label)
  --json                    print the result as one JSON object
  --log-level LEVEL         ${LEVELS.join(", ")} (info)
  --help, -h                show this message
  --version                 show the version

Security
  --tls-ca FILE             the authority that signed the coordinator's certificate (PEM)
  --client-cert FILE        the certificate to show to the coordinator (PEM)
  --client-key FILE         the private key of --client-cert (PEM)
  --token-file FILE         the token to show to the coordinator
  --ptm-tls-ca FILE         the authority that signed the PTM service's certificate (PEM)
  --ptm-client-cert FILE    the certificate to show to the PTM service (PEM)
  --ptm-client-key FILE     the private key of --ptm-client-cert (PEM)
  --ptm-token-file FILE     the token to show to the PTM service
  --accept-ptm              send the inputs to the PTM service that the coordinator names, wherever it is
  --send-labels-to-ptm      send the labels to a PTM service that returns losses only

Exit codes: 0 success, 1 a bug, 2 a wrong command line, 3 bad input, 4 a service is down,
5 not authenticated or not safe, 6 the state folder, 8 any other expected failure.
`;

/** A command line that cannot be understood. */
export class UsageError extends Error {}

const text = { type: "string" } as const;
const flag = { type: "boolean" } as const;
const OPTIONS = {
  coordinator: text, data: text, dev: text, ptm: text, run: text, name: text, state: text, "text-column": text,
  "pair-column": text, "label-column": text, "log-level": text, "tls-ca": text, "client-cert": text,
  "client-key": text, "token-file": text, "ptm-tls-ca": text, "ptm-client-cert": text, "ptm-client-key": text,
  "ptm-token-file": text, json: flag, "accept-ptm": flag, "send-labels-to-ptm": flag, version: flag,
  help: { ...flag, short: "h" },
} as const;

/** Returns the options of a command line. Throws UsageError. */
export function parse(words: string[]) {
  let values;
  try {
    ({ values } = parseArgs({ args: words, options: OPTIONS, strict: true, allowPositionals: false }));
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
  const level = values["log-level"] ?? "info";
  if (!LEVELS.includes(level as Level)) throw new UsageError(`--log-level ${level}: one of ${LEVELS.join(", ")}`);
  if (!values.help && !values.version) {
    for (const name of ["coordinator", "data"] as const) {
      if (!values[name]) throw new UsageError(`--${name} is missing`);
    }
  }
  return { ...values, logLevel: level as Level };
}

export type Options = ReturnType<typeof parse>;
