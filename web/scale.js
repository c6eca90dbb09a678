// From a rate to a place on the ramp: which rates are nothing and most, how they are spread
// between, and the marks that say so. A single burst must not darken all the rest, so the brightest
// colour begins where the few hottest cells do that hold a fiftieth of the load.

/** The part of the load whose cells may be brighter than the scale tells apart. */
const CLIPPED = 0.02;
const BINS = 1_024;
/** Bins are so many to a doubling. */
const FINE = 24;
/** Of a column in progress at least this part counts as passed: else few counts are a high rate. */
const LEAST_OPEN = 0.25;

/** The seconds that a column has counted for. */
export function secondsOf(column, nowMs) {
  const length = column.end - column.start;
  if (!column.open) return Math.max(1, length) / 1_000;
  const passed = Math.min(length, Math.max(length * LEAST_OPEN, nowMs - column.start));
  return Math.max(1, passed) / 1_000;
}

/** The rate above which the cells hold `part` of the load. */
export function clippedAt(matrix, seconds, part = CLIPPED) {
  const { painted, width } = matrix;
  let most = 0;
  for (let at = 0; at < painted.length; at += 1) {
    const rate = painted[at] / seconds[at % width];
    if (rate > most) most = rate;
  }
  if (most === 0) return 0;
  const bins = new Float64Array(BINS);
  let total = 0;
  for (let at = 0; at < painted.length; at += 1) {
    if (painted[at] === 0) continue;
    const rate = painted[at] / seconds[at % width];
    bins[Math.min(BINS - 1, Math.floor(Math.log2(most / rate) * FINE))] += rate;
    total += rate;
  }
  let above = 0;
  for (let bin = 0; bin < BINS; bin += 1) {
    above += bins[bin];
    if (above > total * part) return most / 2 ** (bin / FINE);
  }
  return most;
}

const SHAPES = {
  clip: (rate) => rate,
  linear: (rate) => rate,
  exponent: (rate) => Math.sqrt(rate),
  log: (rate, unit) => Math.log1p(rate / unit),
};

/**
 * The scale of a matrix: from `low` to `high` in a second, what is above or below of the same
 * colour as the end. `style` has the kind and, where somebody chose them, its ends.
 */
export function scaleOf(matrix, style, nowMs) {
  const seconds = Float64Array.from(matrix.columns, (column) => secondsOf(column, nowMs));
  let most = 0;
  for (let at = 0; at < matrix.painted.length; at += 1) {
    const rate = matrix.painted[at] / seconds[at % matrix.width];
    if (rate > most) most = rate;
  }
  const kind = SHAPES[style.scale] ? style.scale : "clip";
  const found = kind === "clip" ? clippedAt(matrix, seconds) : most;
  const high = style.high ?? found;
  const low = Math.min(style.low ?? 0, high);
  // A count of one in a column is where a logarithm begins to tell apart.
  const unit = 1 / (seconds[0] || 1);
  const shape = SHAPES[kind];
  const [from, to] = [shape(low, unit), shape(high, unit)];
  const gain = 2 ** (style.brightness ?? 0);
  const part = (rate) =>
    to > from ? Math.max(0, Math.min(1, ((shape(rate, unit) - from) / (to - from)) * gain)) : 0;
  return { kind, low, high, most, seconds, part, clipped: most > high };
}

/** Round numbers from `low` to `high`, about `count` of them: 0, 100, 200 or 0, 1, 10, 100. */
export function ticks({ kind, low, high }, count = 5) {
  if (!(high > low)) return [];
  if (kind === "log") {
    const marks = low === 0 ? [0] : [];
    const decades = Math.max(1, Math.ceil(Math.log10(high / Math.max(low, high / 1e4)) / count));
    for (let power = -3; power <= 18; power += 1) {
      const mark = 10 ** power;
      if (mark >= Math.max(low, high / 1e4) && mark <= high && power % decades === 0)
        marks.push(mark);
    }
    return marks;
  }
  const step = roundStep((high - low) / count);
  const marks = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high * (1 + 1e-9); at += 1) {
    marks.push(Number((at * step).toPrecision(12)));
  }
  return marks;
}

/** The least of 1, 2 and 5 times a power of ten that is not below `least`. */
export function roundStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((each) => each * power).find((step) => step >= least * (1 - 1e-9));
}
