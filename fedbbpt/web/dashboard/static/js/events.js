// The log of a run's events, the newest first.

import { h, say } from "./dom.js";
import { time } from "./figures.js";

const KINDS = {
  join: ["joined", "muted"], eviction: ["was replaced by a newer session", "muted"], leave: ["left", "amber"],
  removal: ["was removed by an operator", "amber"], disconnection: ["lost its connection", "amber"], refusal: ["was refused", "red"],
  trouble: ["cannot work", "red"], recovery: ["can work again", "green"], late: ["deadline missed", "amber"],
  start: ["The run began", "accent"], round: ["Round", "muted"], extension: ["Round opened again", "amber"],
  privacy: ["Privacy", "muted"], stop: ["Stopped by an operator", "amber"], end: ["The run ended", "green"],
};

export class Events {
  constructor() {
    this.note = h("p", { class: "note" });
    this.list = h("ol", { class: "events", tabindex: "0", "aria-label": "Events, the newest first" });
    this.filter = h("input", { type: "checkbox", id: "important" });
    this.filter.addEventListener("change", () => this.#fill());
    this.empty = h("p", { class: "empty" }, "Nothing has happened yet.");
    this.element = h("section", { class: "card log", id: "events", "aria-labelledby": "events-title" },
      h("div", { class: "chart-head" }, h("h2", { id: "events-title" }, "Events"),
        h("label", { class: "quiet", for: "important" }, this.filter, "only what needs a look")),
      this.note, this.list, this.empty);
    this.state = null;
  }

  update(state) {
    if (this.state === state && this.last === state.events.at(-1)?.number) return;
    this.state = state;
    this.last = state.events.at(-1)?.number;
    this.#fill();
  }

  #fill() {
    const all = this.state?.events ?? [];
    const shown = this.filter.checked ? all.filter(({ kind }) => ["amber", "red"].includes(KINDS[kind]?.[1])) : all;
    say(this.note, all.length >= 250 ? "The last 250 events." : "");
    say(this.empty, all.length ? "Nothing needs a look." : "Nothing has happened yet.");
    this.empty.hidden = shown.length > 0;
    this.list.hidden = shown.length === 0;
    this.list.replaceChildren(...shown.toReversed().map(item));
  }
}

function item({ kind, time: seconds, client_id: client, round, text }) {
  const [words, colour] = KINDS[kind] ?? [kind, "muted"];
  const about = kind === "round" || kind === "extension" ? `${words} ${round}` : client ? h("span", null, h("b", null, client), ` ${words}`) : words;
  const detail = kind === "late" && client ? "" : text;
  return h("li", { class: `colour-${colour}` },
    h("time", { datetime: new Date(1000 * seconds).toISOString() }, time(seconds)), h("i"),
    h("p", null, kind === "late" && client ? h("span", null, h("b", null, client), ` missed the deadline of round ${round}`) : about, detail && h("small", null, detail)));
}
