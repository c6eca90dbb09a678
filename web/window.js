// Converts the view after a gesture to a time window and a key range. Pure, so that it can be
// tested without a page.

import { further } from "./further.js";
import { compareBytes, keyBytes } from "./keys.js";
import { routeOf } from "./tables.js";

const NEAR = 0.02;

/**
 * The state for a committed view, or `null` if it equals the current state. `view.by` is the
 * share by which it moved along the keys; `null`: it was zoomed.
 */
export function committed(state, matrix, view, routes, nowMs) {
  /** @type {Partial<typeof state>} */
  const change = {};
  const first = matrix.columns[0];
  const last = matrix.columns.at(-1);
  const step = Math.max(1, first.end - first.start);
  if (Math.abs(view.t0 - first.start) > step * NEAR || Math.abs(view.t1 - last.end) > step * NEAR) {
    Object.assign(change, times(view, step, nowMs));
  }
  if (Math.abs(view.r0) > NEAR || Math.abs(view.r1 - matrix.height) > NEAR) {
    Object.assign(change, keys(matrix, view, routes));
  }
  const same = Object.entries(change).every(([name, value]) => state[name] === value);
  return same ? null : { ...state, ...change };
}

function times({ t0, t1 }, step, nowMs) {
  // The window ends with the column in progress at the latest.
  const end = Math.min(Math.ceil(t1), Math.ceil(nowMs + step));
  const wide = Math.max(1_000, Math.round(t1 - t0));
  return { from: Math.max(0, end - wide), to: end };
}

function keys(matrix, view, routes) {
  const { rows, height } = matrix;
  const { r0, r1 } = view;
  const inside = (row) => Math.min(height - 1, Math.max(0, row));
  const top = inside(Math.floor(r0 + NEAR));
  const bottom = Math.max(top, inside(Math.ceil(r1 - NEAR) - 1));
  let { start } = rows[top];
  let { end } = rows[bottom];
  if (view.by !== null) {
    // Moved, not zoomed. The key space ends at the first and last key.
    const up = view.by < 0;
    if (up ? rows[0].start === "" : rows[height - 1].end === null) return {};
    if (up) start = further(rows, view.by).start;
    else end = further(rows, view.by).end;
    return { start, end };
  }
  if (r0 < -NEAR) start = widerStart(rows[0].start, -r0 / height, rows, routes);
  if (r1 > height + NEAR)
    end = widerEnd(rows[height - 1].end, (r1 - height) / height, rows, routes);
  return { start, end };
}

/**
 * The number of routes in a share of the shown range; at least one, so that every zoom out widens
 * it.
 */
function routesShown(share, rows, routes) {
  const first = routeOf(routes, keyBytes(rows[0].start));
  const end = rows.at(-1).end;
  const last = end === null ? routes.length - 1 : routeOf(routes, keyBytes(end));
  return Math.max(1, Math.round(share * (last - first + 1)));
}

function widerStart(start, share, rows, routes) {
  if (start === "" || routes.length === 0) return "";
  const bytes = keyBytes(start);
  const holder = routeOf(routes, bytes);
  const within = compareBytes(routes[holder].bytes, bytes) < 0 ? 1 : 0;
  return routes[Math.max(0, holder - routesShown(share, rows, routes) + within)].start;
}

function widerEnd(end, share, rows, routes) {
  if (end === null || routes.length === 0) return null;
  return routes[
    Math.min(
      routes.length - 1,
      routeOf(routes, keyBytes(end)) + routesShown(share, rows, routes) - 1,
    )
  ].end;
}
