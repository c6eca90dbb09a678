// The live heatmap: merges columns that the node pushes into the matrix shown. Only `follow` does
// I/O.

import { ApiError, Unreachable, openStream } from "./api.js";
import { BLOCK, columnAt, finish } from "./matrix.js";
import { compareBytes, keyBytes } from "./keys.js";

/** Reads server-sent events until the stream ends; `does.update(json, cursor)` gets each. */
export async function follow(parameters, cursor, signal, does) {
  const response = await openStream("stream", parameters, cursor, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new Unreachable("the stream broke");
    });
    if (done) throw new Unreachable("the stream ended");
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const fields = Object.fromEntries(part.split("\n").map((line) => {
        const at = line.indexOf(":");
        return [line.slice(0, at), line.slice(at + 1).replace(/^ /, "")];
      }));
      if (!fields.data) continue;
      const json = JSON.parse(fields.data);
      if (fields.event === "error")
        throw new ApiError(503, String(json.code), String(json.message));
      if (fields.event === "columns") does.update(json, fields.id);
    }
  }
}

/** For each row of an update, the shown row that contains it; -1 if it spans several. */
function places(rows, told) {
  const starts = rows.map((row) => keyBytes(row.start));
  const ends = rows.map((row) => (row.end === null ? null : keyBytes(row.end)));
  let at = 0;
  return told.map((row) => {
    const start = keyBytes(row.start);
    while (at + 1 < rows.length && compareBytes(starts[at + 1], start) <= 0) at += 1;
    const end = row.end === null ? null : keyBytes(row.end);
    const over = ends[at] !== null && (end === null || compareBytes(end, ends[at]) > 0);
    return over ? -1 : at;
  });
}

/**
 * The matrix with the columns of an update: re-sent columns replace the earlier ones, new ones are
 * appended, and those older than `oldestMs` are dropped. `null` if the update does not fit exactly
 * (a count that spans rows, columns of another width): load the whole matrix then.
 */
export function slide(matrix, update, oldestMs) {
  if (matrix.rounded || update.rounded) return null;
  const step = matrix.columns.length > 0 ? matrix.columns[0].end - matrix.columns[0].start : 0;
  const fits = (column) => column.end - column.start === step;
  if (!matrix.uniform || update.width === 0 || !update.columns.every(fits)) return null;
  if (
    update.columns[0].start > matrix.columns.at(-1).end ||
    update.columns[0].start < matrix.columns[0].start
  )
    return null;
  const unfinished = matrix.columns.find((column) => column.open);
  if (unfinished && update.columns[0].start > unfinished.start) return null;
  const named = matrix.axisId !== "" && matrix.axisId === update.axisId;
  const sameRows = named && matrix.height === update.height;
  if (!sameRows && (update.version !== matrix.version || update.blocks.length > 0)) return null;
  const place = sameRows ? update.rows.map((_, row) => row) : places(matrix.rows, update.rows);
  for (let row = 0; row < update.height; row += 1) {
    if (place[row] < 0 && update.rowSums[row] > 0) return null;
  }

  const firstTold = columnAt(matrix, update.columns[0].start);
  const kept = firstTold < 0 ? matrix.width : firstTold;
  const all = [...matrix.columns.slice(0, kept), ...update.columns];
  const gone = all.findIndex((column) => column.end > oldestMs);
  const columns = all.slice(Math.max(0, gone));
  const { height } = matrix;
  const width = columns.length;
  const values = new Float64Array(height * width);
  const flags = new Uint8Array(height * width);
  const left = Math.max(0, gone);
  const blocks = joinBlocks(matrix.blocks, update.blocks, left, kept);
  if (blocks === null) return null;
  for (let row = 0; row < height; row += 1) {
    for (let x = left; x < kept; x += 1) {
      values[row * width + x - left] = matrix.values[row * matrix.width + x];
      flags[row * width + x - left] = matrix.flags[row * matrix.width + x] & ~BLOCK;
    }
  }
  for (let row = 0; row < update.height; row += 1) {
    // A row that spans several shown rows has no counts (checked above), only possible marks.
    const into = place[row] < 0 ? null : place[row];
    for (let x = 0; x < update.width; x += 1) {
      const column = kept + x - left;
      if (column < 0) continue;
      if (into !== null) {
        values[into * width + column] += update.values[row * update.width + x];
        flags[into * width + column] |= update.flags[row * update.width + x] & ~BLOCK;
      } else if (update.flags[row * update.width + x] !== 0) {
        return null;
      }
    }
  }
  const older = matrix.events.filter(
    (event) => event.time_ms < update.columns[0].start && event.time_ms >= columns[0].start,
  );
  // Routes may have split or merged: the rows of the update have the current ones.
  const rows = sameRows ? update.rows : matrix.rows;
  return finish({
    ...matrix,
    rows,
    version: update.version,
    axisGain: update.axisGain,
    blocks,
    columns,
    width,
    values,
    flags,
    nodes: update.nodes,
    responded: update.responded,
    expected: update.expected,
    saturated: matrix.saturated || update.saturated,
    unattributed: matrix.unattributed,
    conflicts: joined(matrix.conflicts, update.conflicts),
    events: [...older, ...update.events],
  });
}

/** The blocks of both; `null` if one lies across columns that are dropped, kept or added. */
function joinBlocks(known, told, left, kept) {
  const blocks = [];
  for (const block of known) {
    const end = block.column + block.columns;
    if (end <= left || block.column >= kept) continue;
    if (block.column < left || end > kept) return null;
    blocks.push({ ...block, column: block.column - left });
  }
  return [...blocks, ...told.map((block) => ({ ...block, column: block.column + kept - left }))];
}

/** The conflicts of both, each once. */
function joined(known, told) {
  const name = (conflict) => JSON.stringify([conflict.group_id, conflict.term, conflict.nodes]);
  const names = new Set(known.map(name));
  return [...known, ...told.filter((conflict) => !names.has(name(conflict)))];
}
