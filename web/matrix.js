// A matrix as the page works on it: typed arrays instead of one array a row, and the sums.

import { BadAnswer } from "./bad.js";
import { unpackCells, unpackMarks } from "./packed.js";

export { BadAnswer };

export const APPORTIONED = 1;
export const PARTIAL = 2;
export const CONFLICT = 4;
const MARKS = [["apportioned", APPORTIONED], ["partial", PARTIAL], ["conflict", CONFLICT]];

function list(value, name) {
  if (!Array.isArray(value)) throw new BadAnswer(`"${name}" is no list`);
  return value;
}

function number(value, name) {
  const result = Number(value ?? 0);
  if (!Number.isFinite(result) || result < 0)
    throw new BadAnswer(`"${name}" is no count: ${value}`);
  return result;
}

const text = (value) => (typeof value === "string" ? value : "");

const column = (start, end, open) => ({
  start: number(start, "start_ms"),
  end: number(end, "end_ms"),
  open: Boolean(open),
});

/** What both forms say of a row alike. */
const rowOf = (row, end) => ({
  bucket: text(row?.bucket_id),
  start: text(row?.start),
  end,
  aggregate: number(row?.route_count, "route_count") > 1,
  routeIds: list(row?.route_ids ?? [], "route_ids"),
  routeCount: number(row?.route_count, "route_count"),
  roles: row?.roles ?? null,
  group: row?.group_id ?? null,
});

/** Columns, rows, cells and marks of the plain form. */
function readPlain(json) {
  const columns = list(json.columns, "columns").map((each) =>
    column(each?.start_ms, each?.end_ms, each?.open),
  );
  const width = columns.length;
  const source = list(json.rows, "rows");
  const values = new Float64Array(source.length * width);
  const flags = new Uint8Array(source.length * width);
  const rows = source.map((row, y) => {
    const cells = list(row?.values, "values");
    if (cells.length !== width) {
      throw new BadAnswer(`row ${y} has ${cells.length} values for ${width} columns`);
    }
    for (let x = 0; x < width; x += 1) values[y * width + x] = number(cells[x], "values");
    for (const [name, mark] of MARKS) {
      for (const x of row[name] ?? []) {
        if (!(x >= 0 && x < width)) throw new BadAnswer(`"${name}" names column ${x} of ${width}`);
        flags[y * width + x] |= mark;
      }
    }
    return rowOf(row, typeof row.end === "string" ? row.end : null);
  });
  return { columns, rows, values, flags, rounded: false };
}

/** The same of the packed form. */
function readPacked(json) {
  const columns = list(json.columns, "columns").map((each) => column(...list(each, "columns")));
  const source = list(json.rows, "rows");
  const last = typeof json.end === "string" ? json.end : null;
  const rows = source.map((row, y) =>
    rowOf(row, y + 1 < source.length ? text(source[y + 1]?.start) : last),
  );
  const count = rows.length * columns.length;
  const flags = new Uint8Array(count);
  for (const [name, mark] of MARKS) unpackMarks(json.marks?.[name], flags, mark);
  const rounded = json.cells?.form === "rounded";
  return { columns, rows, values: unpackCells(json.cells, count), flags, rounded };
}

/** Checks and converts the JSON of `/api/v1/matrix`, in either form. */
export function readMatrix(json) {
  if (json === null || typeof json !== "object") throw new BadAnswer("not an object");
  const cells = json.encoding === "packed" ? readPacked(json) : readPlain(json);
  const matrix = finish({
    ...cells,
    width: cells.columns.length,
    height: cells.rows.length,
    series: text(json.series),
    version: number(json.catalog_version, "catalog_version"),
    unattributed: number(json.unattributed, "unattributed"),
    nodes: list(json.nodes ?? [], "nodes"),
    conflicts: list(json.conflicts ?? [], "conflicts"),
    responded: number(json.responded, "responded"),
    expected: number(json.expected, "expected"),
    saturated: Boolean(json.saturated),
    eventsTruncated: Boolean(json.events_truncated),
    events: list(json.events ?? [], "events").map((event) => ({
      time_ms: number(event?.time_ms, "time_ms"),
      kind: text(event?.kind),
      key: text(event?.key),
      retired: list(event?.retired ?? [], "retired").map(Number),
      created: list(event?.created ?? [], "created").map(Number),
      group: event?.group_id ?? null,
      fromGroup: event?.from_group ?? null,
      leader: event?.leader ?? null,
      term: event?.term ?? null,
    })),
    uniform: isUniform(cells.columns),
  });
  // The server's own sums: exact where cells are rounded.
  matrix.total = number(json.total, "total");
  if (cells.rounded) {
    matrix.rowSums = Float64Array.from(matrix.rows, ({ roles }) =>
      ["leader_write", "leader_read", "follower_read"].reduce(
        (sum, role) => sum + number(roles?.[role], role),
        0,
      ),
    );
    matrix.columnSums = Float64Array.from(list(json.column_sums, "column_sums"), (sum) =>
      number(sum, "column_sums"),
    );
  }
  return matrix;
}

/** The same with sums, marks and total computed anew from its cells. */
export function finish(matrix) {
  const { width, height, values, flags } = matrix;
  const rowSums = new Float64Array(height);
  const columnSums = new Float64Array(width);
  let [max, marks, total] = [0, 0, 0];
  for (let row = 0, at = 0; row < height; row += 1) {
    let sum = 0;
    for (let column = 0; column < width; column += 1, at += 1) {
      const value = values[at];
      marks |= flags[at];
      if (value === 0) continue;
      sum += value;
      columnSums[column] += value;
      if (value > max) max = value;
    }
    rowSums[row] = sum;
    total += sum;
  }
  return { ...matrix, rowSums, columnSums, max, marks, total };
}

/** Whether all columns are equally wide and without a gap: they can be drawn as one image. */
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
