// The page of one run.

import { Chart } from "./chart.js";
import { Controls } from "./controls.js";
import { accuracy, cost, COSTS, losses } from "./curves.js";
import { h, table } from "./dom.js";
import { Events } from "./events.js";
import { Hero } from "./hero.js";
import { Members } from "./members.js";
import { Vitals } from "./vitals.js";

export class RunView {
  constructor() {
    this.choice = h("select", { id: "cost-of", "aria-label": "Draw accuracy against" });
    this.choice.addEventListener("change", () => this.#drawCost());
    this.hero = new Hero();
    this.vitals = new Vitals();
    this.accuracy = new Chart("accuracy", "Accuracy by round");
    this.losses = new Chart("loss", "Loss by round");
    this.cost = new Chart("cost", "What accuracy cost", this.choice);
    this.controls = new Controls();
    this.members = new Members();
    this.events = new Events();
    this.settings = h("section", { class: "card settings", hidden: true });
    this.element = h("div", { class: "run" },
      this.hero.element, this.vitals.element, this.accuracy.element, this.losses.element,
      this.cost.element, this.controls.element, this.members.element, this.events.element, this.settings);
    this.state = null;
    this.timer = setInterval(() => this.#tick(), 1000);
  }

  update(state) {
    this.state = state;
    if (!state.run) return;
    this.hero.update(state);
    // Before the first round there is nothing to draw, and who is missing matters most.
    const waiting = state.run.state === "waiting";
    for (const { element } of [this.vitals, this.accuracy, this.losses, this.cost, this.controls]) element.hidden = waiting;
    this.vitals.update(state);
    this.accuracy.update(accuracy(state));
    this.losses.update(losses(state));
    this.#choices();
    this.#drawCost();
    this.controls.update(state);
    this.members.element.hidden = this.events.element.hidden = !state.live;
    if (state.live) {
      this.members.update(state);
      this.events.update(state);
    }
    if (state.settings && this.settings.hidden) this.#showSettings(state.settings);
  }

  #choices() {
    const known = Object.entries(COSTS).filter(([, { key }]) => this.state.rounds.some((round) => round[key] != null));
    const names = known.map(([id]) => id).join();
    this.choice.hidden = !known.length;
    if (names === this.choices) return;
    const chosen = this.choice.value;
    this.choices = names;
    this.choice.replaceChildren(...known.map(([id, { name }]) => h("option", { value: id }, name)));
    if (known.some(([id]) => id === chosen)) this.choice.value = chosen;
  }

  #drawCost() {
    this.cost.update(cost(this.state, this.choice.value || "queries"));
  }

  #showSettings(settings) {
    const rows = Object.entries(settings).map(([key, value]) => [key, typeof value === "string" ? value || "–" : JSON.stringify(value)]);
    this.settings.replaceChildren(
      h("details", null, h("summary", null, h("h2", null, "Settings")), table([{ name: "setting" }, { name: "value" }], rows, "Settings of the run")));
    this.settings.hidden = !rows.length;
  }

  #tick() {
    if (!this.state?.run) return;
    this.hero.tick(this.state);
    if (this.state.live) this.members.tick(this.state);
  }

  close() {
    clearInterval(this.timer);
  }
}
