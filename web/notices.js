// Text around the heatmap: notices about an answer, the legend, the screen over an empty picture.

import { css, greys, ramp } from "./colour.js";
import { conflictText } from "./details.js";
import { all, at, element } from "./element.js";
import { drawMark } from "./events.js";
import { SERIES_NAMES, exact, isBytes, rate, rateNumber, rateUnit, short } from "./format.js";
import { span, stamp } from "./format.js";
import { BLOCK } from "./matrix.js";
import { HATCHES, hatchTile } from "./raster.js";
import { ticks } from "./scale.js";

const SKEW_WARN_MS = 1_000;

/** The message over an empty heatmap; `null` removes it. */
export function showScreen(kind, title = "", text = "") {
  const box = at("screen");
  box.hidden = kind === null;
  box.dataset.kind = kind ?? "";
  if (kind !== null) box.replaceChildren(element("h2", {}, title), element("p", {}, text));
}

/** A group without a leader: its keys can be neither written nor read as of now. */
function leaderless(cluster) {
  const groups = Array.isArray(cluster?.groups) ? cluster.groups : [];
  const without = groups.filter((group) => group.leader == null).map((group) => group.group_id);
  if (without.length === 0) return [];
  const named = without.slice(0, 6).join(", ") + (without.length > 6 ? " and more" : "");
  const what = without.length === 1 ? `Group ${named} has` : `Groups ${named} have`;
  return [["bad", "No quorum", `${what} no leader: its keys can be neither read nor written.`]];
}

/** Notices about an answer that the cells alone do not show. */
export function problems(matrix, cluster, zone) {
  const list = leaderless(cluster);
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
    if (node.ok && node.past_history) {
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

const KINDS = { clip: "linear", linear: "linear", exponent: "square root", log: "logarithmic" };

/** The legend in words: also the caption of a saved picture. */
export function legendText(matrix, scale) {
  if (!(matrix.max > 0) || !scale) return "";
  const step = matrix.columns[0].end - matrix.columns[0].start;
  const peak = scale.clipped ? `, peaks up to ${rate(scale.most, matrix.series)}` : "";
  const rounded = matrix.rounded
    ? ", cells rounded to 1 in 2,048 (select one for its exact value)"
    : "";
  const what = `${rateUnit(matrix.series)} in a row and ${span(step)}`;
  return `${what}, ${KINDS[scale.kind]}${peak}${rounded}`;
}

export function totalText(matrix) {
  const digits = matrix.total >= 1_000 ? ` (${exact(matrix.total)})` : "";
  const total = `Total ${short(matrix.total, matrix.series)}${digits}`;
  const size = `${plural(matrix.height, "row")} × ${plural(matrix.width, "column")}`;
  return `${total} · unattributed ${exact(matrix.unattributed)} · ${size}`;
}

/** Shows what an answer says around its cells. */
export function describe(plot, state, theme) {
  const { matrix } = plot;
  const empty = matrix.width === 0 || matrix.height === 0 || matrix.total === 0;
  const series = (SERIES_NAMES[matrix.series] ?? "operations").toLowerCase();
  const why = matrix.width === 0 ? " No column has been closed yet." : "";
  const text = `No ${series} in this window and key range.${why}`;
  showScreen(empty ? "empty" : null, "Nothing was counted", text);
  const legend = legendText(matrix, plot.scale);
  if (at("legend-text").textContent !== legend) at("legend-text").textContent = legend;
  at("totals").textContent = totalText(matrix);
  drawRamp(plot, state, theme);
  drawMarks(plot, theme, plot.lookColours());
}

/** The colours of the scale, from nothing to most, with the rates that they stand for. */
export function paintRamp(context, x, y, width, height, { state, theme, scale, series, colour }) {
  const colours = ramp(state.palette, theme);
  for (let at = 0; at < width; at += 1) {
    context.fillStyle = css(colours[Math.floor((at / (width - 1)) * 255)]);
    context.fillRect(x + at, y, 1, height);
  }
  if (!scale || !(scale.high > 0)) return;
  context.fillStyle = colour;
  context.textBaseline = "top";
  context.textAlign = "center";
  let free = -Infinity;
  for (const mark of ticks(scale)) {
    const left = x + scale.part(mark) * (width - 1);
    context.fillRect(Math.round(left), y + height, 1, 3);
    const more = scale.clipped && mark >= scale.high * 0.97 ? "≥ " : "";
    const text = more + (isBytes(series) ? short(mark, series) : rateNumber(mark));
    const wide = context.measureText(text).width;
    const middle = Math.max(x + wide / 2, Math.min(x + width - wide / 2, left));
    if (middle - wide / 2 < free + 6) continue;
    context.fillText(text, middle, y + height + 4);
    free = middle + wide / 2;
  }
}

function drawRamp(plot, state, theme) {
  const canvas = at("ramp");
  const ratio = Math.min(3, window.devicePixelRatio || 1);
  const [width, height] = [canvas.clientWidth || 240, canvas.clientHeight || 28];
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const size = parseFloat(getComputedStyle(canvas).fontSize) * 0.85;
  context.font = `${size}px system-ui, "DejaVu Sans", sans-serif`;
  const { scale, matrix } = plot;
  const colour = plot.lookColours().dim;
  const bar = Math.max(8, height - size - 7);
  paintRamp(context, 0, 0, width, bar, { state, theme, scale, series: matrix.series, colour });
}

/** The legend of hatchings and marks: those that occur. */
function drawMarks({ matrix }, theme, colours) {
  for (const canvas of all("#hatches canvas")) {
    const { hatch, event, block, unknown } = canvas.dataset;
    const context = canvas.getContext("2d");
    const occurs = hatch ? (matrix.marks & HATCHES[hatch]) !== 0
      : event ? matrix.events.some((each) => each.kind === event)
      : block !== undefined ? (matrix.marks & BLOCK) !== 0
      : unknown !== undefined ? matrix.oldestMs > (matrix.columns[0]?.start ?? Infinity)
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
    } else if (block !== undefined || unknown !== undefined) {
      context.fillStyle = block === undefined ? colours.grid : css(greys(theme)[120]);
      context.fillRect(0, 0, canvas.width, canvas.height);
      if (block !== undefined) {
        context.strokeStyle = colours.dim;
        context.strokeRect(0.5, 0.5, canvas.width - 1, canvas.height - 1);
      }
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
