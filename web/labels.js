// The key axis, on two levels: the folders with their share of the load, and in each the keys
// without what the folder already says. A folded band says how many ranges it is.

import { folderBands } from "./axes.js";
import { percent } from "./format.js";
import { elide, isOneKey, showKey, showStart } from "./keys.js";

/** A share from which on a row says it. */
const TOLD = 0.01;

/** A row that begins with the least key after another is named by that one: `> user/7`. */
const shownOf = (row) => (row.shown ??= showStart(row.start));
const AFTER = "\\x00";
const named = (text) => (text.endsWith(AFTER) ? `> ${text.slice(0, -AFTER.length)}` : text);
const sumOf = (sums, first, end) => {
  let sum = 0;
  for (let row = first; row < end; row += 1) sum += sums[row];
  return sum;
};

/** The length that the shown keys of a folder begin with alike, up to a separator. */
function stemOf(rows, { start, end, name }) {
  return start < end && name !== "" && shownOf(rows[end - 1]).startsWith(name) ? name.length : 0;
}

/**
 * The labels that there is room for, from the top: `{y, text, level, share}`. `span(row)` is the
 * top and the bottom of a row in pixels.
 */
export function labelsOf({ matrix, folds }, [first, last], span, gap) {
  const { rows, loads } = matrix;
  const total = loads.reduce((sum, each) => sum + each, 0) || 1;
  const bands = folderBands(rows, first, last);
  const labels = [];
  let free = -Infinity;
  const put = (y, label) => {
    if (y < free + gap) return false;
    labels.push({ y, ...label });
    free = y;
    return true;
  };
  let fold = 0;
  let said = null;
  for (const band of bands) {
    const stem = stemOf(rows, band);
    const [top, below] = [span(band.start)[0], span(band.end - 1)[1]];
    if (band.name !== "" && below - top >= gap * 0.8) {
      const share = sumOf(loads, band.start, band.end) / total;
      put(Math.max(top + gap / 2, free + gap), { text: band.name, level: 1, share });
    }
    for (let row = band.start; row < band.end; row += 1) {
      while (fold < folds.length && folds[fold].end <= row) fold += 1;
      const folded = folds[fold] && folds[fold].first <= row ? folds[fold] : null;
      if (folded) {
        const middle = (span(folded.first)[0] + span(folded.end - 1)[1]) / 2;
        const text = `${folded.end - folded.first} cold ranges`;
        if (folded !== said) put(middle, { text, level: 3, share: 0 });
        said = folded;
        row = Math.min(band.end, folded.end) - 1;
        continue;
      }
      const [y0, y1] = span(row);
      const share = loads[row] / total;
      const start = rows[row].start;
      const text = stem > 0 && start !== "" ? shownOf(rows[row]).slice(stem) : shownOf(rows[row]);
      const y = y1 - y0 >= gap ? (y0 + y1) / 2 : y0 + gap / 2;
      put(y, {
        text: named(text === "" ? showKey(start) : text),
        level: band.name !== "" ? 2 : 1,
        share: share >= TOLD ? share : 0,
        one: isOneKey(rows[row]),
      });
    }
  }
  return labels;
}

/** Which rows the findings of the strip are about: their numbers, at the edge of the cells. */
export function drawRanks(context, plot) {
  const { left, top, height } = plot.area;
  const { rows } = plot.matrix;
  const { firstRow, lastRow } = plot.visible();
  const size = plot.letters + 4;
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (const { rank, has } of plot.ranks) {
    let first = firstRow;
    while (first < lastRow && !has(rows[first])) first += 1;
    let end = first;
    while (end < lastRow && has(rows[end])) end += 1;
    if (first === end) continue;
    const y0 = Math.max(top, plot.yOf(first));
    const y1 = Math.max(y0 + 2, Math.min(top + height, plot.yOf(end)));
    const x = left + (rank - 1) * (size + 4);
    context.fillStyle = plot.colours.accent;
    context.fillRect(x, y0, 3, y1 - y0);
    context.fillRect(x, y0, size, size);
    context.fillStyle = plot.colours.plot;
    context.font = plot.fontOf(true);
    context.fillText(String(rank), x + size / 2, y0 + size / 2 + 1);
  }
  context.font = plot.fontOf(false);
}

export function drawKeyAxis(context, plot, letter) {
  const { left, top, height } = plot.area;
  const { firstRow, lastRow } = plot.visible();
  if (firstRow >= lastRow) return;
  context.save();
  context.beginPath();
  context.rect(0, top - 8, left, height + 16);
  context.clip();
  const gap = plot.letters + 4;
  const bottom = top + height;
  const inside = (y) => Math.max(top, Math.min(bottom, y));
  const span = (row) => [inside(plot.yOf(row)), inside(plot.yOf(row + 1))];
  context.textBaseline = "middle";
  for (const label of labelsOf(plot, [firstRow, lastRow], span, gap)) {
    if (label.y > bottom + 2) break;
    const share = label.share > 0 ? percent(label.share, 1).replace(" ", "") : "";
    const edge = label.level === 1 ? 6 : 16;
    const taken = share ? (share.length + 1) * letter : 0;
    const one = label.one ? " one key" : "";
    const chars = Math.max(3, Math.floor((left - edge - 10 - taken) / letter));
    const whole = label.text.length + one.length <= chars ? one : "";
    context.textAlign = "left";
    context.fillStyle = label.level === 3 ? plot.colours.dim : plot.colours.text;
    context.font = plot.fontOf(label.level === 1);
    const text = elide(label.text, chars);
    context.fillText(text, edge, label.y);
    if (whole) {
      context.fillStyle = plot.colours.dim;
      context.fillText(whole, edge + context.measureText(text).width, label.y);
    }
    context.font = plot.fontOf(false);
    if (share) {
      context.fillStyle = label.level === 1 ? plot.colours.text : plot.colours.dim;
      context.textAlign = "right";
      context.fillText(share, left - 8, label.y);
    }
    context.fillStyle = plot.colours.line;
    context.fillRect(left - 5, Math.round(label.y), 5, 1);
  }
  context.restore();
}
