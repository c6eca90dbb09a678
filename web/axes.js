// The positions and texts of the marks on the axes.

import { tick, zoneOffset } from "./format.js";
import { elide, folder, sharedPrefix, showStart } from "./keys.js";

const STEPS_MS = [
  1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 9e5, 18e5, 36e5, 72e5, 108e5, 216e5, 432e5,
  864e5, 1728e5, 6048e5, 2592e6,
];

export function timeMarks(t0, t1, width, zone) {
  const least = ((t1 - t0) / Math.max(1, width)) * 78;
  const step = STEPS_MS.find((size) => size >= least) ?? STEPS_MS.at(-1);
  const offset = zoneOffset(t0, zone);
  const marks = [];
  const first = Math.ceil((t0 - offset) / step) * step + offset;
  for (let at = first; at <= t1; at = nextMark(at, step, zone)) {
    if (at >= t0) marks.push({ ms: at, text: tick(at, step, zone) });
  }
  return marks;
}

/** The next mark, one step later in local time, which daylight saving shifts. */
function nextMark(at, step, zone) {
  const next = at + step;
  const off = (((next - zoneOffset(next, zone)) % step) + step) % step;
  const there = off <= step / 2 ? next - off : next + step - off;
  return there > at ? there : next;
}

/**
 * Labels of the row starts, at least `gap` pixels apart. The prefix that a label shares with the
 * one above is dimmed, or left out if there is no room for it.
 */
export function keyMarks(rows, first, last, yOf, gap, chars) {
  const marks = [];
  let below = -Infinity;
  let above = null;
  for (let row = first; row < last; row += 1) {
    const y = yOf(row);
    if (y < below + gap) continue;
    const text = showStart(rows[row].start);
    const shared = above === null ? 0 : sharedPrefix(above, text);
    marks.push({ row, y, ...fitted(text, shared, chars) });
    above = text;
    below = y;
  }
  return marks;
}

function fitted(text, shared, chars) {
  if (text.length <= chars) return { dim: text.slice(0, shared), plain: text.slice(shared) };
  if (shared > 2) {
    const rest = text.slice(shared);
    return { dim: "…", plain: elide(rest, chars - 1) };
  }
  return { dim: "", plain: elide(text, chars) };
}

/** Runs of rows whose keys start with the same folder; empty if there are one or too many. */
export function folderBands(rows, first, last) {
  const bands = [];
  for (let row = first; row < last; row += 1) {
    const name = (rows[row].folder ??= folder(rows[row].start));
    const open = bands.at(-1);
    if (open && open.name === name) open.end = row + 1;
    else bands.push({ name, start: row, end: row + 1 });
  }
  return bands.length > 1 && bands.length <= 24 ? bands : [];
}

