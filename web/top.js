// The hottest ranges and the hottest keys of the window, each with its rate and share.

import { askKeys, operationsOf, thresholdText } from "./hot.js";
import { rangeText } from "./charts.js";
import { bars, element, keyElement } from "./element.js";
import { clock, percent, rate, rateNumber } from "./format.js";
import { elide, showStart } from "./keys.js";
import { rangeOf } from "./lines.js";

const RANGES = 20;
const KEYS = 20;
const POINTS = 60;

export class Top {
  /** `does`: zone(), cluster(), open(row), openKey(key), and failed to know is said in place. */
  constructor({ ranges, keys, note }, does) {
    this.ranges = ranges;
    this.keys = keys;
    this.note = note;
    this.does = does;
    this.controller = null;
  }

  show(matrix) {
    if (matrix.width === 0) return;
    const seconds = (matrix.columns.at(-1).end - matrix.columns[0].start) / 1_000;
    const order = matrix.rows.map((_, row) => row)
      .filter((row) => matrix.loads[row] > 0)
      .sort((a, b) => matrix.loads[b] - matrix.loads[a]).slice(0, RANGES);
    const kept = focusOf(this.ranges);
    this.ranges.replaceChildren(...order.map((row) => this.range(matrix, row, seconds)));
    kept();
    this.askKeys(matrix, seconds);
  }

  range(matrix, row, seconds) {
    const sum = matrix.loads[row];
    const line = pooled(matrix, row);
    const group = this.does.cluster()?.groups?.find((each) =>
      each.group_id === matrix.rows[row].group);
    const leader = group?.leader == null ? "" : `node ${group.leader}`;
    const open = () => this.does.open(matrix.rows[row]);
    return element(
      "tr",
      { tabindex: "0", title: "Show it in the heatmap", onclick: open, onkeydown: onEnter(open) },
      element("td", { class: "key" }, rangeText(matrix.rows[row], 56)),
      element("td", { class: "number" }, rate(sum / seconds, matrix.series)),
      element("td", { class: "number" }, percent(sum, matrix.total)),
      element("td", { class: "wide trend" }, bars(line, Math.max(...line), "over the window")),
      element("td", { class: "wide" }, leader),
    );
  }

  /** Keys are asked for once a show: they are of the same window. */
  async askKeys(matrix, seconds) {
    this.controller?.abort();
    const controller = new AbortController();
    this.controller = controller;
    const row = { start: matrix.rows[0].start, end: matrix.rows.at(-1).end };
    const window_ = { from_ms: matrix.columns[0].start, to_ms: matrix.columns.at(-1).end };
    const what = operationsOf(matrix.series);
    try {
      const asked = { ...rangeOf(row), ...window_, limit: KEYS, points: POINTS };
      const json = await askKeys(asked, what, controller.signal);
      if (controller.signal.aborted) return;
      const kept = focusOf(this.keys);
      this.keys.replaceChildren(...json.keys.map((key) => this.key(key, json, what, seconds)));
      kept();
      const hashed = json.hashed ? " Keys are shown as salted hashes." : "";
      this.note.textContent = thresholdText(json, what) + hashed;
    } catch (error) {
      if (error.name === "AbortError") return;
      this.keys.replaceChildren();
      this.note.textContent = `Not known: ${error.message}`;
    }
  }

  key(key, json, what, seconds) {
    const [lower, upper] = [Number(key.lower) / seconds, Number(key.upper) / seconds];
    const exact = rateNumber(lower) === rateNumber(upper);
    const much = exact ? rate(lower) : `${rateNumber(lower)} to ${rate(upper)}`;
    const open = () => { if (!json.hashed) this.does.openKey(key.key); };
    const [writes, reads] = key.of ?? [];
    const all = writes + reads;
    const mixed = key.of && all > 0
      ? `${percent(reads, all)} reads` : what === "reads" ? "reads" : "writes";
    return element(
      "tr",
      { tabindex: "0", onclick: open, onkeydown: onEnter(open) },
      keyElement(elide(showStart(key.key), 80), "td"),
      element("td", { class: "number" }, much),
      element("td", { class: "number" }, percent(Number(key.share), 1)),
      element("td", {}, mixed),
      element("td", { class: "wide" }, clock(Number(key.first_ms), this.does.zone())),
    );
  }
}

const onEnter = (run) => (event) => {
  if (event.key === "Enter") run();
};

/** Remembers which line has the focus; gives it back when called. */
function focusOf(body) {
  const at = [...body.children].indexOf(document.activeElement);
  return () => body.children[at]?.focus({ preventScroll: true });
}

/** A row of a matrix as at most 60 sums. */
function pooled({ painted, width }, row) {
  const step = Math.max(1, Math.ceil(width / POINTS));
  return Array.from({ length: Math.ceil(width / step) }, (_, x) => {
    let sum = 0;
    for (let at = x * step; at < Math.min(width, (x + 1) * step); at += 1)
      sum += painted[row * width + at];
    return sum;
  });
}
