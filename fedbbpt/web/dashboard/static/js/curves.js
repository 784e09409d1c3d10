// The models of the charts of one run, and of two runs over each other.

import { count, interval, loss, lossAt, money, percent, percentAt, size } from "./figures.js";

const values = (rounds, key) => rounds.map((round) => round[key] ?? null);
const low = (rounds) => rounds.map((round) => round.interval_95?.[0] ?? null);
const high = (rounds) => rounds.map((round) => round.interval_95?.[1] ?? null);
const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];

// The parts that several charts have in common.
const byRound = (rounds) => ({ x: values(rounds, "round"), xName: "round", xText: count, xSteps: STEPS });
const accuracies = (rounds) => ({
  yText: percentAt,
  least: 0,
  most: 1,
  lines: [{ name: "dev accuracy", values: values(rounds, "dev_accuracy"), colour: "accent" }],
  intervals: [{ low: low(rounds), high: high(rounds), colour: "accent" }],
});

// Of the controls, those that a search must beat. The others are in the table of results.
const REFERENCES = { no_prompt: "muted", offsets: "violet", readout: "violet", start: "muted" };

function references(state) {
  const drawn = state.controls
    .filter(({ key }) => key in REFERENCES)
    .map(({ key, name, accuracy }) => ({ value: accuracy, label: `${name} ${percent(accuracy)}`, colour: REFERENCES[key] }));
  return drawn.filter((one, k) => drawn.findIndex((other) => Math.abs(other.value - one.value) < 1e-9) === k);
}

const n = (round) => `n = ${count(round.dev_examples)} dev examples`;

export function accuracy(state) {
  const { rounds } = state, best = state.best();
  const controls = state.controls.length ? " The dashed lines are controls on the test examples." : "";
  return {
    ...byRound(rounds),
    ...accuracies(rounds),
    references: references(state),
    best: rounds.indexOf(best),
    point: (k) => {
      const round = rounds[k];
      if (round.dev_accuracy === null) return `Round ${round.round} did not measure its prompt.`;
      return `Round ${round.round}: ${percent(round.dev_accuracy)}, 95 % interval ${interval(round.interval_95)}, ${n(round)}`;
    },
    summary: best?.dev_accuracy != null
      ? `Best round ${best.round}: ${percent(best.dev_accuracy)} of ${count(best.dev_examples)} dev examples are right, ` +
        `with a 95 % interval of ${interval(best.interval_95)}.${controls}`
      : "Accuracy on the clients' dev examples.",
    columns: [
      { name: "round", number: true }, { name: "dev accuracy", number: true }, { name: "95 % interval", number: true },
      { name: "dev examples", number: true }, { name: "clients", number: true },
    ],
    rows: () => rounds.map((round) => [
      String(round.round), exact(round.dev_accuracy), interval(round.interval_95), count(round.dev_examples), count(round.clients),
    ]),
  };
}

export function losses(state) {
  const { rounds } = state, best = state.best(), first = state.first();
  return {
    ...byRound(rounds),
    yText: lossAt,
    lines: [
      { name: "dev loss", values: values(rounds, "dev_loss"), colour: "accent" },
      { name: "train loss of the search", values: values(rounds, "train_loss"), colour: "amber", dashed: true },
    ],
    best: rounds.indexOf(best),
    point: (k) => `Round ${rounds[k].round}: dev loss ${loss(rounds[k].dev_loss)}, train loss ${loss(rounds[k].train_loss)}`,
    summary: best && first
      ? `The dev loss fell from ${loss(first.dev_loss)} in round ${first.round} to ${loss(best.dev_loss)} in round ${best.round}.`
      : "Mean loss on the clients' dev and training examples, in nats.",
    columns: [{ name: "round", number: true }, { name: "dev loss", number: true }, { name: "train loss", number: true }],
    rows: () => rounds.map((round) => [String(round.round), exact(round.dev_loss), exact(round.train_loss)]),
  };
}

// What accuracy can be drawn against. `text` writes a value.
export const COSTS = {
  queries: { name: "queries", key: "total_queries", text: count },
  up: { name: "bytes up", key: "total_bytes_up", text: size },
  down: { name: "bytes down", key: "total_bytes_down", text: size },
  seconds: { name: "minutes", key: "total_seconds", text: (v) => (v / 60).toFixed(v < 600 ? 1 : 0) },
  money: { name: "money", key: "total_money", text: (v) => v.toPrecision(3) },
};

export function cost(state, which) {
  const { name, key, text } = COSTS[which];
  const written = which === "money" ? (v) => money(v, state.run.currency) : which === "seconds" ? (v) => `${text(v)} min` : text;
  const rounds = state.rounds.filter((round) => round[key] !== null && round[key] !== undefined);
  const best = state.best();
  return {
    x: values(rounds, key),
    xName: name,
    xText: text,
    ...accuracies(rounds),
    best: rounds.indexOf(best),
    point: (k) => `After ${written(rounds[k][key])}${which === "queries" ? " queries" : ` (${name})`}: ${percent(rounds[k].dev_accuracy)} in round ${rounds[k].round}`,
    summary: best && best[key] != null
      ? `The best prompt took ${written(best[key])}${which === "queries" ? " queries" : ` (${name})`} of ${written(rounds.at(-1)[key])} so far.`
      : `Accuracy on dev examples against ${name}.`,
    columns: [
      { name: "round", number: true }, { name: "queries", number: true }, { name: "bytes up", number: true },
      { name: "bytes down", number: true }, { name: "seconds", number: true }, { name: "dev accuracy", number: true },
    ],
    rows: () => state.rounds.map((round) => [
      String(round.round), exact(round.queries), exact(round.bytes_up), exact(round.bytes_down), exact(round.seconds), exact(round.dev_accuracy),
    ]),
  };
}

// Two runs over each other. `key` is a column of rounds, `along` what x is.
export function overlaid(runs, key, along, { yText, least, most, xText, xName }) {
  const xs = [...new Set(runs.flatMap(({ rounds }) => values(rounds, along)))].filter((x) => x !== null).sort((a, b) => a - b);
  const lines = runs.map(({ run, rounds }, r) => {
    const at = new Map(rounds.map((round) => [round[along], round]));
    return { name: run.name, at, values: xs.map((x) => at.get(x)?.[key] ?? null), colour: ["accent", "amber"][r] };
  });
  const ofAccuracy = key === "dev_accuracy";
  return {
    x: xs,
    xName,
    xText,
    xSteps: along === "round" ? STEPS : undefined,
    yText,
    least,
    most,
    lines,
    intervals: ofAccuracy
      ? lines.map(({ at, colour }) => ({
          low: xs.map((x) => at.get(x)?.interval_95?.[0] ?? null), high: xs.map((x) => at.get(x)?.interval_95?.[1] ?? null), colour,
        }))
      : [],
    best: -1,
    point: (k) => `${xName} ${xText(xs[k])}: ${lines.filter((line) => line.values[k] !== null).map((line) => `${line.name} ${ofAccuracy ? percent(line.values[k]) : loss(line.values[k])}`).join(", ")}`,
    summary: `${ofAccuracy ? "Accuracy" : "Loss"} on dev examples of ${runs.map(({ run }) => run.name).join(" and ")} by ${xName}.`,
    columns: [{ name: xName, number: true }, ...lines.map((line) => ({ name: line.name, number: true }))],
    rows: () => xs.map((x, k) => [xText(x), ...lines.map((line) => exact(line.values[k]))]),
  };
}

// A number as metrics.jsonl has it.
function exact(value) {
  return value === null || value === undefined ? "–" : String(value);
}
