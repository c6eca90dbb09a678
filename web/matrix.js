// A matrix as the page works on it: typed arrays instead of one array a row, and the sums.

export const APPORTIONED = 1;
export const PARTIAL = 2;
export const CONFLICT = 4;

/** An answer of the server that is not what it should be. */
export class BadAnswer extends Error {}

function list(value, name) {
  if (!Array.isArray(value)) throw new BadAnswer(`"${name}" is no list`);
  return value;
}

function number(value, name) {
  const result = Number(value ?? 0);
  if (!Number.isFinite(result) || result < 0) throw new BadAnswer(`"${name}" is no count: ${value}`);
  return result;
}

const text = (value) => (typeof value === "string" ? value : "");

/** Checks and converts the JSON of `/api/v1/matrix`. */
export function readMatrix(json) {
  if (json === null || typeof json !== "object") throw new BadAnswer("not an object");
  const columns = list(json.columns, "columns").map((column) => ({
    start: number(column?.start_ms, "start_ms"),
    end: number(column?.end_ms, "end_ms"),
    open: Boolean(column?.open),
  }));
  const width = columns.length;
  const source = list(json.rows, "rows");
  const values = new Float64Array(source.length * width);
  const flags = new Uint8Array(source.length * width);
  const rowSums = new Float64Array(source.length);
  const columnSums = new Float64Array(width);
  let max = 0;
  let marks = 0;
  const rows = source.map((row, y) => {
    const cells = list(row?.values, "values");
    if (cells.length !== width) {
      throw new BadAnswer(`row ${y} has ${cells.length} values for ${width} columns`);
    }
    for (let x = 0; x < width; x += 1) {
      const value = number(cells[x], "values");
      values[y * width + x] = value;
      rowSums[y] += value;
      columnSums[x] += value;
      if (value > max) max = value;
    }
    for (const [name, mark] of [["apportioned", APPORTIONED], ["partial", PARTIAL], ["conflict", CONFLICT]]) {
      for (const x of row[name] ?? []) {
        if (!(x >= 0 && x < width)) throw new BadAnswer(`"${name}" names column ${x} of ${width}`);
        flags[y * width + x] |= mark;
        marks |= mark;
      }
    }
    return {
      bucket: text(row.bucket_id),
      start: text(row.start),
      end: typeof row.end === "string" ? row.end : null,
      aggregate: Boolean(row.aggregate),
      routeIds: row.route_ids ?? [],
      routeCount: number(row.route_count, "route_count"),
      truncated: Boolean(row.route_ids_truncated),
      roles: row.roles ?? null,
      group: row.group_id ?? null,
    };
  });
  return {
    series: text(json.series),
    version: number(json.catalog_version, "catalog_version"),
    columns, rows, width, height: rows.length, values, flags, marks, max, rowSums, columnSums,
    total: number(json.total, "total"),
    unattributed: number(json.unattributed, "unattributed"),
    nodes: list(json.nodes ?? [], "nodes"),
    responded: number(json.responded, "responded"),
    expected: number(json.expected, "expected"),
    saturated: Boolean(json.saturated),
    events: list(json.events ?? [], "events").map((event) => ({
      time_ms: number(event?.time_ms, "time_ms"),
      kind: text(event?.kind),
      key: text(event?.key),
      retired: list(event?.retired ?? [], "retired").map(Number),
      created: list(event?.created ?? [], "created").map(Number),
      group: event?.group_id ?? null,
      leader: event?.leader ?? null,
      term: event?.term ?? null,
    })),
    uniform: isUniform(columns),
  };
}

/** The same with sums, marks and total computed anew from its cells. */
export function finish(matrix) {
  const { width, height, values, flags } = matrix;
  const rowSums = new Float64Array(height);
  const columnSums = new Float64Array(width);
  let [max, marks, total] = [0, 0, 0];
  for (let at = 0; at < values.length; at += 1) {
    const value = values[at];
    rowSums[Math.floor(at / width)] += value;
    columnSums[at % width] += value;
    total += value;
    if (value > max) max = value;
    marks |= flags[at];
  }
  return { ...matrix, rowSums, columnSums, max, marks, total };
}

/** Whether all columns are equally wide and without a gap, so that they can be drawn as one image. */
function isUniform(columns) {
  const step = columns.length > 0 ? columns[0].end - columns[0].start : 0;
  return columns.every((column, at) =>
    column.end - column.start === step && (at === 0 || columns[at - 1].end === column.start));
}

/** The column at a time, or -1. */
export function columnAt(matrix, ms) {
  let low = 0;
  let high = matrix.width;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (matrix.columns[middle].end <= ms) low = middle + 1;
    else high = middle;
  }
  return low < matrix.width && matrix.columns[low].start <= ms ? low : -1;
}
