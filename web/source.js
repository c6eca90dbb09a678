// Where the picture comes from: one matrix, or several on the same rows. Series that are shown
// together are planned one by one, and then asked with the rows of all of them.

import { ask, serverNow } from "./api.js";
import { combine, jointRows } from "./combine.js";
import { BadAnswer, readMatrix } from "./matrix.js";
import { fit, partsOf, queryName, queryOf } from "./query.js";
import { listed } from "./rows.js";

/** A column may close between two answers; then they are asked for again. */
const TRIES = 4;

const askOne = async (parameters, signal) =>
  readMatrix(await ask("matrix", { ...parameters, encoding: "packed" }, signal));

/** The matrix of a state, with the rows that `axis` keeps. */
export async function askMatrix(state, axis, signal) {
  const series = partsOf(state.series);
  const name = queryName(state);
  if (series.length > 1 && !axis.boundaries(name)) {
    const plans = await Promise.all(series.map((each) => askOne(queryOf(state, each), signal)));
    fitTo(plans[0], state);
    if (plans.every((plan) => plan.height > 0)) axis.keep(name, jointRows(plans, state.rows));
  }
  for (let tries = 0; ; tries += 1) {
    const parts = await Promise.all(
      series.map((each) => askOne({ ...axis.query(state), series: each }, signal)),
    );
    if (tries === 0 && series.length === 1 && fitTo(parts[0], state)) continue;
    fitTo(parts[0], state);
    const matrix = combine(parts, state.series);
    if (matrix) return matrix;
    if (tries >= TRIES) throw new BadAnswer("two series do not have the same rows and columns");
    // A node of an earlier version plans rows of its own: then those of the first are as good.
    if (tries > 0) axis.keep(name, jointRows(parts, state.rows));
  }
}

const fitTo = (matrix, state) =>
  state.last === "fit" && state.from === null && fit(matrix.nodes, serverNow());

/** The matrix of a state on the rows of another, over a window of its own. */
export async function askOn(state, { rows }, { from, to }, signal) {
  const boundaries = rows.map((row) => listed(row.start)).join(",");
  const asked = { ...state, from, to };
  const parts = await Promise.all(partsOf(state.series).map((each) =>
    askOne({ ...queryOf(asked, each), boundaries }, signal)));
  const matrix = combine(parts, state.series);
  if (!matrix) throw new BadAnswer("two series do not have the same rows and columns");
  if (matrix.height !== rows.length)
    throw new BadAnswer("the node planned other rows than those asked for");
  return matrix;
}
