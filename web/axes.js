// The positions and texts of the marks on the axes.

import { tick, zoneOffset } from "./format.js";
import { folder } from "./keys.js";

const MOST_BANDS = 40;
const STEPS_MS = [
  1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 9e5, 18e5, 36e5, 72e5, 108e5, 216e5, 432e5,
  864e5, 1728e5, 6048e5, 2592e6,
];

/** Marks of round times, at least `gap` pixels apart. */
export function timeMarks(t0, t1, width, zone, gap = 78) {
  const least = ((t1 - t0) / Math.max(1, width)) * gap;
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

/** Runs of rows whose keys start with the same folder; one without a name if there are too many. */
export function folderBands(rows, first, last) {
  const bands = [];
  for (let row = first; row < last; row += 1) {
    let name = (rows[row].folder ??= folder(rows[row].start));
    // The first row begins before all keys: it is of the folder that follows.
    if (rows[row].start === "" && row + 1 < last) name = folder(rows[row + 1].start);
    const open = bands.at(-1);
    if (open && open.name === name) open.end = row + 1;
    else bands.push({ name, start: row, end: row + 1 });
  }
  return bands.length <= MOST_BANDS ? bands : [{ name: "", start: first, end: last }];
}

