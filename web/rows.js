// The rows of a picture: they stay while somebody looks at it, whatever is planned today, so that
// nothing moves by itself. More detail is offered when it pays.

import { queryName, queryOf, streamName } from "./query.js";

/** From this gain on more detail is offered. */
const PAYS = 1.5;
/** A picture of fewer rows is planned anew by itself where that pays: nothing much is shown yet. */
const FEW_ROWS = 32;
const PLAN_EVERY_MS = 5_000;

const HEX = "hex:";

/** A key as a list of keys takes it. */
function listed(key) {
  if (!key.includes(",")) return key;
  const bytes = new TextEncoder().encode(key);
  return HEX + Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class KeptRows {
  constructor() {
    this.plan();
  }

  /** The keys between the rows, for the question of this name; none: rows are planned. */
  boundaries(name) {
    return this.name === name ? this.keys : null;
  }

  /** Keeps the rows of an answer, unless it was asked for on rows that are kept. */
  answered(name, matrix) {
    if (this.name === name || matrix.height === 0) return;
    this.name = name;
    this.keys = matrix.rows.map((row) => listed(row.start)).join(",");
    this.planned = performance.now();
  }

  /** The parameters of what is shown, on the rows that are kept. */
  query(state) {
    const keys = this.boundaries(queryName(state));
    return keys ? { ...queryOf(state), boundaries: keys } : queryOf(state);
  }

  /** A name for the stream of the same. */
  streamName(state) {
    return streamName(state) + (this.boundaries(queryName(state)) ?? "");
  }

  /** Forgets the rows, so that the next answer has those that are planned now. */
  plan(load) {
    this.name = null;
    this.keys = null;
    this.planned = performance.now();
    load?.();
  }

  /** Shows the offer of more detail, where it pays. */
  offer(button, matrix) {
    button.hidden = !this.offers(matrix);
    const times = matrix.axisGain.toFixed(1);
    button.title = `Rows planned now would tell ${times} times as much apart`;
  }

  offers(matrix) {
    return matrix.axisGain >= PAYS;
  }

  isPoor(matrix) {
    const long = performance.now() - this.planned > PLAN_EVERY_MS;
    return long && matrix.height < FEW_ROWS && this.offers(matrix);
  }
}
