// What a chart draws besides its lines: error bars, reference lines, and the mark of the best point. A plugin of uPlot.

import { colour, faint } from "./colours.js";

const BARS = 40; // with more points, error bars become a band

export function marks(model) {
  const ratio = () => devicePixelRatio || 1;

  function intervals(u) {
    const all = model.intervals ?? [];
    for (const [r, { low, high, colour: name }] of all.entries()) {
      const { ctx } = u;
      const at = model.x.map((x, k) => [x, low[k], high[k]]).filter(([, bottom]) => bottom !== null && bottom !== undefined);
      if (!at.length) continue;
      const aside = 5 * ratio() * (r - (all.length - 1) / 2); // those of two runs stand beside each other
      const X = (x) => u.valToPos(x, "x", true) + aside, Y = (y) => u.valToPos(y, "y", true);
      ctx.save();
      clip(u);
      if (at.length > BARS) {
        ctx.fillStyle = faint(colour(name), 0.16);
        ctx.beginPath();
        at.forEach(([x, , top]) => ctx.lineTo(X(x), Y(top)));
        at.toReversed().forEach(([x, bottom]) => ctx.lineTo(X(x), Y(bottom)));
        ctx.fill();
      } else {
        ctx.strokeStyle = faint(colour(name), 0.45);
        ctx.lineWidth = 1.25 * ratio();
        const cap = 3 * ratio();
        for (const [x, bottom, top] of at) {
          ctx.beginPath();
          ctx.moveTo(X(x), Y(bottom));
          ctx.lineTo(X(x), Y(top));
          for (const end of [bottom, top]) {
            ctx.moveTo(X(x) - cap, Y(end));
            ctx.lineTo(X(x) + cap, Y(end));
          }
          ctx.stroke();
        }
      }
      ctx.restore();
    }
  }

  function references(u) {
    const { ctx } = u, { left, width } = u.bbox;
    const size = 11.5 * ratio();
    ctx.save();
    ctx.font = `500 ${size}px Inter, sans-serif`;
    ctx.textAlign = "right";
    ctx.textBaseline = "alphabetic";
    let before = -Infinity;
    const highestFirst = [...(model.references ?? [])].sort((a, b) => b.value - a.value);
    for (const { value, label, colour: name } of highestFirst) {
      const y = u.valToPos(value, "y", true);
      ctx.strokeStyle = faint(colour(name), 0.75);
      ctx.lineWidth = 1.25 * ratio();
      ctx.setLineDash([5 * ratio(), 4 * ratio()]);
      ctx.beginPath();
      ctx.moveTo(left, y);
      ctx.lineTo(left + width, y);
      ctx.stroke();
      const above = y - 5 * ratio();
      const text = above - 1.1 * size > before ? above : Math.max(y + 1.1 * size, before + 1.2 * size);
      before = text;
      ctx.lineWidth = 4 * ratio();
      ctx.setLineDash([]);
      ctx.strokeStyle = colour("surface");
      ctx.strokeText(label, left + width - 4 * ratio(), text);
      ctx.fillStyle = colour(name);
      ctx.fillText(label, left + width - 4 * ratio(), text);
    }
    ctx.restore();
  }

  function best(u) {
    const k = model.best ?? -1;
    const value = k < 0 ? null : model.lines[0].values[k];
    if (value === null || value === undefined) return;
    const { ctx } = u;
    ctx.save();
    ctx.beginPath();
    ctx.arc(u.valToPos(model.x[k], "x", true), u.valToPos(value, "y", true), 6.5 * ratio(), 0, 2 * Math.PI);
    ctx.strokeStyle = colour("green");
    ctx.lineWidth = 2.5 * ratio();
    ctx.stroke();
    ctx.restore();
  }

  function clip(u) {
    const { left, top, width, height } = u.bbox;
    u.ctx.beginPath();
    u.ctx.rect(left - 6 * ratio(), top - 6 * ratio(), width + 12 * ratio(), height + 12 * ratio());
    u.ctx.clip();
  }

  return { hooks: { drawAxes: [intervals], draw: [references, best] } };
}
