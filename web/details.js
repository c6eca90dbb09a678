// What a cell says: in the tooltip while the pointer is on it, in the drawer once it is pinned.

import { ask } from "./api.js";
import { css, ramp } from "./colour.js";
import { SERIES_NAMES, exact, isBytes, percent, short, span, stamp } from "./format.js";
import { elide, showEnd, showStart } from "./keys.js";
import { APPORTIONED, CONFLICT, PARTIAL } from "./matrix.js";

/** An element with text or children; text is never markup. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const LONGEST_KEY = 160;

export function keyElement(shown, name = "span") {
  const attributes = { class: "key" };
  if (shown.length > LONGEST_KEY) attributes.title = shown;
  return element(name, attributes, elide(shown, LONGEST_KEY));
}

export function routesText(row) {
  if (row.routeCount === 0 && row.routeIds.length === 0) return "unknown";
  const named = row.routeIds.slice(0, 12).join(", ");
  const missing = row.routeCount - Math.min(12, row.routeIds.length);
  if (row.routeCount === 1) return `route ${named}`;
  const more = missing > 0 ? ` and ${exact(missing)} more` : "";
  return `${exact(row.routeCount)} routes: ${named}${more}`;
}

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

/** Who counted what of a total: `by_node` of an answer, the largest share first. */
export function sharesText(shares) {
  const told = shares.map(({ id, total }) => ({ id: Number(id), total: Number(total) }))
    .filter(({ total }) => total > 0).sort((a, b) => b.total - a.total || a.id - b.id);
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

export function columnText(column, zone) {
  const open = column.open ? ", in progress" : "";
  return `${stamp(column.start, zone)} for ${span(column.end - column.start)}${open}`;
}

export function spokenCell(matrix, place, zone) {
  const { row, column, value } = cellOf(matrix, place);
  const series = SERIES_NAMES[matrix.series] ?? matrix.series;
  const keys = `from ${elide(showStart(row.start), 60)} to ${elide(showEnd(row.end), 60)}`;
  return `${exact(value)} ${series}, ${keys}, ${columnText(column, zone)}`;
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
      `${short(cell.value, matrix.series)} `,
      element("span", { class: "dim" }, `${percent(cell.value, matrix.total)} of the total`),
    ),
    element(
      "div",
      {},
      keyElement(showStart(cell.row.start)),
      " → ",
      keyElement(showEnd(cell.row.end)),
    ),
    element("div", { class: "dim" }, columnText(cell.column, zone)),
    element("div", { class: "dim" }, `${routesText(cell.row)} · ${groupText(cell.row, cluster)}`),
    ...marksOf(cell, matrix.conflicts).map((text) => element("div", { class: "dim" }, `▧ ${text}`)),
  );
  tooltip.hidden = false;
  const { offsetWidth, offsetHeight } = tooltip;
  const right = x + 16 + offsetWidth <= plot.width;
  const left = right ? x + 16 : Math.max(2, x - 16 - offsetWidth);
  const above = y + 16 + offsetHeight > plot.height;
  const topmost = above ? Math.max(2, y - 12 - offsetHeight) : y + 16;
  tooltip.style.transform = `translate(${Math.round(left)}px, ${Math.round(topmost)}px)`;
}

function copyButton(label, text) {
  const button = element("button", { type: "button" }, label);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "The browser refused";
    }
    setTimeout(() => { button.textContent = label; }, 1_500);
  });
  return button;
}

export class Drawer {
  /** `does`: close(), zoom(row), route(id). */
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

  show(matrix, place, { zone, palette, theme, cluster, role }) {
    const cell = cellOf(matrix, place);
    const { row, column } = cell;
    const leader = leaderText(row, cluster);
    // The same cell again, after a refresh: what was known stays until it is told anew.
    const name = JSON.stringify([row.start, row.end, column.start, column.end, role]);
    if (name !== this.cell) this.known = {};
    this.cell = name;
    const own = matrix.rounded ? null : matrix.series;
    if (own) this.known[own] = amount(cell.value, own);
    const totals = Object.fromEntries(Object.keys(SERIES_NAMES).map((series) =>
      [series, element("dd", {}, this.known[series] ?? "…")]));
    const counted = element("dd", {}, this.known.nodes ?? "…");
    const list = element(
      "dl",
      {},
      ...pair("From", keyElement(showStart(row.start))),
      ...pair("To", keyElement(showEnd(row.end))),
      ...pair("Time", columnText(column, zone)),
      ...pair("Routes", routesText(row)),
      ...pair("Group", row.group === null ? "several" : String(row.group)),
      ...(leader ? pair("Leader", leader) : []),
      ...Object.entries(totals).flatMap(([series, value]) => [
        element("dt", {}, SERIES_NAMES[series]),
        value,
      ]),
      ...pair("Of the column", percent(cell.value, cell.columnSum)),
      ...pair("Of the total", percent(cell.value, matrix.total)),
      ...pair("Row in the window", `${exact(cell.rowSum)} (${percent(cell.rowSum, matrix.total)})`),
      element("dt", {}, "Row counted by"),
      counted,
      ...rolePairs(row.roles, cell.rowSum),
    );
    const chart = element("canvas", { role: "img", "aria-label": "The row over the window" });
    const kept = this.keep();
    this.aside.replaceChildren(
      element(
        "div",
        { class: "row" },
        element("strong", {}, "Pinned cell"),
        element(
          "button",
          {
            type: "button",
            class: "quiet",
            "aria-label": "Let the cell go",
            onclick: this.does.close,
          },
          "✕",
        ),
      ),
      chart,
      list,
      ...marksOf(cell, matrix.conflicts).map((text) => element("p", { class: "dim" }, `▧ ${text}`)),
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
      (series) => series !== own && (column.open || !(series in this.known)),
    );
    this.controller?.abort();
    const controller = new AbortController();
    this.controller = controller;
    this.askNodes(matrix, row, counted, role, controller);
    if (missing.length > 0) this.askOthers(missing, cell, totals, role, controller);
  }

  /** Which nodes the row was counted by, in the whole window. */
  async askNodes(matrix, row, counted, role, controller) {
    const window = { from_ms: matrix.columns[0].start, to_ms: matrix.columns.at(-1).end };
    const parameters = { ...ofRow(row, role), ...window, series: matrix.series, by_node: true };
    try {
      const json = await ask("matrix", parameters, controller.signal);
      if (controller.signal.aborted) return;
      this.known.nodes = sharesText(Array.isArray(json.by_node) ? json.by_node : []);
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
        this.known[series] = amount(Number(json.total), series);
        totals[series].textContent = this.known[series];
      } catch (error) {
        if (error.name !== "AbortError") totals[series].textContent = "not known";
      }
    }));
  }
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

const pair = (name, value) => [element("dt", {}, name), element("dd", {}, value)];

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
  const values = matrix.values.subarray(row * matrix.width, (row + 1) * matrix.width);
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
