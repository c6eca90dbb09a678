// The rows of the heatmap. They stay the same while it is shown, whatever a new plan would be, so
// that nothing moves by itself. More detail is offered if it pays.

import { queryName, queryOf, streamName } from "./query.js";

/** More detail is offered from this gain on. */
const PAYS = 1.5;
/** With fewer rows than this, rows are planned anew without asking: little is shown yet. */
const FEW_ROWS = 32;
const PLAN_EVERY_MS = 5_000;

const HEX = "hex:";

/** A key in the form of a comma-separated list. */
export function listed(key) {
  if (!key.includes(",")) return key;
  const bytes = new TextEncoder().encode(key);
  return HEX + Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class KeptRows {
  constructor() {
    this.plan();
  }

  /** The boundaries to send with the query of this name; `null`: rows are planned. */
  boundaries(name) {
    return this.name === name ? this.keys : null;
  }

  /** Keeps the rows of an answer, unless it was requested with these rows. */
  answered(name, matrix) {
    if (this.name === name || matrix.height === 0) return;
    this.keep(name, matrix.rows.map((row) => row.start));
  }

  /** Keeps rows that begin with these keys. */
  keep(name, starts) {
    this.name = name;
    this.keys = starts.map(listed).join(",");
    this.planned = performance.now();
  }

  /** The parameters of the query, with the rows that are kept. */
  query(state) {
    const keys = this.boundaries(queryName(state));
    return keys ? { ...queryOf(state), boundaries: keys } : queryOf(state);
  }

  /** The name of the stream for this query. */
  streamName(state) {
    return streamName(state) + (this.boundaries(queryName(state)) ?? "");
  }

  /** Discards the rows, so that the next answer has newly planned ones. */
  plan(load) {
    this.name = null;
    this.keys = null;
    this.planned = performance.now();
    load?.();
  }

  /** Shows the offer of more detail if it pays. */
  offer(button, matrix) {
    button.hidden = !this.offers(matrix);
    const times = matrix.axisGain.toFixed(1);
    button.title = `Newly planned rows would show ${times} times as much detail`;
  }

  offers(matrix) {
    return matrix.axisGain >= PAYS;
  }

  isPoor(matrix) {
    const long = performance.now() - this.planned > PLAN_EVERY_MS;
    return long && matrix.height < FEW_ROWS && this.offers(matrix);
  }
}
