// The four series of a range of keys over a window, as small bars each with its highest rate.

import { ask } from "./api.js";
import { bars, element } from "./element.js";
import { API_SERIES, SERIES_NAMES, rate } from "./format.js";

const POINTS = 60;

/** The range of a row, as the API takes it. */
export const rangeOf = ({ start, end }) => ({
  ...(start === "" ? {} : { start }),
  ...(end === null ? {} : { end }),
});

/** Sums over all rows by column, with what was counted for more than a cell divided evenly. */
export function sumsOf(json) {
  const columns = Array.isArray(json.columns) ? json.columns : [];
  const rows = Array.isArray(json.rows) ? json.rows : [];
  return columns.map((column, x) => {
    const seconds = (Number(column.end_ms) - Number(column.start_ms)) / 1_000 || 1;
    return rows.reduce((sum, row) => sum + Number(row.values?.[x] ?? 0), 0) / seconds;
  });
}

/** Fills a place with one line a series. */
export async function showLines(place, row, { from, to }, role, signal) {
  /** @type {any} */
  const asked = { ...rangeOf(row), from_ms: from, to_ms: to, max_rows: 1, max_columns: POINTS };
  if (role) asked.role = role;
  try {
    const answers = await Promise.all(API_SERIES.map((series) =>
      ask("matrix", { ...asked, series, spread: true }, signal)));
    if (signal.aborted) return;
    place.replaceChildren(...answers.map((json, at) => {
      const series = API_SERIES[at];
      const values = sumsOf(json);
      const most = Math.max(0, ...values);
      const said = `${SERIES_NAMES[series]}, up to ${rate(most, series)}`;
      return element(
        "div",
        { class: "line" },
        element("span", { class: "dim" }, SERIES_NAMES[series]),
        bars(values, most, said),
        element("span", { class: "number" }, rate(most, series)),
      );
    }));
  } catch (error) {
    if (error.name !== "AbortError")
      place.replaceChildren(element("p", { class: "dim" }, `Not known: ${error.message}`));
  }
}
