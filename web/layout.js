// How high each row is. By load: a row has room as it has load, so that what is hot can be seen and
// named, and runs of cold rows are folded into one band that says how many they are. Equal: each
// row has the same. Heights are shares of the number of rows, so that an equal layout is none.

/** A row below this share of the load is cold. */
const COLD = 0.002;
/** So many cold neighbours are folded. */
const FEW = 4;
/** The height of a folded band, in CSS pixels. */
const FOLDED = 18;
/** The part of the height that all rows share evenly. */
const EVEN = 0.25;
/** The share of load that has to move for a layout to be made anew. */
const MOVED = 0.35;

/** Runs of cold rows; none where nothing is hot beside them. */
export function foldsOf(sums) {
  const total = sums.reduce((all, sum) => all + sum, 0);
  const folds = [];
  if (total === 0) return folds;
  const level = Math.min(COLD, 0.25 / Math.max(1, sums.length)) * total;
  for (let row = 0; row < sums.length; row += 1) {
    const first = row;
    while (row < sums.length && sums[row] <= level) row += 1;
    if (row - first >= FEW) folds.push({ first, end: row });
  }
  return folds.length === 1 && folds[0].end - folds[0].first === sums.length ? [] : folds;
}

/** The edges of `count` equal rows. */
const equalEdges = (count) => Float64Array.from({ length: count + 1 }, (_, row) => row);

/** The upper edges of rows, and the last one's lower: from 0 to their number. */
export function layoutOf(sums, mode, pixels) {
  const count = sums.length;
  if (mode !== "load" || count === 0) return { edges: equalEdges(count), folds: [] };
  const total = sums.reduce((all, sum) => all + sum, 0);
  if (total === 0) return { edges: equalEdges(count), folds: [] };
  const folds = foldsOf(sums);
  const folded = new Uint8Array(count);
  for (const { first, end } of folds) folded.fill(1, first, end);
  // Bands have at most a third of the height together.
  const band = Math.min(FOLDED / Math.max(1, pixels), 1 / (3 * Math.max(1, folds.length)));
  const room = 1 - band * folds.length;
  const open = sums.reduce((all, _, row) => all + (folded[row] ? 0 : 1), 0);
  const load = sums.reduce((all, sum, row) => all + (folded[row] ? 0 : sum), 0);
  const edges = new Float64Array(count + 1);
  let fold = 0;
  for (let row = 0; row < count; row += 1) {
    let high;
    if (folded[row]) {
      while (folds[fold].end <= row) fold += 1;
      high = band / (folds[fold].end - folds[fold].first);
    } else {
      high = room * (EVEN / open + (load > 0 ? ((1 - EVEN) * sums[row]) / load : 0));
    }
    edges[row + 1] = edges[row] + high;
  }
  const whole = edges[count];
  for (let row = 0; row <= count; row += 1) edges[row] *= count / whole;
  return { edges, folds };
}

/** Whether so much load has moved between rows that their heights would mislead. */
export function movedFar(before, now) {
  if (before.length !== now.length) return true;
  const [all, then] = [now, before].map((sums) => sums.reduce((sum, each) => sum + each, 0));
  if (all === 0 || then === 0) return all !== then;
  let moved = 0;
  for (let row = 0; row < now.length; row += 1)
    moved += Math.abs(now[row] / all - before[row] / then);
  return moved / 2 > MOVED;
}

/** The place of a row, or of a part of one, in the layout. */
export function unitOf(edges, row) {
  const last = edges.length - 1;
  if (last <= 0 || row <= 0 || row >= last) return row;
  const whole = Math.floor(row);
  return edges[whole] + (row - whole) * (edges[whole + 1] - edges[whole]);
}

/** The row at a place of the layout, with the part of it that is above. */
export function rowOfUnit(edges, unit) {
  const last = edges.length - 1;
  if (last <= 0 || unit < 0 || unit >= last) return unit;
  let [low, high] = [0, last];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (edges[middle] <= unit) low = middle;
    else high = middle;
  }
  const high_ = edges[low + 1] - edges[low];
  return high_ > 0 ? low + (unit - edges[low]) / high_ : low;
}
