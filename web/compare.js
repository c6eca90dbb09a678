// Two windows on one fixed axis: what grew, what fell, what appeared and what vanished. What was
// counted for several rows together counts for each of them evenly, so that no row appears or
// vanishes only because it was told apart later.

import { askOn } from "./source.js";
import { figure, rangeText } from "./charts.js";
import { element } from "./element.js";
import { percent, rate, span, stamp } from "./format.js";
import { layoutOf } from "./layout.js";
import { scaleOf } from "./scale.js";
import { serverNow } from "./api.js";

const DAY_MS = 86_400_000;
const ROWS = 40;

/** The earlier window of a comparison: `day`, `before` or `from-to`. */
export function earlier(versus, { from, to }) {
  const own = /^(\d+)-(\d+)$/.exec(versus);
  if (own) return { from: Number(own[1]), to: Number(own[2]) };
  const back = versus === "before" ? to - from : DAY_MS;
  return { from: from - back, to: to - back };
}

/** What became of each row, the largest change first. Rates are means over either window. */
export function changesOf(then, now) {
  const seconds = (matrix) =>
    (matrix.columns.at(-1).end - matrix.columns[0].start) / 1_000 || 1;
  const [s0, s1] = [seconds(then), seconds(now)];
  return now.rows.map((row, y) => {
    const [before, after] = [then.loads[y] / s0, now.loads[y] / s1];
    const kind = before === 0 ? (after === 0 ? "none" : "appeared")
      : after === 0 ? "vanished" : "both";
    return { row, before, after, difference: after - before, kind };
  }).filter((each) => each.kind !== "none")
    .sort((a, b) => Math.abs(b.difference) - Math.abs(a.difference));
}

export function ratioText({ kind, before, after }) {
  if (kind === "appeared") return "appeared";
  if (kind === "vanished") return "vanished";
  return `× ${Number((after / before).toPrecision(3))}`;
}

export class Compare {
  /** `does`: state(), look(), query() of what is shown, open(row). */
  constructor({ line, charts, rows }, does) {
    this.line = line;
    this.charts = charts;
    this.rows = rows;
    this.does = does;
    this.controller = null;
    this.name = "";
  }

  async show(matrix) {
    if (matrix.width === 0 || matrix.height === 0) return;
    const state = this.does.state();
    const window_ = { from: matrix.columns[0].start, to: matrix.columns.at(-1).end };
    const then = earlier(state.versus, window_);
    this.controller?.abort();
    const controller = new AbortController();
    this.controller = controller;
    const between = `${stamp(then.from, state.zone)} and ${stamp(window_.from, state.zone)}`;
    const length = span(window_.to - window_.from);
    if (this.line.textContent === "") this.line.textContent = "asking…";
    try {
      const before = await askOn(state, matrix, then, controller.signal);
      if (controller.signal.aborted) return;
      const oldest = oldestOf(matrix);
      const unknown = before.width === 0 || before.columns.at(-1).end <= oldest;
      if (unknown) {
        this.line.textContent =
          `Nothing is recorded of the earlier window: the cluster remembers from ` +
          `${stamp(oldest, state.zone)} on.`;
        this.charts.replaceChildren();
        this.rows.replaceChildren();
        return;
      }
      const part = before.columns[0].start < oldest
        ? ` Of the earlier one only what follows ${stamp(oldest, state.zone)} is recorded.` : "";
      this.line.textContent = `${between}, ${length} each.${part}`;
      this.draw(before, matrix);
    } catch (error) {
      if (error.name !== "AbortError") this.line.textContent = `Not known: ${error.message}`;
    }
  }

  draw(before, matrix) {
    const look = this.does.look();
    const layout = layoutOf(matrix.loads, look.height, 200);
    const scales = [before, matrix].map((each) => scaleOf(each, look, serverNow()));
    // One scale for both: else the colder one would look as hot.
    const high = Math.max(...scales.map((scale) => scale.high));
    const shared = [before, matrix].map((each) =>
      scaleOf(each, { ...look, low: look.low ?? 0, high }, serverNow()));
    const told = (each) => {
      const seconds = (each.columns.at(-1).end - each.columns[0].start) / 1_000;
      return rate(each.total / seconds, each.series);
    };
    this.charts.replaceChildren(
      figure("Then", before, look, { layout, scale: shared[0], more: told(before) }),
      figure("Now", matrix, look, { layout, scale: shared[1], more: told(matrix) }),
    );
    const changes = changesOf(before, matrix);
    const most = matrix.total / ((matrix.columns.at(-1).end - matrix.columns[0].start) / 1_000);
    this.rows.replaceChildren(...changes.slice(0, ROWS).map((each) => {
      const open = () => this.does.open(each.row);
      const sign = each.difference < 0 ? "−" : "+";
      return element(
        "tr",
        {
          tabindex: "0",
          title: "Show it in the heatmap",
          onclick: open,
          onkeydown: (event) => {
            if (event.key === "Enter") open();
          },
        },
        element("td", { class: "key" }, rangeText(each.row)),
        element("td", { class: "number" }, rate(each.before, matrix.series)),
        element("td", { class: "number" }, rate(each.after, matrix.series)),
        element("td", { class: "number" },
          `${sign}${rate(Math.abs(each.difference), matrix.series)}` +
          ` (${percent(Math.abs(each.difference), most)})`),
        element("td", { class: `number ${each.kind}` }, ratioText(each)),
      );
    }));
    if (changes.length === 0)
      this.rows.replaceChildren(element("tr", {}, element("td", { colspan: "5" }, "No load.")));
  }
}

/** The start of the oldest column of any node. */
export const oldestOf = (matrix) =>
  matrix.nodes.reduce((least, node) =>
    (node.ok && Number(node.oldest_ms) > 0 ? Math.min(least, Number(node.oldest_ms)) : least),
  Infinity);
