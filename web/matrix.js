// A matrix as the page works on it: typed arrays instead of one array a row, and the sums.

import { BadAnswer } from "./bad.js";
import { compareBytes, keyBytes } from "./keys.js";
import { unpackBlocks, unpackCells, unpackMarks } from "./packed.js";

export { BadAnswer };

export const APPORTIONED = 1;
export const PARTIAL = 2;
export const CONFLICT = 4;
/** Counted together with other cells: the mean of a block. */
export const BLOCK = 8;
/** @type {[string, number][]} */
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

/** A block as the API describes it; one that straddles has keys, and perhaps a time, of its own. */
const blockOf = (block) => ({
  column: number(block?.column, "column"),
  columns: number(block?.column_count, "column_count"),
  row: number(block?.first_row, "first_row"),
  rows: number(block?.row_count, "row_count"),
  value: number(block?.value, "value"),
  conflict: Boolean(block?.conflict),
  straddling: Boolean(block?.straddling),
  start: text(block?.start),
  end: typeof block?.end === "string" ? block.end : null,
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
  const blocks = list(json.blocks ?? [], "blocks").map(blockOf);
  return { columns, rows, values, flags, rounded: false, blocks };
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
  const blocks = unpackBlocks(json.blocks).map((block) => ({
    ...block,
    straddling: false,
    start: rows[block.row]?.start ?? "",
    end: rows[block.row + block.rows - 1]?.end ?? null,
  }));
  blocks.push(...list(json.straddling ?? [], "straddling").map(blockOf));
  return { columns, rows, values: unpackCells(json.cells, count), flags, rounded, blocks };
}

/** Checks and converts the JSON of `/api/v1/matrix`, in either form. */
export function readMatrix(json) {
  if (json === null || typeof json !== "object") throw new BadAnswer("not an object");
  const cells = json.encoding === "packed" ? readPacked(json) : readPlain(json);
  const outside = ({ row, rows, column: first, columns }) =>
    row + rows > cells.rows.length ||
    first + columns > cells.columns.length ||
    Math.min(rows, columns) < 1;
  if (cells.blocks.some(outside)) throw new BadAnswer("a block lies outside the matrix");
  const matrix = finish({
    ...cells,
    width: cells.columns.length,
    height: cells.rows.length,
    series: text(json.series),
    version: number(json.catalog_version, "catalog_version"),
    axisId: text(json.axis_id),
    axisGain: number(json.axis_gain, "axis_gain"),
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
  matrix.straddling = number(json.straddling_total, "straddling_total");
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
    addBlockSums(matrix);
  }
  return matrix;
}

/** The same with sums, marks and total computed anew from its cells and blocks. */
export function finish(matrix) {
  const { width, height, values, flags, blocks } = matrix;
  const rowSums = new Float64Array(height);
  const columnSums = new Float64Array(width);
  let total = 0;
  for (let row = 0, at = 0; row < height; row += 1) {
    let sum = 0;
    for (let column = 0; column < width; column += 1, at += 1) {
      const value = values[at];
      if (value === 0) continue;
      sum += value;
      columnSums[column] += value;
    }
    rowSums[row] = sum;
    total += sum;
  }
  const painted = paintedOf(matrix);
  let [max, marks, straddling] = [0, 0, 0];
  // The likely load of a row: its own, and an even part of each block over it.
  const loads = new Float64Array(height);
  for (let row = 0, at = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1, at += 1) {
      marks |= flags[at];
      loads[row] += painted[at];
      if (painted[at] > max) max = painted[at];
    }
  }
  for (const block of blocks) {
    if (block.straddling) straddling += block.value;
    else total += block.value;
  }
  const done = { ...matrix, painted, loads, rowSums, columnSums, max, marks, total, straddling };
  addBlockSums(done);
  return done;
}

/** What is painted: the cells, and of a block its mean a row and column. Marks its cells. */
function paintedOf({ width, values, flags, blocks }) {
  const inside = blocks.filter((block) => !block.straddling);
  if (inside.length === 0) return values;
  const painted = values.slice();
  for (const block of inside) {
    const mean = block.value / (block.rows * block.columns);
    for (let row = block.row; row < block.row + block.rows; row += 1) {
      for (let column = block.column; column < block.column + block.columns; column += 1) {
        painted[row * width + column] += mean;
        flags[row * width + column] |= BLOCK | (block.conflict ? CONFLICT : 0);
      }
    }
  }
  return painted;
}

/** Adds blocks to the sums of columns; of one over several its mean. A row's sum is its own. */
function addBlockSums({ columnSums, blocks }) {
  for (const block of blocks) {
    if (block.straddling) continue;
    for (let column = block.column; column < block.column + block.columns; column += 1) {
      columnSums[column] += block.value / block.columns;
    }
  }
}

/** The blocks that have a part of a cell, those that straddle last. */
export function blocksAt(matrix, { row, column }) {
  const covers = (block) => block.row <= row && row < block.row + block.rows
    && block.column <= column && column < block.column + block.columns;
  return matrix.blocks.filter(covers).sort((a, b) => Number(a.straddling) - Number(b.straddling));
}

/** Whether all columns are equally wide and without a gap: they can be drawn as one image. */
function isUniform(columns) {
  const step = columns.length > 0 ? columns[0].end - columns[0].start : 0;
  return columns.every((column, at) =>
    column.end - column.start === step && (at === 0 || columns[at - 1].end === column.start));
}

/** The cell that holds a key and a time; `null`: there is none. */
export function cellHolding(matrix, start, ms) {
  const column = columnAt(matrix, ms);
  const bytes = keyBytes(start);
  const row = matrix.rows.findLastIndex((each) => compareBytes(keyBytes(each.start), bytes) <= 0);
  if (column < 0 || row < 0) return null;
  const { end } = matrix.rows[row];
  return end !== null && compareBytes(keyBytes(end), bytes) <= 0 ? null : { row, column };
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
