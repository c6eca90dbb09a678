// All that the cluster remembers, as one line of its load below the picture, with the shown window
// on it: drag the window, or click to go to a time.

import { ask } from "./api.js";
import { rate, span, stamp } from "./format.js";
import { sumsOf } from "./lines.js";
import { partsOf } from "./query.js";

const POINTS = 240;
const EVERY_MS = 60_000;
/** Less than this many windows of history need no map. */
const WORTH = 1.3;

export class Minimap {
  /** `does`: colours(), zone(), go(from, to). */
  constructor(box, canvas, text, does) {
    this.box = box;
    this.canvas = canvas;
    this.text = text;
    this.does = does;
    this.map = null;
    this.shown = null;
    this.name = "";
    this.askedMs = -Infinity;
    this.drag = null;
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", () => this.up());
    canvas.addEventListener("pointercancel", () => { this.drag = null; });
    canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /** Another picture is shown. */
  async follow(matrix, parameters) {
    if (matrix.width === 0) return;
    this.shown = { from: matrix.columns[0].start, to: matrix.columns.at(-1).end };
    this.draw();
    const now = performance.now();
    const { start, end, role } = parameters;
    const name = JSON.stringify([matrix.series, start, end, role]);
    if (name === this.name && now - this.askedMs < EVERY_MS) return;
    Object.assign(this, { name, askedMs: now });
    const known = matrix.nodes.map((node) => Number(node.ok ? node.oldest_ms ?? 0 : 0));
    const oldest = Math.min(...known.filter((ms) => ms > 0));
    if (!Number.isFinite(oldest)) return;
    const asked = { from_ms: oldest, max_rows: 1, max_columns: POINTS, spread: true };
    for (const [key, value] of Object.entries({ start, end, role }))
      if (value !== undefined) asked[key] = value;
    const answers = await Promise.all(partsOf(matrix.series).map((series) =>
      ask("matrix", { ...asked, series }).catch(() => null)));
    if (name !== this.name || answers.some((json) => !Array.isArray(json?.columns))) return;
    const columns = answers[0].columns;
    if (columns.length === 0) return;
    const each = answers.map(sumsOf);
    this.map = {
      from: Number(columns[0].start_ms),
      to: Number(columns.at(-1).end_ms),
      rates: columns.map((_, x) => each.reduce((sum, values) => sum + (values[x] ?? 0), 0)),
      series: matrix.series,
    };
    this.draw();
  }

  get isWorth() {
    const { map, shown } = this;
    return map !== null && shown !== null && map.to - map.from > WORTH * (shown.to - shown.from);
  }

  draw() {
    const worth = this.isWorth;
    if (this.box.hidden === worth) this.box.hidden = !worth;
    if (!worth) return;
    const { canvas, map } = this;
    const ratio = Math.min(3, window.devicePixelRatio || 1);
    const [width, height] = [canvas.clientWidth || 300, canvas.clientHeight || 30];
    canvas.width = Math.max(1, Math.round(width * ratio));
    canvas.height = Math.max(1, Math.round(height * ratio));
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const colours = this.does.colours();
    context.fillStyle = colours.plot;
    context.fillRect(0, 0, width, height);
    const most = Math.max(...map.rates) || 1;
    const wide = width / map.rates.length;
    context.fillStyle = colours.accent;
    context.globalAlpha = 0.7;
    map.rates.forEach((each, x) => {
      const high = (each / most) * (height - 4);
      context.fillRect(x * wide, height - high, Math.max(0.7, wide - 0.3), high);
    });
    context.globalAlpha = 1;
    const { from, to } = this.drag ?? this.shown;
    const [x0, x1] = [this.xOf(from, width), this.xOf(to, width)];
    context.fillStyle = colours.cursor;
    context.globalAlpha = 0.16;
    context.fillRect(x0, 0, Math.max(3, x1 - x0), height);
    context.globalAlpha = 1;
    context.strokeStyle = colours.text;
    context.strokeRect(x0 + 0.5, 0.5, Math.max(3, x1 - x0) - 1, height - 1);
    const when = `${stamp(map.from, this.does.zone())}, ${span(map.to - map.from)}`;
    this.text.textContent = `since ${when}, up to ${rate(most, map.series)}`;
    canvas.setAttribute("aria-valuenow",
      String(Math.round((100 * (to - map.from)) / (map.to - map.from))));
  }

  xOf(ms, width) {
    const { from, to } = this.map;
    return Math.max(0, Math.min(width, ((ms - from) / (to - from)) * width));
  }

  timeAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const { from, to } = this.map;
    return from + ((event.clientX - box.left) / box.width) * (to - from);
  }

  down(event) {
    if (!this.map || !this.shown) return;
    const at = this.timeAt(event);
    const { from, to } = this.shown;
    // A click beside the window brings its middle there.
    const off = at >= from && at <= to ? at - from : (to - from) / 2;
    this.drag = { off, length: to - from, from, to };
    this.canvas.setPointerCapture(event.pointerId);
    this.move(event);
  }

  move(event) {
    if (!this.drag) return;
    this.place(this.timeAt(event) - this.drag.off);
  }

  place(wanted) {
    const { length } = this.drag;
    const from = Math.max(this.map.from, Math.min(this.map.to - length, wanted));
    Object.assign(this.drag, { from, to: from + length });
    this.draw();
  }

  up() {
    if (!this.drag) return;
    const { from, to } = this.drag;
    this.drag = null;
    if (Math.abs(from - this.shown.from) > (to - from) / 100)
      this.does.go(Math.round(from), Math.round(to));
  }

  key(event) {
    const by = { ArrowLeft: -0.5, ArrowRight: 0.5 }[event.key];
    if (!by || !this.map || !this.shown) return;
    event.preventDefault();
    const { from, to } = this.shown;
    this.drag = { off: 0, length: to - from, from, to };
    this.place(from + by * (to - from));
    this.up();
  }
}
