// The lists of runs: those of the coordinator, and the past ones, of which two can be compared.

import { h, prose, svg, table } from "./dom.js";
import { count, date, interval, percent, plural } from "./figures.js";
import { compareAddress, liveAddress, pastAddress } from "./routes.js";

export function liveList(runs) {
  if (!runs.length) return h("p", { class: "empty" }, prose("The coordinator has no run. `fedbbpt runs submit` begins one."));
  return table(
    [{ name: "run" }, { name: "method" }, { name: "state" }, { name: "rounds", number: true }, { name: "queries", number: true }],
    runs.map((run) => [
      h("a", { href: liveAddress(run.key) }, run.name), run.method, run.state, `${count(run.round)} of ${count(run.rounds)}`, count(run.queries),
    ]),
    "Runs of the coordinator",
  );
}

export function pastList(runs, chosen) {
  if (!runs.length) return h("p", { class: "empty" }, "No folder here has a metrics.jsonl, which every run writes.");
  const go = h("a", { class: "button", hidden: true }, "Compare the two");
  const boxes = [];
  const choose = () => {
    const ticked = boxes.filter((box) => box.checked).map((box) => box.value);
    const names = [...chosen.filter((name) => ticked.includes(name)), ...ticked.filter((name) => !chosen.includes(name))];
    for (const box of boxes) box.disabled = names.length === 2 && !box.checked;
    chosen.splice(0, chosen.length, ...names); // in the order of ticking
    go.hidden = names.length !== 2;
    if (names.length === 2) go.href = compareAddress(...names);
  };
  const box = (name) => {
    const input = h("input", { type: "checkbox", value: name, "aria-label": `Compare ${name}` });
    input.checked = chosen.includes(name);
    input.addEventListener("change", choose);
    boxes.push(input);
    return input;
  };
  const rows = runs.map((run) => (run.broken ? broken(run) : [
    h("span", { class: "choice" }, box(run.name), h("a", { href: pastAddress(run.name) }, run.name)),
    h("span", null, run.method, h("small", null, run.ptm)),
    sparkline(run.curve),
    h("span", null, percent(run.best.dev_accuracy), h("small", null, interval(run.best.interval_95))),
    run.result ? h("span", null, percent(run.result.accuracy), h("small", null, interval(run.result.interval_95))) : "–",
    count(run.queries),
    date(run.changed),
  ]));
  const list = h("div", null,
    h("div", { class: "chart-head" }, h("p", { class: "note" }, `${plural(runs.length, "run")}. Tick two to compare them.`), go),
    table(
      [{ name: "run" }, { name: "method" }, { name: "accuracy by round" }, { name: "best on dev", number: true },
        { name: "result on test", number: true }, { name: "queries", number: true }, { name: "last round", number: true }],
      rows, "Past runs"));
  choose();
  return list;
}

const broken = (run) => [run.name, h("span", { class: "colour-red" }, run.broken), "", "–", "–", "–", "–"];

function sparkline(curve) {
  const known = curve.map((value, k) => [k, value]).filter(([, value]) => value !== null);
  if (known.length < 2) return "–";
  const values = known.map(([, value]) => value), low = Math.min(...values), high = Math.max(...values);
  const x = (k) => 1 + 98 * k / (curve.length - 1), y = (value) => 21 - 18 * (high === low ? 0.5 : (value - low) / (high - low));
  return svg("svg", { viewBox: "0 0 100 24", class: "spark colour-accent", preserveAspectRatio: "none", role: "img", "aria-label": `from ${percent(values[0])} to ${percent(values.at(-1))}` },
    svg("polyline", { points: known.map(([k, value]) => `${x(k).toFixed(1)},${y(value).toFixed(1)}`).join(" ") }));
}
