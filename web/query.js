// What the page asks the node for: parameters of a matrix, as the state of the page says.

import { serverNow } from "./api.js";
import { WINDOWS } from "./state.js";

/** The parameters of the matrix that the state describes. */
export function queryOf(state) {
  const parameters = { series: state.series, max_rows: state.rows, max_columns: state.columns };
  if (state.from !== null) {
    Object.assign(parameters, { from_ms: state.from, to_ms: state.to });
  } else {
    // Without an end the node adds the column in progress; the start is by its clock too.
    parameters.from_ms = Math.round(serverNow() - WINDOWS[state.last]);
  }
  if (state.start !== "") parameters.start = state.start;
  if (state.end !== null) parameters.end = state.end;
  if (state.role !== "") parameters.role = state.role;
  if (state.axis !== "now") parameters.axis = state.axis;
  return parameters;
}

/** The same query for the load inside one route: rows as fine as can be, one column. */
export const routeQueryOf = (state, route) => ({
  ...queryOf(state),
  start: route.start,
  ...(route.end === null ? {} : { end: route.end }),
  max_rows: 256,
  max_columns: 1,
});

/** Two states of equal names ask for the same matrix, apart from the time. */
export const queryName = (state) => {
  const { series, last, from, to, start, end, role, axis, rows, columns } = state;
  return JSON.stringify([series, last, from, to, start, end, role, axis, rows, columns]);
};

/** Two states of equal names ask for the same stream of columns. */
export const streamName = ({ series, start, end, role }) =>
  JSON.stringify([series, start, end, role]);

/** Whether a stream can follow the state: not a window that ended, nor the routes of then. */
export const isStreamed = (state) =>
  state.refresh === "live" && state.from === null && state.axis === "now";
