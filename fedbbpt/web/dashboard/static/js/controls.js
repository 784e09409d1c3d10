// What the result has to beat: accuracies on the same examples, each with its 95 % interval.

import { h, prose, svg } from "./dom.js";
import { count, interval, percent, points, signed } from "./figures.js";

export class Controls {
  constructor() {
    this.body = h("div");
    this.title = h("h2", { id: "controls-title" }, "Against the controls");
    this.element = h("section", { class: "card controls", id: "controls", "aria-labelledby": "controls-title" }, this.title, this.body);
  }

  update(state) {
    const shown = state.controls.length ? state.controls : sinceStart(state);
    const key = JSON.stringify([shown, state.measuredLater, state.ended, state.live]);
    if (key === this.key) return;
    this.key = key;
    const notes = state.controls.length
      ? [`${count(shown[0].examples)} test examples, the same for all. The bars are 95 % intervals; those of the gains are paired.`]
      : [missing(state), shown.length ? `Until then: the best round against the first, on ${count(shown[0].examples)} dev examples, which flatter the best one, as they chose it.` : ""];
    this.body.replaceChildren(...notes.filter(Boolean).map((note) => h("p", { class: "note" }, prose(note))), shown.length ? measured(shown) : "");
  }
}

// While a run goes on, all that is known is where it began.
function sinceStart(state) {
  const first = state.first(), best = state.best();
  if (!best || best.dev_accuracy === null || !first || first.dev_accuracy === null) return [];
  const row = (round, key, name) => ({ key, name, accuracy: round.dev_accuracy, interval_95: round.interval_95, examples: round.dev_examples });
  return [row(first, "start", `round ${first.round}`), row(best, "result", `best round, ${best.round}`)];
}

function missing(state) {
  if (state.measuredLater && state.ended) return "The result and its controls are being measured on the test examples.";
  if (state.measuredLater || !state.live) {
    return "After the last round, the result is measured on test examples next to no prompt, offsets alone and, if there is one, the readout alone.";
  }
  return "A coordinator has no test examples: who has some compares the result with its controls by `fedbbpt evaluate --baseline`.";
}

function measured(controls) {
  const all = controls.flatMap(({ accuracy, interval_95: pair }) => [accuracy, ...(pair ?? [])]);
  const low = Math.max(0, Math.min(...all) - 0.02), high = Math.min(1, Math.max(...all) + 0.02);
  const at = (share) => 100 * (share - low) / (high - low);
  const gains = controls.some(({ gain }) => gain);
  return h("table", { class: "dots" },
    h("thead", null, h("tr", null, h("th", { scope: "col" }, "prompt"), h("th", { scope: "col" }, h("span", { class: "hidden" }, "95 % interval")),
      h("th", { scope: "col", class: "number" }, "accuracy"), gains && h("th", { scope: "col", class: "number" }, "gain"))),
    h("tbody", null, controls.toReversed().map((one) => row(one, at, gains))));
}

function row({ key, name, accuracy, interval_95: pair, gain }, at, gains) {
  const y = 9, result = key === "result";
  const drawing = svg("svg", { viewBox: "0 0 100 18", preserveAspectRatio: "none", class: result ? "colour-green" : "colour-accent", role: "img", "aria-label": interval(pair) },
    pair && svg("line", { x1: at(pair[0]), x2: at(pair[1]), y1: y, y2: y, class: "whisker" }),
    svg("line", { x1: at(accuracy), x2: at(accuracy), y1: y, y2: y, class: "dot" }));
  const gained = gain && h("span", null, points(gain.difference), gain.interval_95 && h("small", null, spread(gain.interval_95)));
  return h("tr", { class: result ? "result" : null },
    h("th", { scope: "row", "data-column": "prompt" }, name),
    h("td", { class: "drawing", "data-column": "95 % interval" }, drawing),
    h("td", { class: "number", "data-column": "accuracy" }, h("span", null, percent(accuracy), h("small", null, interval(pair)))),
    gains && h("td", { class: `number${gained ? "" : " blank"}`, "data-column": "the result's gain" }, gained || ""));
}

const spread = ([low, high]) => `${signed(low)} to ${signed(high)}`;
