// Small pictures of a matrix, beside each other on the same axes: each with its title, its scale
// and what is under the pointer.

import { serverNow } from "./api.js";
import { timeMarks } from "./axes.js";
import { element } from "./element.js";
import { clock, rate } from "./format.js";
import { elide, endOf, isOneKey, showStart } from "./keys.js";
import { labelsOf } from "./labels.js";
import { layoutOf, rowOfUnit } from "./layout.js";
import { columnAt } from "./matrix.js";
import { Raster, poolFactor } from "./raster.js";
import { scaleOf, secondsOf } from "./scale.js";

/** The width of the key axis of a small picture. */
const KEYS = 92;
const AXIS = 16;
const FONT = '11px ui-monospace, "DejaVu Sans Mono", monospace';

/** The names of the folders and hot rows, beside the cells. */
function drawLabels(context, matrix, look, layout, high) {
  const y = (row) => (layout.edges[row] / matrix.height) * high;
  const span = (row) => [y(row), y(row + 1)];
  const letter = context.measureText("0").width;
  context.textAlign = "left";
  context.textBaseline = "middle";
  const shown = { matrix, folds: layout.folds };
  for (const { y: at, text, level } of labelsOf(shown, [0, matrix.height], span, 14)) {
    if (at > high) break;
    const indent = level === 1 ? 0 : 8;
    context.fillStyle = level === 1 ? look.colours.text : look.colours.dim;
    context.fillText(elide(text, Math.floor((KEYS - 4 - indent) / letter)), indent, at);
  }
}

/** Draws a matrix over a canvas; `scale` is its own, or one that several share. */
export function drawMatrix(canvas, matrix, look, layout, scale) {
  const ratio = Math.min(3, window.devicePixelRatio || 1);
  const [width, height] = [canvas.clientWidth || 300, canvas.clientHeight || 160];
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  const context = canvas.getContext("2d");
  context.fillStyle = look.colours.plot;
  context.fillRect(0, 0, canvas.width, canvas.height);
  if (matrix.width === 0 || matrix.height === 0) return;
  const high = canvas.height - Math.round(AXIS * ratio);
  const left = Math.round(KEYS * ratio);
  const wide = canvas.width - left;
  const raster = new Raster(matrix, look, scale, layout.edges, high);
  const fx = poolFactor(wide / matrix.width);
  const fy = poolFactor(high / raster.lines);
  const image = raster.image(fx, fy);
  context.imageSmoothingEnabled = false;
  context.drawImage(image, 0, 0, matrix.width / fx, raster.lines / fy, left, 0, wide, high);
  context.scale(ratio, ratio);
  context.font = FONT;
  drawLabels(context, matrix, look, layout, height - AXIS);
  context.fillStyle = look.colours.dim;
  context.textBaseline = "top";
  context.textAlign = "center";
  const [t0, t1] = [matrix.columns[0].start, matrix.columns.at(-1).end];
  for (const mark of timeMarks(t0, t1, width - KEYS, look.zone)) {
    const x = KEYS + ((mark.ms - t0) / (t1 - t0)) * (width - KEYS);
    if (x > KEYS + 18 && x < width - 18) context.fillText(mark.text, x, height - 13);
  }
}

/**
 * A figure of a matrix; `more` is told beside its title.
 * @param {string} title
 * @param {any} matrix
 * @param {any} look
 * @param {{layout?: any, scale?: any, more?: string}} options
 */
export function figure(title, matrix, look, { layout, scale, more = "" }) {
  const own = layout ?? layoutOf(matrix.loads, look.height, 160);
  const drawn = scale ?? scaleOf(matrix, look, serverNow());
  const canvas = element("canvas", { role: "img", "aria-label": `${title}: ${more}` });
  const most = drawn.high > 0 ? `, scale to ${rate(drawn.high, matrix.series)} a row` : "";
  const said = element("figcaption", {}, element("b", {}, title), ` ${more}${most}`);
  const under = element("div", { class: "under dim" }, "\u00a0");
  const made = element("figure", {}, said, canvas, under);
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const x = (event.clientX - box.left - KEYS) / (box.width - KEYS);
    const part = (event.clientY - box.top) / (box.height - AXIS);
    const row = Math.floor(rowOfUnit(own.edges, part * matrix.height));
    const [t0, t1] = [matrix.columns[0]?.start, matrix.columns.at(-1)?.end];
    const column = columnAt(matrix, t0 + x * (t1 - t0));
    if (column < 0 || !(row >= 0 && row < matrix.height)) return;
    const cell = matrix.painted[row * matrix.width + column];
    const value = rate(cell / secondsOf(matrix.columns[column], serverNow()), matrix.series);
    const time = clock(matrix.columns[column].start, look.zone);
    under.textContent = `${value} · ${rangeText(matrix.rows[row], 40)} · ${time}`;
  });
  // Its size is known once it is on the page.
  const draw = () => {
    if (canvas.isConnected) drawMatrix(canvas, matrix, look, own, drawn);
  };
  const observer = new ResizeObserver(draw);
  observer.observe(canvas);
  return made;
}

/** The keys of a row in one line. */
export function rangeText(row, most = 60) {
  if (isOneKey(row)) return `${elide(showStart(row.start), most)} (one key)`;
  const half = Math.floor(most / 2) - 1;
  return `${elide(showStart(row.start), half)} – ${elide(endOf(row), half)}`;
}
