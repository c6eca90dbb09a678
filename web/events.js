// Splits, merges and changes of leaders in the window, as the matrix lists them.

import { showStart } from "./keys.js";

/** Marks of the changes that an answer lists; `row` says where in a matrix one stands. */
export function changes(events) {
  return events.map((event) => {
    const what = event.kind === "leader"
      ? `group ${event.group} is led by node ${event.leader}${event.term === null ? "" : ` in term ${event.term}`}`
      : event.kind === "merge"
      ? `routes ${event.retired.join(" and ")} merged into ${event.created.join(" and ")}`
      : `route ${event.retired.join(" and ")} split at ${showStart(event.key)}`;
    return { ms: event.time_ms, kind: event.kind, text: what, row: (matrix) => rowOf(matrix, event.key) };
  });
}

/** The row that starts with a key; where none does, the change lies within a row and has no place. */
function rowOf(matrix, start) {
  matrix.starts ??= new Map(matrix.rows.map((row, at) => [row.start, at]));
  return matrix.starts.get(start) ?? null;
}
