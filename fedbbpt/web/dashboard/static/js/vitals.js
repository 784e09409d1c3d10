// The few numbers that people look for first.

import { h, say } from "./dom.js";
import { count, duration, interval, loss, money, percent, points, size } from "./figures.js";

export class Vitals {
  constructor() {
    this.tiles = new Map();
    this.element = h("dl", { class: "vitals" });
  }

  update(state) {
    const shown = vitals(state);
    for (const [key, tile] of this.tiles) {
      if (shown.some((one) => one.key === key)) continue;
      tile.element.remove();
      this.tiles.delete(key);
    }
    for (const { key, name, value, detail, big } of shown) {
      let tile = this.tiles.get(key);
      if (!tile) {
        tile = { name: h("dt"), value: h("dd", { class: "value" }), detail: h("dd", { class: "detail" }) };
        tile.element = h("div", { class: `card vital${big ? " big" : ""}`, id: `vital-${key}` }, tile.name, tile.value, tile.detail);
        this.tiles.set(key, tile);
      }
      this.element.append(tile.element); // keeps the order
      say(tile.name, name);
      say(tile.value, value);
      say(tile.detail, detail);
    }
  }
}

function vitals(state) {
  const { run, rounds } = state;
  const best = state.best(), first = state.first(), last = rounds.at(-1);
  const result = state.controls.find(({ key }) => key === "result");
  const tiles = [];
  if (result) {
    tiles.push({ key: "result", big: true, name: "Accuracy on test examples", value: percent(result.accuracy),
      detail: `${interval(result.interval_95)} with 95 % confidence, ${count(result.examples)} test examples` });
  }
  const gained = best && first && best !== first && best.dev_accuracy !== null && first.dev_accuracy !== null
    ? `, ${points(best.dev_accuracy - first.dev_accuracy)} since round ${first.round}` : "";
  if (best?.dev_accuracy !== null || !best) {
    tiles.push({ key: "accuracy", big: !result, name: "Best accuracy on dev examples", value: best ? percent(best.dev_accuracy) : "–",
      detail: !best ? "no round has closed yet" : result ? `of ${count(best.dev_examples)} examples, in round ${best.round}`
        : `${interval(best.interval_95)} with 95 % confidence, ${count(best.dev_examples)} examples${gained}` });
  }
  tiles.push({ key: "loss", name: "Best dev loss", value: best ? loss(best.dev_loss) : "–",
    detail: best ? `in round ${best.round}${first && first !== best ? `, ${loss(first.dev_loss)} at the start` : ""}` : "mean cross-entropy, in nats" });
  tiles.push({ key: "queries", name: "Queries", value: count(run.queries),
    detail: last ? `${count(last.queries)} in round ${last.round}` : "prompt and example pairs" });
  const paid = last?.total_money;
  if (paid !== undefined && paid !== null) {
    tiles.push({ key: "money", name: "Money", value: money(paid, run.currency), detail: "at the price of a new query" });
  }
  if (run.bytes_up !== null || run.bytes_down !== null) {
    tiles.push({ key: "bytes", name: "Traffic", value: size((run.bytes_up ?? 0) + (run.bytes_down ?? 0)),
      detail: `${size(run.bytes_up)} from clients, ${size(run.bytes_down)} to them` });
  }
  if (last?.total_seconds) { // a simulation has none
    const each = last.total_seconds / rounds.length;
    const left = run.state === "running" ? (run.rounds + 1 - rounds.length) * each : 0;
    tiles.push({ key: "time", name: "Time in rounds", value: duration(last.total_seconds),
      detail: left ? `about ${duration(left)} left` : `${duration(each)} a round` });
  }
  if (run.privacy) {
    const { epsilon, epsilon_limit: limit, delta, level } = run.privacy;
    tiles.push({ key: "privacy", name: "Privacy spent", value: `ε ${epsilon.toPrecision(3)}${limit ? ` of ${limit}` : ""}`,
      detail: `δ ${delta.toExponential(0)}, for each ${level}` });
  }
  return tiles;
}
