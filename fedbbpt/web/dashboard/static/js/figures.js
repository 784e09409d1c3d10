// How numbers are written, everywhere on the page.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const NONE = "–";

const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

export const count = (value) => (known(value) ? whole.format(value) : NONE);

export const percent = (share, digits = 1) => (known(share) ? `${(100 * share).toFixed(digits)} %` : NONE);

export const signed = (share) => `${share < 0 ? "−" : "+"}${Math.abs(100 * share).toFixed(1)}`;

export const points = (share) => (known(share) ? `${signed(share)} points` : NONE);

export const loss = (value) => (known(value) ? value.toFixed(4) : NONE);

// As many decimals as the step of an axis needs.
const decimals = (step) => Math.min(6, Math.max(0, -Math.floor(Math.log10(step * 1.0001))));
export const lossAt = (value, step) => value.toFixed(Math.max(1, decimals(step)));
export const percentAt = (share, step) => percent(share, decimals(100 * step));

export function size(bytes) {
  if (!known(bytes)) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let power = 0;
  while (bytes >= 999.5 && power < units.length - 1) { bytes /= 1000; power += 1; }
  return `${bytes >= 100 || power === 0 ? bytes.toFixed(0) : bytes.toPrecision(3)} ${units[power]}`;
}

export function duration(seconds) {
  if (!known(seconds)) return NONE;
  if (seconds < 1 && seconds > 0) return `${(seconds * 1000).toFixed(0)} ms`;
  if (seconds < 10 && !Number.isInteger(seconds)) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${seconds.toFixed(0)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

export const money = (value, currency) =>
  known(value) ? `${value.toFixed(value < 1 ? 4 : 2)} ${currency}` : NONE;

export const interval = (pair) => (pair ? `${(100 * pair[0]).toFixed(1)} to ${(100 * pair[1]).toFixed(1)} %` : NONE);

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });

export const time = (seconds) => clock.format(new Date(1000 * seconds));
export const date = (seconds) => day.format(new Date(1000 * seconds));

export const plural = (n, one) => `${count(n)} ${one}${n === 1 ? "" : "s"}`;

// Names as a sentence has them: "north", "north and east", "north, east and 3 more".
export function names(list, most = 3) {
  const shown = list.slice(0, most);
  if (list.length > most) shown.push(`${list.length - most} more`);
  return shown.length < 2 ? shown.join("") : `${shown.slice(0, -1).join(", ")} and ${shown.at(-1)}`;
}
