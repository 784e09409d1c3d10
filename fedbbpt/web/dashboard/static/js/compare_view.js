// Two past runs over each other: their curves, their figures, and the settings in which they differ.

import { Chart } from "./chart.js";
import { overlaid } from "./curves.js";
import { h, table } from "./dom.js";
import { count, duration, interval, loss, lossAt, percent, percentAt, size } from "./figures.js";
import { pastAddress } from "./routes.js";

export function compareView({ runs, differences }) {
  const percents = { yText: percentAt, least: 0, most: 1 };
  const charts = [
    [new Chart("accuracy", "Accuracy by round"), overlaid(runs, "dev_accuracy", "round", { ...percents, xText: count, xName: "round" })],
    [new Chart("loss", "Dev loss by round"), overlaid(runs, "dev_loss", "round", { yText: lossAt, xText: count, xName: "round" })],
    [new Chart("cost", "Accuracy against queries"), overlaid(runs, "dev_accuracy", "total_queries", { ...percents, xText: count, xName: "queries" })],
  ];
  const element = h("div", { class: "run compare" },
    h("section", { class: "hero" },
      h("h1", null, named(runs[0], "accent"), " and ", named(runs[1], "amber")),
      h("p", { class: "about" }, "Intervals are those of each run alone: where they overlap, the runs may differ still.")),
    charts.map(([chart]) => chart.element),
    h("section", { class: "card", "aria-labelledby": "figures-title" }, h("h2", { id: "figures-title" }, "Figures"), figures(runs)),
    h("section", { class: "card settings", id: "differences", "aria-labelledby": "differences-title" },
      h("h2", { id: "differences-title" }, "Settings that differ"), settings(runs, differences)));
  return { element, show: () => charts.forEach(([chart, model]) => chart.update(model)) };
}

const named = ({ run }, colour) => h("a", { class: `swatch colour-${colour}`, href: pastAddress(run.name) }, h("i"), run.name);

function figures(runs) {
  const best = runs.map(({ run, rounds }) => rounds.find((round) => round.round === run.best_round));
  const result = runs.map(({ controls }) => controls.find(({ key }) => key === "result"));
  const pair = (write) => runs.map((_, k) => write(k));
  const rows = [
    ["result on test examples", ...pair((k) => (result[k] ? `${percent(result[k].accuracy)} (${interval(result[k].interval_95)})` : "–"))],
    ["best dev accuracy", ...pair((k) => (best[k] ? `${percent(best[k].dev_accuracy)} (${interval(best[k].interval_95)})` : "–"))],
    ["dev examples", ...pair((k) => count(best[k]?.dev_examples))],
    ["best dev loss", ...pair((k) => loss(best[k]?.dev_loss))],
    ["best round", ...pair((k) => (best[k] ? `${best[k].round} of ${runs[k].run.rounds}` : "–"))],
    ["queries", ...pair((k) => count(runs[k].run.queries))],
    ["bytes up", ...pair((k) => size(runs[k].run.bytes_up))],
    ["bytes down", ...pair((k) => size(runs[k].run.bytes_down))],
    ["time in rounds", ...pair((k) => duration(runs[k].rounds.at(-1)?.total_seconds))],
  ];
  return table([{ name: "" }, ...runs.map(({ run }) => ({ name: run.name, number: true }))], rows, "Figures of both runs");
}

function settings(runs, differences) {
  if (!differences.length) return h("p", { class: "empty" }, "The two runs have the same settings.");
  const text = (value) => (value === null ? "not set" : typeof value === "string" ? value || "empty" : JSON.stringify(value));
  return table([{ name: "setting" }, ...runs.map(({ run }) => ({ name: run.name }))],
    differences.map(({ key, first, second }) => [key, text(first), text(second)]), "Settings that differ");
}
