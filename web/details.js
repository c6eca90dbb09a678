// What a cell says: in the tooltip while the pointer is on it, in the drawer once it is pinned.

import { ask, serverNow } from "./api.js";
import { css, ramp } from "./colour.js";
import { copyButton } from "./copying.js";
import { element, keyElement, pair } from "./element.js";
import { findingParts, kindText, whereText } from "./findings.js";
import { API_SERIES, SERIES_NAMES, exact, isBytes, percent, rate, short } from "./format.js";
import { span, stamp } from "./format.js";
import { elide, endOf, isOneKey, showStart } from "./keys.js";
import { APPORTIONED, BLOCK, CONFLICT, PARTIAL, blocksAt } from "./matrix.js";
import { columnAt } from "./matrix.js";
import { partsOf } from "./query.js";
import { after } from "./range.js";
import { secondsOf } from "./scale.js";

const TEN_MINUTES_MS = 600_000;

export function routesText(row) {
  if (row.routeCount === 0 && row.routeIds.length === 0) return "unknown";
  const named = row.routeIds.slice(0, 12).join(", ");
  const missing = row.routeCount - Math.min(12, row.routeIds.length);
  if (row.routeCount === 1) return `route ${named}`;
  const more = missing > 0 ? ` and ${exact(missing)} more` : "";
  return `${exact(row.routeCount)} routes: ${named}${more}`;
}

/** @type {[number, string][]} */
const MARKS = [
  [PARTIAL, "a node is missing here, so the true value may be larger"],
  [APPORTIONED, "spread from a coarser range, so the place within it is an estimate"],
  [CONFLICT, "two nodes claim the same term; the larger claim is shown"],
];

/** A conflict in words, without its consequence. */
export const conflictText = ({ group_id: group, term, nodes }) =>
  `nodes ${[...nodes].join(" and ")} both claim term ${term} of group ${group}`;

/** The marks of a cell in words; a conflict names the nodes if the answer lists them. */
export function marksOf({ flags, row }, conflicts) {
  const named = conflicts
    .filter((each) => row.group === null || row.group === each.group_id)
    .map((conflict) => `${conflictText(conflict)}; the larger claim is shown`);
  return MARKS.filter(([mark]) => (flags & mark) !== 0)
    .flatMap(([mark, text]) => (mark === CONFLICT && named.length > 0 ? named : [text]));
}

const markElement = (name, text) => element(name, { class: "dim" }, `▧ ${text}`);

const keysOf = (range) =>
  `${elide(showStart(range.start), 60)}${isOneKey(range) ? " " : " to "}${elide(endOf(range), 60)}`;

/** What was counted together with the cell, in words. */
export function blockTexts(matrix, place) {
  return blocksAt(matrix, place).map((block) => {
    const time = block.columns > 1 ? ` and ${block.columns} columns` : "";
    const beyond = ", which reaches beyond what is shown: at most so many are here";
    const most = block.straddling ? beyond : "";
    const value = short(block.value, matrix.series);
    return `${value} counted for ${keysOf(block)}${time} together${most}`;
  });
}

/** The count of a cell: what is its own, and up to what blocks leave open. */
export function countText(matrix, place, { value, flags }) {
  const more = blocksAt(matrix, place).reduce((sum, block) => sum + block.value, 0);
  if ((flags & BLOCK) === 0 && more === 0) return short(value, matrix.series);
  return `${short(value, matrix.series)} to ${short(value + more, matrix.series)}`;
}

/** Who counted what of a total: `by_node` of an answer, the largest share first. */
export function sharesText(shares) {
  // An id may be larger than a number can be told exactly; then it comes as text.
  const sums = new Map();
  for (const { id, total } of shares) sums.set(`${id}`, (sums.get(`${id}`) ?? 0) + Number(total));
  const told = [...sums].map(([id, total]) => ({ id: BigInt(id), total }))
    .filter(({ total }) => total > 0).sort((a, b) => b.total - a.total || (a.id < b.id ? -1 : 1));
  const sum = told.reduce((all, { total }) => all + total, 0);
  return told.length === 0
    ? "nobody"
    : told.map(({ id, total }) => `node ${id} ${percent(total, sum)}`).join(", ");
}

export function cellOf(matrix, { row, column }) {
  const at = row * matrix.width + column;
  return {
    row: matrix.rows[row], column: matrix.columns[column],
    value: matrix.values[at], flags: matrix.flags[at], rowSum: matrix.rowSums[row],
    columnSum: matrix.columnSums[column],
  };
}

/** What the same row had ten minutes before, and how many times that the cell has. */
function beforeText(matrix, { row, column }, seconds) {
  const x = columnAt(matrix, matrix.columns[column].start - TEN_MINUTES_MS);
  if (x < 0 || matrix.columns[x].start < matrix.oldestMs) return "not in the window";
  const then = matrix.painted[row * matrix.width + x] / secondsOf(matrix.columns[x], serverNow());
  const now = matrix.painted[row * matrix.width + column] / seconds;
  const times = then > 0 ? `, now ${Number((now / then).toPrecision(2))} times as much` : "";
  return `${rate(then, matrix.series)}${times}`;
}

export function columnText(column, zone) {
  const open = column.open ? ", in progress" : "";
  return `${stamp(column.start, zone)} for ${span(column.end - column.start)}${open}`;
}

export function spokenCell(matrix, place, zone) {
  const { row, column, value } = cellOf(matrix, place);
  const series = SERIES_NAMES[matrix.series] ?? matrix.series;
  const blocks = blockTexts(matrix, place).map((text) => `; ${text}`).join("");
  return `${exact(value)} ${series}${blocks}, from ${keysOf(row)}, ${columnText(column, zone)}`;
}

/** What became of a pinned cell whose row or column is another one now; empty: it is the same. */
export function movedText(pinned, row, column) {
  const was = [];
  if (row.start !== pinned.start || row.end !== pinned.end) was.push("row");
  if (column.start !== pinned.t0 || column.end !== pinned.t1) was.push("column");
  if (was.length === 0) return "";
  return `The pinned ${was.join(" and ")} is divided otherwise now: this holds its beginning.`;
}

/** A range as the commands take it: `start..end`, open where it has no end. */
export const keysText = (row) => `${row.start}..${row.end ?? ""}`;

/** Who leads a group; empty where it is not known which. */
function leaderText(row, cluster) {
  const group = cluster?.groups?.find((each) => each.group_id === row.group);
  if (!group) return "";
  return group.leader == null ? "none known" : `node ${group.leader}, term ${group.term}`;
}

function groupText(row, cluster) {
  if (row.group === null) return "several groups";
  const leader = leaderText(row, cluster);
  return `group ${row.group}${leader ? `, leader ${leader}` : ""}`;
}

export function showTooltip(tooltip, plot, place, x, y, { zone, cluster }) {
  const { matrix } = plot;
  const cell = cellOf(matrix, place);
  tooltip.replaceChildren(
    element(
      "div",
      { class: "value" },
      `${rate(cell.value / secondsOf(cell.column, serverNow()), matrix.series)} `,
      element(
        "span",
        { class: "dim" },
        `${countText(matrix, place, cell)}, ${percent(cell.value, cell.columnSum)} of the column`,
      ),
    ),
    ...blockTexts(matrix, place).map((text) => element("div", {}, text)),
    element(
      "div",
      {},
      keyElement(showStart(cell.row.start)),
      isOneKey(cell.row) ? " " : " → ",
      keyElement(endOf(cell.row)),
    ),
    element("div", { class: "dim" }, columnText(cell.column, zone)),
    element("div", { class: "dim" }, `${routesText(cell.row)} · ${groupText(cell.row, cluster)}`),
    ...marksOf(cell, matrix.conflicts).map((text) => markElement("div", text)),
  );
  tooltip.hidden = false;
  const { offsetWidth, offsetHeight } = tooltip;
  const right = x + 16 + offsetWidth <= plot.width;
  const left = right ? x + 16 : Math.max(2, x - 16 - offsetWidth);
  const above = y + 16 + offsetHeight > plot.height;
  const topmost = above ? Math.max(2, y - 12 - offsetHeight) : y + 16;
  tooltip.style.transform = `translate(${Math.round(left)}px, ${Math.round(topmost)}px)`;
}

export class Drawer {
  /**
   * `does`: close(), zoom(row), route(id), hotKeys(place, matrix, row, column, signal), and
   * lines(place, row, window, role, signal) for the four series.
   */
  constructor(aside, does) {
    this.aside = aside;
    this.does = does;
    this.controller = null;
    this.cell = "";
    this.known = {};
  }

  hide() {
    this.controller?.abort();
    this.aside.hidden = true;
    this.cell = "";
  }

  /** The cell is in no column or row any more: what is told of it is from before. */
  leave() {
    this.controller?.abort();
    const note = this.aside.querySelector(".note");
    if (note) note.textContent = "The window no longer has this cell; its numbers are from before.";
  }

  show(matrix, place, { zone, palette, theme, cluster, role, note = "" }) {
    const cell = cellOf(matrix, place);
    const { row, column } = cell;
    const seconds = secondsOf(column, serverNow());
    const leader = leaderText(row, cluster);
    // The same cell again, after a refresh: what was known stays until it is told anew.
    const name = JSON.stringify([row.start, row.end, column.start, column.end, role]);
    if (name !== this.cell) this.known = {};
    this.cell = name;
    const parts = matrix.rounded ? [] : (matrix.parts ?? [matrix]);
    const own = parts.map((part) => part.series);
    for (const part of parts)
      this.known[part.series] = amount(cellOf(part, place).value, part.series);
    const totals = Object.fromEntries(API_SERIES.map((series) =>
      [series, element("dd", {}, this.known[series] ?? "…")]));
    const counted = element("dd", {}, this.known.nodes ?? "…");
    const list = element(
      "dl",
      {},
      ...pair("From", keyElement(showStart(row.start))),
      ...pair("To", keyElement(endOf(row))),
      ...pair("Time", columnText(column, zone)),
      ...pair("Routes", routesText(row)),
      ...pair("Group", row.group === null ? "several" : String(row.group)),
      ...(leader ? pair("Leader", leader) : []),
      ...Object.entries(totals).flatMap(([series, value]) => [
        element("dt", {}, SERIES_NAMES[series]),
        value,
      ]),
      ...pair("Rate", rate(cell.value / seconds, matrix.series)),
      ...pair("10 min before", beforeText(matrix, place, seconds)),
      ...pair("Of the column", percent(cell.value, cell.columnSum)),
      ...pair("Of the total", percent(cell.value, matrix.total)),
      ...pair("Row in the window", `${exact(cell.rowSum)} (${percent(cell.rowSum, matrix.total)})`),
      element("dt", {}, "Row counted by"),
      counted,
      ...rolePairs(row.roles, cell.rowSum),
    );
    const chart = element("canvas", { role: "img", "aria-label": "The row over the window" });
    // Before anything that is shown moves.
    const kept = this.keep();
    const hot = this.hotPlace();
    const lines = this.linesPlace();
    this.aside.replaceChildren(
      this.head("Selected cell", "Let the cell go"),
      element("p", { class: "note", role: "status" }, note),
      chart,
      list,
      element("h3", {}, "Four series of these keys"),
      lines,
      element("h3", {}, "Hot keys"),
      hot,
      ...blockTexts(matrix, place).map((text) => element("p", {}, text)),
      ...marksOf(cell, matrix.conflicts).map((text) => markElement("p", text)),
      element(
        "div",
        { class: "row" },
        copyButton("Copy key", row.start),
        copyButton("Copy range", keysText(row)),
        copyButton("Copy time", new Date(column.start).toISOString()),
      ),
      element(
        "div",
        { class: "row" },
        element(
          "button",
          { type: "button", onclick: () => this.does.zoom(row) },
          "Zoom to the range",
        ),
        row.routeIds.length > 0
          ? element(
              "button",
              { type: "button", onclick: () => this.does.route(row.routeIds[0]) },
              "Show the route",
            )
          : null,
      ),
    );
    this.aside.hidden = false;
    sparkline(chart, matrix, place, css(ramp(palette, theme)[170]));
    kept();
    const missing = Object.keys(totals).filter(
      (series) => !own.includes(series) && (column.open || !(series in this.known)),
    );
    this.controller?.abort();
    const controller = new AbortController();
    this.controller = controller;
    this.askNodes(matrix, row, counted, role, controller);
    this.askHotKeys(hot, matrix, row, column, controller);
    this.askLines(lines, row, windowOf(matrix), role, controller);
    if (missing.length > 0) this.askOthers(missing, cell, totals, role, controller);
  }

  /** The hot keys of all that is shown: after a rectangle was selected, those of it. */
  showView(matrix, { zone, role }) {
    const [first, last] = [matrix.columns[0], matrix.columns.at(-1)];
    const column = { start: first.start, end: last.end, open: last.open };
    const row = { start: matrix.rows[0].start, end: matrix.rows.at(-1).end };
    const name = JSON.stringify([row, column.end - column.start, matrix.series]);
    if (name !== this.cell) this.known = {};
    this.cell = name;
    const kept = this.keep();
    const hot = this.hotPlace();
    const lines = this.linesPlace();
    const seconds = (column.end - column.start) / 1_000;
    this.aside.replaceChildren(
      this.head("Hot keys of this view", "Close"),
      element(
        "dl",
        {},
        ...pair("From", keyElement(showStart(row.start))),
        ...pair("To", keyElement(endOf(row))),
        ...pair("Time", columnText(column, zone)),
        ...pair("Rate", rate(matrix.total / seconds, matrix.series)),
      ),
      element("h3", {}, "Four series"),
      lines,
      element("h3", {}, "Hot keys"),
      hot,
    );
    this.aside.hidden = false;
    kept();
    this.controller?.abort();
    this.controller = new AbortController();
    this.askHotKeys(hot, matrix, row, column, this.controller);
    this.askLines(lines, row, windowOf(matrix), role, this.controller);
  }

  /** A finding: what it is, why, what helps, and the hot keys and series of its range. */
  showFinding(finding, matrix, { zone, role }, note) {
    const name = JSON.stringify(["finding", finding.id, role]);
    if (name !== this.cell) this.known = {};
    this.cell = name;
    const kept = this.keep();
    const hot = this.hotPlace();
    const lines = this.linesPlace();
    const row = { start: finding.key ?? finding.start, end: finding.end };
    this.aside.replaceChildren(
      this.head(kindText(finding), "Let the finding go"),
      element("p", { class: "note", role: "status" }, note),
      element("p", {}, keyElement(whereText(finding, 120))),
      ...findingParts(finding, zone),
      element("div", { class: "row" }, ...this.does.acts(finding)),
      ...(matrix ? [element("h3", {}, "Four series of these keys"), lines] : []),
      ...(matrix ? [element("h3", {}, "Hot keys"), hot] : []),
    );
    this.aside.hidden = false;
    kept();
    this.controller?.abort();
    this.controller = new AbortController();
    if (!matrix || matrix.width === 0) return;
    if (finding.key !== null) row.end = after(finding.key);
    const { from, to } = windowOf(matrix);
    const column = { start: from, end: to, open: false };
    this.askHotKeys(hot, matrix, row, column, this.controller);
    this.askLines(lines, row, { from, to }, role, this.controller);
  }

  leaveFinding() {
    const note = this.aside.querySelector(".note");
    if (note) note.textContent = "This is not found any more; what is told here is from before.";
  }

  head(title, label) {
    const looks = { type: "button", class: "quiet", "aria-label": label };
    const close = element("button", { ...looks, onclick: this.does.close }, "✕");
    return element("div", { class: "row" }, element("strong", {}, title), close);
  }

  hotPlace() {
    const waiting = [element("p", { class: "dim" }, "…")];
    return element("div", { class: "hot" }, ...(this.known.hot ?? waiting));
  }

  async askHotKeys(hot, matrix, row, column, controller) {
    await this.does.hotKeys(hot, matrix, row, column, controller.signal);
    if (!controller.signal.aborted) this.known.hot = [...hot.childNodes];
  }

  linesPlace() {
    return element("div", { class: "lines" }, ...(this.known.lines ?? []));
  }

  async askLines(place, row, window, role, controller) {
    await this.does.lines(place, row, window, role, controller.signal);
    if (!controller.signal.aborted) this.known.lines = [...place.childNodes];
  }

  /** Which nodes the row was counted by, in the whole window. */
  async askNodes(matrix, row, counted, role, controller) {
    const window = { from_ms: matrix.columns[0].start, to_ms: matrix.columns.at(-1).end };
    const parameters = { ...ofRow(row, role), ...window, by_node: true };
    try {
      const answers = await Promise.all(partsOf(matrix.series).map((series) =>
        ask("matrix", { ...parameters, series }, controller.signal)));
      if (controller.signal.aborted) return;
      const told = answers.flatMap(({ by_node: nodes }) => (Array.isArray(nodes) ? nodes : []));
      this.known.nodes = sharesText(told);
      counted.textContent = this.known.nodes;
    } catch (error) {
      if (error.name !== "AbortError") counted.textContent = "not known";
    }
  }

  /** Remembers focus and scroll of the drawer; gives them back when called. */
  keep() {
    const buttons = () => [...this.aside.querySelectorAll("button")];
    const focused = buttons().indexOf(document.activeElement);
    const { scrollTop } = this.aside;
    return () => {
      this.aside.scrollTop = scrollTop;
      if (focused >= 0) buttons()[focused]?.focus({ preventScroll: true });
    };
  }

  /** Other series of the same cell, each as the total of that range and time. */
  async askOthers(missing, { row, column }, totals, role, controller) {
    const parameters = { ...ofRow(row, role), from_ms: column.start, to_ms: column.end };
    await Promise.all(missing.map(async (series) => {
      try {
        const json = await ask("matrix", { ...parameters, series }, controller.signal);
        if (controller.signal.aborted) return;
        this.known[series] = rangeText(json, series);
        totals[series].textContent = this.known[series];
      } catch (error) {
        if (error.name !== "AbortError") totals[series].textContent = "not known";
      }
    }));
  }
}

const windowOf = ({ columns }) => ({ from: columns[0].start, to: columns.at(-1).end });

/** The total of an answer; a range where counts straddle. */
function rangeText({ total, straddling_total: more }, series) {
  const [least, most] = [Number(total), Number(total) + Number(more ?? 0)];
  const [low, high] = [amount(least, series), amount(most, series)];
  return most > least ? `${low} to ${high}` : low;
}

/** The question for the keys of a row in one cell. */
function ofRow(row, role) {
  const parameters = { max_rows: 1, max_columns: 1 };
  if (row.start !== "") parameters.start = row.start;
  if (row.end !== null) parameters.end = row.end;
  if (role) parameters.role = role;
  return parameters;
}

const amount = (value, series) =>
  isBytes(series)
    ? value < 1_024
      ? short(value, series)
      : `${exact(value)} (${short(value, series)})`
    : exact(value);

function rolePairs(roles, sum) {
  if (!roles) return [];
  const named = [
    ["Leaders, writing", roles.leader_write],
    ["Leaders, reading", roles.leader_read],
    ["Followers, reading", roles.follower_read],
  ];
  return named.filter(([, value]) => Number(value) > 0)
    .flatMap(([name, value]) => pair(name, percent(Number(value), sum)));
}

function sparkline(canvas, matrix, { row, column }, colour) {
  const ratio = Math.min(3, window.devicePixelRatio || 1);
  const [width, height] = [canvas.clientWidth || 300, 64];
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const values = matrix.painted.subarray(row * matrix.width, (row + 1) * matrix.width);
  const most = values.reduce((max, value) => Math.max(max, value), 0) || 1;
  const wide = width / matrix.width;
  context.fillStyle = colour;
  values.forEach((value, x) => {
    const high = (value / most) * (height - 6);
    context.fillRect(x * wide, height - high, Math.max(0.6, wide - 0.3), high);
  });
  context.strokeStyle = colour;
  context.strokeRect(Math.floor(column * wide) + 0.5, 0.5, Math.max(2, wide), height - 1);
}
