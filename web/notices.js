// Text around the heatmap: the state of the connection, notices about an answer, the legend.

import { css, ramp } from "./colour.js";
import { conflictText, element } from "./details.js";
import { drawMark } from "./events.js";
import { SERIES_NAMES, exact, isBytes, short, span, stamp } from "./format.js";
import { HATCHES, hatchTile } from "./raster.js";

const SKEW_WARN_MS = 1_000;
const at = (id) => document.getElementById(id);

export function setLink(kind, text) {
  const pill = at("link-pill");
  // A pill whose text changes at every refresh would make the page jump and screen readers talk.
  if (kind === "busy" && pill.classList.contains("good")) return;
  pill.className = `pill ${kind}`;
  pill.title = text;
  pill.textContent = kind === "good" ? "connected" : text;
}

/** What went wrong with the last question, and what the last answer said beside its cells. */
const said = { fault: null, problems: [], matrix: null };

/** A banner over all others, whatever is shown, until the next answer; `null`: there was one. */
export function setFault(banner) {
  said.fault = banner;
  banners();
  if (said.matrix) countNodes(said.matrix);
}

/** Shows `[kind, title, text, button]` each; a button is `[label, does]`. */
function banners() {
  const list = said.fault ? [said.fault, ...said.problems] : said.problems;
  const seen = list.map((each) => each.slice(0, 3).join("\n")).join("\n\n");
  const box = at("banners");
  if (box.dataset.seen === seen) return;
  box.dataset.seen = seen;
  box.replaceChildren(
    ...list.map(([kind, title, text, button]) =>
      element(
        "p",
        { class: `banner ${kind === "warn" ? "warn" : ""}` },
        element("b", {}, title),
        text,
        button ? element("button", { type: "button", onclick: button[1] }, button[0]) : null,
      ),
    ),
  );
}

/** The message over an empty heatmap; `null` removes it. */
export function showScreen(kind, title = "", text = "") {
  const box = at("screen");
  box.hidden = kind === null;
  box.dataset.kind = kind ?? "";
  if (kind !== null) box.replaceChildren(element("h2", {}, title), element("p", {}, text));
}

/** Notices about an answer that the cells alone do not show. */
function problems(matrix, zone) {
  const list = [];
  for (const node of matrix.nodes) {
    if (!node.ok)
      list.push([
        "bad",
        `Node ${node.id} is missing`,
        `${node.address}: ${node.error || "no answer"}`,
      ]);
  }
  for (const node of matrix.nodes) {
    const skew = Number(node.clock_skew_ms ?? 0);
    if (node.ok && Math.abs(skew) >= SKEW_WARN_MS) {
      list.push([
        "warn",
        `Node ${node.id}'s clock`,
        `is ${span(Math.abs(skew))} ${skew > 0 ? "ahead" : "behind"}; ` +
          "its columns are shifted by as much.",
      ]);
    }
  }
  for (const node of matrix.nodes) {
    if (node.ok && node.past_history && !node.answered_by?.length) {
      list.push([
        "warn",
        `Node ${node.id} forgot`,
        `what it counted before ${stamp(Number(node.forgotten_before_ms), zone)}: ` +
          "its history is full.",
      ]);
    }
  }
  for (const node of matrix.nodes) {
    if (node.ok && node.beyond_end) {
      list.push([
        "warn",
        `Node ${node.id} is ahead`,
        `it has counted up to ${stamp(Number(node.newest_ms), zone)} by a clock that is or was ` +
          "ahead; its counts after the last column are not shown.",
      ]);
    }
  }
  for (const conflict of matrix.conflicts) {
    list.push(["warn", "Conflict", `${conflictText(conflict)}; the larger count is shown.`]);
  }
  if (matrix.straddling > 0) {
    list.push([
      "warn",
      "Not resolved",
      `${exact(matrix.straddling)} more were counted together with keys or time beyond what is ` +
        "shown; at most so many of them are here.",
    ]);
  }
  if (matrix.unattributed > 0) {
    list.push([
      "warn",
      "Unattributed",
      `${exact(matrix.unattributed)} could not be given to a route and are in no cell.`,
    ]);
  }
  if (matrix.saturated)
    list.push(["warn", "Saturated", "A count reached its limit; the true sum is larger."]);
  if (matrix.eventsTruncated) {
    list.push([
      "warn",
      "More changes",
      `Only the newest ${exact(matrix.events.length)} changes of routes and leaders are shown.`,
    ]);
  }
  return list;
}

const plural = (count, noun) => `${exact(count)} ${noun}${count === 1 ? "" : "s"}`;

/** The legend in words: also the caption of a saved picture. */
export function legendText(matrix, { scale }) {
  if (!(matrix.max > 0)) return "";
  const step = matrix.columns[0].end - matrix.columns[0].start;
  const unit = isBytes(matrix.series) ? "" : " operations";
  const rounded = matrix.rounded
    ? ", cells rounded to 1 in 2,048 (pin one for its exact value)"
    : "";
  const kind = scale === "log" ? "logarithmic" : "linear";
  return `0 – ${short(matrix.max, matrix.series)}${unit} in ${span(step)}, ${kind}${rounded}`;
}

export function totalText(matrix) {
  const digits = matrix.total >= 1_000 ? ` (${exact(matrix.total)})` : "";
  const total = `Total ${short(matrix.total, matrix.series)}${digits}`;
  const size = `${plural(matrix.height, "row")} × ${plural(matrix.width, "column")}`;
  return `${total} · unattributed ${exact(matrix.unattributed)} · ${size}`;
}

/** How many nodes are in the answer that is shown; after a fault nobody knows how they are now. */
function countNodes(matrix) {
  const nodes = at("nodes-pill");
  nodes.hidden = matrix.expected === 0;
  const when = said.fault ? " before" : "";
  nodes.textContent = `${matrix.responded} of ${matrix.expected} nodes${when}`;
  const kind = matrix.responded === matrix.expected ? "good" : "bad";
  nodes.className = said.fault ? "pill" : `pill ${kind}`;
}

export function describe(matrix, state, theme, colours) {
  Object.assign(said, { matrix, problems: problems(matrix, state.zone) });
  countNodes(matrix);
  banners();
  const empty = matrix.width === 0 || matrix.height === 0 || matrix.total === 0;
  const series = (SERIES_NAMES[matrix.series] ?? "operations").toLowerCase();
  const why = matrix.width === 0 ? " No column has been closed yet." : "";
  const text = `No ${series} in this window and key range.${why}`;
  showScreen(empty ? "empty" : null, "Nothing was counted", text);
  at("legend-text").textContent = legendText(matrix, state);
  at("totals").textContent = totalText(matrix);
  drawRamp(state, theme);
  drawMarks(matrix, theme, colours);
}

/** The colours of the scale, from nothing to most. */
export function paintRamp(context, x, y, width, height, state, theme) {
  const colours = ramp(state.palette, theme);
  for (let at = 0; at < width; at += 1) {
    const step = Math.min(255, Math.floor((at / (width - 1)) * 255 * 2 ** state.brightness));
    context.fillStyle = css(colours[step]);
    context.fillRect(x + at, y, 1, height);
  }
}

function drawRamp(state, theme) {
  const canvas = at("ramp");
  paintRamp(canvas.getContext("2d"), 0, 0, canvas.width, canvas.height, state, theme);
}

/** The legend of hatchings and marks: those that occur. */
function drawMarks(matrix, theme, colours) {
  for (const canvas of document.querySelectorAll("#hatches canvas")) {
    const { hatch, event } = canvas.dataset;
    const context = canvas.getContext("2d");
    const occurs = hatch ? (matrix.marks & HATCHES[hatch]) !== 0
      : event ? matrix.events.some((each) => each.kind === event)
      : Boolean(matrix.columns.at(-1)?.open);
    canvas.parentElement.hidden = !occurs;
    if (!occurs) continue;
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (hatch) {
      context.fillStyle = context.createPattern(
        hatchTile(HATCHES[hatch], 1, theme === "dark"),
        "repeat",
      );
      context.fillRect(0, 0, canvas.width, canvas.height);
    } else if (event) {
      drawMark(context, event, canvas.width / 2, canvas.height / 2, colours);
    } else {
      context.strokeStyle = colours.accent;
      context.setLineDash([3, 3]);
      context.beginPath();
      context.moveTo(canvas.width / 2 + 0.5, 0);
      context.lineTo(canvas.width / 2 + 0.5, canvas.height);
      context.stroke();
    }
  }
}
