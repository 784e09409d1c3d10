// A chart with its title, a line that says what is under the cursor, and the same numbers as a table.
//
// A model of what to draw:
//   x            numbers, ascending
//   xName, xText what x is, and how a value is written
//   xSteps       the distances that labels of x may have, if not any round number
//   yText        how a value is written, with the step of the axis
//   least, most  the ends that the axis of y never goes beyond, if there are any
//   lines        [{name, values, colour, dashed}], null where nothing was measured
//   intervals    [{low, high, colour}], for error bars
//   references   [{value, label, colour}], for horizontal lines
//   best         the index of the point to mark on the first line, or -1
//   point(k)     a sentence about the k-th point
//   summary      a sentence about the whole
//   columns, rows  the table

import { colour } from "./colours.js";
import { h, say, table } from "./dom.js";
import { marks } from "./marks.js";

const HEIGHT = 268;
const STEPS = Array.from({ length: 24 }, (_, k) => [1, 2, 5][k % 3] * 10 ** (Math.floor(k / 3) - 5)); // from 0.00001

export class Chart {
  constructor(id, title, extra = null) {
    this.model = null;
    this.plot = null;
    this.shape = "";
    this.readout = h("p", { class: "readout", "aria-live": "polite" });
    this.legend = h("p", { class: "legend" });
    this.canvas = h("div", { class: "canvas", role: "img", tabindex: "0" });
    this.empty = h("p", { class: "empty" }, "The first point comes with the first round that closes.");
    this.numbers = h("div", { class: "numbers" });
    const shown = h("details", null, h("summary", null, "The numbers as a table"), this.numbers);
    shown.addEventListener("toggle", () => this.#fillTable());
    this.details = shown;
    this.element = h(
      "section",
      { class: "card chart", id, "aria-labelledby": `${id}-title` },
      h("div", { class: "chart-head" }, h("h2", { id: `${id}-title` }, title), extra),
      this.legend,
      this.canvas,
      this.empty,
      this.readout,
      shown,
    );
    this.canvas.addEventListener("keydown", (event) => this.#move(event));
    this.canvas.addEventListener("blur", () => this.plot?.setCursor({ left: -10, top: -10 }));
    new ResizeObserver(() => this.#resize()).observe(this.canvas);
    addEventListener("themechange", () => this.#rebuild());
    document.fonts.ready.then(() => this.#rebuild());
  }

  update(model) {
    this.model = model;
    const any = model.lines.some((line) => line.values.some((value) => value !== null && value !== undefined));
    this.canvas.hidden = this.readout.hidden = this.legend.hidden = !any;
    this.details.hidden = !any;
    this.empty.hidden = any;
    if (!any) return;
    this.canvas.setAttribute("aria-label", `${model.summary} The arrow keys go from point to point.`);
    const shape = JSON.stringify([model.xName, model.lines.map((line) => line.name)]);
    if (this.plot === null || this.shape !== shape) this.#rebuild();
    else {
      Object.assign(this.drawn, model);
      this.plot.setData([model.x, ...model.lines.map((line) => line.values)]);
    }
    this.shape = shape;
    this.#say(this.plot?.cursor.idx ?? null);
    this.#fillTable();
  }

  #fillTable() {
    if (!this.details.open || !this.model) return;
    this.numbers.replaceChildren(table(this.model.columns, this.model.rows(), this.model.summary));
  }

  #say(k) {
    const model = this.model;
    if (model) say(this.readout, k === null || k === undefined ? model.summary : model.point(k));
  }

  #move(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const ends = { Home: 0, End: this.model ? this.model.x.length - 1 : 0 };
    if (!this.plot || (!step && !(event.key in ends))) return;
    event.preventDefault();
    const last = this.model.x.length - 1;
    const from = this.plot.cursor.idx ?? (step > 0 ? -1 : last + 1);
    const k = step ? Math.min(last, Math.max(0, from + step)) : ends[event.key];
    this.plot.setCursor({ left: this.plot.valToPos(this.model.x[k], "x"), top: 1 });
  }

  #resize() {
    const width = Math.floor(this.canvas.clientWidth);
    if (this.plot && width > 0 && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
    else if (!this.plot) this.#rebuild();
  }

  #rebuild() {
    const model = this.model, width = Math.floor(this.canvas.clientWidth);
    if (!model || this.canvas.hidden || width <= 0) return;
    this.plot?.destroy();
    this.drawn = { ...model };
    const font = "12px Inter, sans-serif", ink = colour("muted");
    const axis = (text, steps) => ({
      incrs: steps,
      stroke: ink,
      font,
      ticks: { show: false },
      grid: { stroke: colour("line"), width: 1 },
      values: (u, values, index, space, step) => values.map((value) => text(value, step)),
    });
    const drawn = this.drawn;
    this.plot = new uPlot(
      {
        width,
        height: HEIGHT,
        padding: [14, 22, 0, 4],
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, points: { size: 9 } },
        scales: { x: { time: false, range: (u, low, high) => within(low, high, 0.02) }, y: { range: () => limits(drawn) } },
        axes: [
          { ...axis((v) => drawn.xText(v), drawn.xSteps), grid: { show: false }, size: 34, gap: 8, space: 64 },
          { ...axis((v, step) => drawn.yText(v, step), STEPS), size: 58, gap: 8, space: 44 },
        ],
        series: [
          {},
          ...model.lines.map((line) => ({
            label: line.name,
            stroke: () => colour(line.colour),
            width: 2.25,
            dash: line.dashed ? [6, 4] : undefined,
            spanGaps: true,
            points: { size: model.x.length > 60 ? 0 : 6, fill: () => colour(line.colour), width: 0 },
          })),
        ],
        hooks: { setCursor: [(u) => this.#say(u.cursor.idx)] },
        plugins: [marks(drawn)],
      },
      [model.x, ...model.lines.map((line) => line.values)],
      this.canvas,
    );
    this.legend.replaceChildren(
      ...model.lines.map((line) => h("span", { class: `key colour-${line.colour}${line.dashed ? " dashed" : ""}` }, h("i"), line.name)),
      ...(model.best >= 0 ? [h("span", { class: "key ring colour-green" }, h("i"), "best round")] : []),
      ...(model.intervals?.length ? [h("span", { class: "key whiskers colour-accent" }, h("i"), "95 % interval")] : []),
    );
  }
}

function within(low, high, share) {
  const room = Math.max(share * (high - low), low === high ? 0.5 : 0);
  return [low - room, high + room];
}

// The range of y: all lines, error bars and references, with some room, never beyond model.most.
function limits(model) {
  const values = [
    ...model.lines.flatMap((line) => line.values),
    ...(model.intervals ?? []).flatMap(({ low, high }) => [...low, ...high]),
    ...(model.references ?? []).map(({ value }) => value),
  ].filter((value) => Number.isFinite(value));
  if (!values.length) return [0, 1];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = 0.06 * (high - low) || 0.05;
  return [Math.max(model.least ?? -Infinity, low - room), Math.min(model.most ?? Infinity, high + room)];
}

