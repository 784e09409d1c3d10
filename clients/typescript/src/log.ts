// The log: lines on standard error.

export const LEVELS = ["debug", "info", "warning", "error"] as const;
export type Level = (typeof LEVELS)[number];

let least: number = LEVELS.indexOf("info");

/** Sets the least severe lines that are written. */
export function setLevel(level: Level): void {
  least = LEVELS.indexOf(level);
}

function write(level: Level, text: string): void {
  if (LEVELS.indexOf(level) < least) return;
  process.stderr.write(`${new Date().toISOString()} ${level.toUpperCase()} ${text}\n`);
}

export const log = {
  info: (text: string) => write("info", text),
  warning: (text: string) => write("warning", text),
};
