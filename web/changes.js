// Splitting and merging routes: what would become of the load is shown before anything is done.

import { ApiError, ask, change } from "./api.js";
import { element, keyElement } from "./details.js";
import { exact, percent, short } from "./format.js";
import { compareBytes, keyBytes, showEnd, showStart } from "./keys.js";
import { readMatrix } from "./matrix.js";
import { mergeable } from "./tables.js";

/** The row start that halves the load best; `null` where the route has one row only. */
export function middle(matrix) {
  let sum = 0;
  let best = null;
  for (let row = 1; row < matrix.height; row += 1) {
    sum += matrix.rowSums[row - 1];
    const off = Math.abs(2 * sum - matrix.total);
    if (best === null || off < best.off) best = { off, key: matrix.rows[row].start };
  }
  return best?.key ?? null;
}

/** The loads left and right of a key; what lies across it is given to both sides as `across`. */
export function halves(matrix, key) {
  const bytes = keyBytes(key);
  const result = { left: 0, right: 0, across: 0 };
  matrix.rows.forEach((row, y) => {
    const before = compareBytes(keyBytes(row.start), bytes) < 0;
    const after = row.end === null || compareBytes(keyBytes(row.end), bytes) > 0;
    result[before ? (after ? "across" : "left") : "right"] += matrix.rowSums[y];
  });
  return result;
}

export class RouteChanges {
  /** `does`: query(route), series(), changed(), token(). */
  constructor(dialog, does) {
    this.dialog = dialog;
    this.does = does;
    this.part = (name) => dialog.querySelector(`#change-${name}`);
    this.run = null;
    this.matrix = null;
    this.part("key").addEventListener("input", () => this.predict());
    this.part("cancel").addEventListener("click", () => dialog.close());
    dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.confirm();
    });
  }

  open(title, what, button, keyed) {
    this.matrix = null;
    this.part("title").textContent = title;
    this.part("what").textContent = what;
    this.part("do").textContent = button;
    this.part("key-label").hidden = !keyed;
    this.part("key").value = "";
    this.part("halves").replaceChildren();
    this.part("error").textContent = "";
    // A repeated click is the same change, not a second one.
    this.requestId = `page-${crypto.getRandomValues(new Uint32Array(4)).join("-")}`;
    this.dialog.showModal();
  }

  async split(route, catalog) {
    this.open(`Split route ${route.id}`, `Group ${route.group} keeps both halves; the route's id ends and two new ones begin.`, "Split", true);
    this.route = route;
    this.run = () => change("routes/split", {
      route_id: route.id, key: this.part("key").value, expected_version: catalog.version, request_id: this.requestId });
    this.part("do").disabled = true;
    try {
      this.matrix = readMatrix(await ask("matrix", this.does.query(route)));
      this.part("key").value = middle(this.matrix) ?? "";
    } catch (error) {
      this.part("error").textContent = `The load is not known: ${error.message}`;
    }
    this.predict();
  }

  merge(route, catalog) {
    const next = mergeable(catalog.routes, route);
    this.open(`Merge routes ${route.id} and ${next.id}`, `One new route in group ${route.group} takes the place of both.`, "Merge", false);
    this.part("do").disabled = false;
    this.part("halves").replaceChildren(
      element("dt", {}, "From"), keyElement(showStart(route.start), "dd"),
      element("dt", {}, "To"), keyElement(showEnd(next.end), "dd"));
    this.run = () => change("routes/merge", {
      left_id: route.id, right_id: next.id, expected_version: catalog.version, request_id: this.requestId });
  }

  /** The halves that the key in the field would make. */
  predict() {
    const key = this.part("key").value;
    const { start, end } = this.route;
    const bytes = keyBytes(key);
    const inside = compareBytes(bytes, keyBytes(start)) > 0 && (end === null || compareBytes(bytes, keyBytes(end)) < 0);
    this.part("do").disabled = !inside;
    if (!inside) {
      this.part("halves").replaceChildren(element("dt", {}, "Key"), element("dd", {}, key === "" ? "type one: no load tells where" : "must lie inside the route"));
      return;
    }
    const load = this.matrix && halves(this.matrix, key);
    const say = (part) => (load ? `${short(part, this.does.series())} (${percent(part, this.matrix.total)})` : "not known");
    this.part("halves").replaceChildren(
      element("dt", {}, "Left half"), element("dd", {}, keyElement(showStart(start)), " → ", keyElement(showEnd(key)), `: ${say(load?.left)}`),
      element("dt", {}, "Right half"), element("dd", {}, keyElement(showStart(key)), " → ", keyElement(showEnd(end)), `: ${say(load?.right)}`),
      ...(load?.across > 0 ? [element("dt", {}, "Either"), element("dd", {}, `${exact(load.across)} in a range that the key cuts`)] : []));
  }

  async confirm() {
    this.part("error").textContent = "";
    this.part("do").disabled = true;
    try {
      await this.run();
      this.dialog.close();
      this.does.changed();
    } catch (error) {
      this.part("error").textContent = error instanceof ApiError ? `${error.code}: ${error.message}` : error.message;
      this.part("do").disabled = false;
      if (error.status === 401) this.does.token();
    }
  }
}
