// The parameters of the queries that the page sends, derived from its state.

import { serverNow } from "./api.js";
import { WINDOWS } from "./state.js";

/** The series of the API that make up one of the page. */
export const partsOf = (series) => (series === "operations" ? ["writes", "reads"] : [series]);

/** The length of the window that is fitted to what there is, at most the preset. */
let fittedMs = WINDOWS.fit;
const LENGTHS_MS = [60_000, 120_000, 300_000, 600_000, 900_000, 1_800_000, WINDOWS.fit];

/** Fits the window to the oldest column of any node; whether it is another one now. */
export function fit(nodes, nowMs) {
  const known = nodes.map((node) => Number(node.ok ? node.oldest_ms : 0)).filter((ms) => ms > 0);
  if (known.length === 0) return false;
  const span = nowMs - Math.min(...known);
  const length = LENGTHS_MS.find((each) => each >= span) ?? WINDOWS.fit;
  const changed = length !== fittedMs;
  fittedMs = length;
  return changed;
}

/** The length of the window that ends now. */
export const spanOf = (state) => (state.last === "fit" ? fittedMs : WINDOWS[state.last]);

/** The parameters of the matrix for a state. */
export function queryOf(state, series = partsOf(state.series)[0]) {
  const parameters = { series, max_rows: state.rows, max_columns: state.columns };
  if (state.from !== null) {
    Object.assign(parameters, { from_ms: state.from, to_ms: state.to });
  } else {
    // Without an end the node includes the column in progress and uses its own clock for the start
    // too.
    parameters.from_ms = Math.round(serverNow() - spanOf(state));
  }
  if (state.start !== "") parameters.start = state.start;
  if (state.end !== null) parameters.end = state.end;
  if (state.role !== "") parameters.role = state.role;
  if (state.axis !== "now") parameters.axis = state.axis;
  return parameters;
}

/** The same query for the load inside one route: as many rows as possible, one column. */
export const routeQueryOf = (state, route) => ({
  ...queryOf(state),
  start: route.start,
  ...(route.end === null ? {} : { end: route.end }),
  max_rows: 256,
  max_columns: 1,
});

/** States with equal names request the same matrix, apart from the time. */
export const queryName = (state) => {
  const { series, last, from, to, start, end, role, axis, rows, columns } = state;
  return JSON.stringify([series, last, from, to, start, end, role, axis, rows, columns]);
};

/** States with equal names request the same stream of columns. */
export const streamName = ({ series, start, end, role }) =>
  JSON.stringify([series, start, end, role]);

/** Whether a stream can follow the state: not for a window that has an end, nor for past routes. */
export const isStreamed = (state) =>
  state.refresh === "live" && state.from === null && state.axis === "now";
