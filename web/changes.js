// Splitting and merging routes. The dialog shows the resulting loads before anything is changed.

import { ApiError, ask, change } from "./api.js";
import { element, keyElement } from "./element.js";
import { exact, percent, short } from "./format.js";
import { compareBytes, keyBytes, showEnd, showStart } from "./keys.js";
import { readMatrix } from "./matrix.js";
import { mergeable } from "./tables.js";

/** The row start that halves the load best; `null` if the route has only one row. */
export function middle(matrix) {
  // Blocks are left out: it is not known on which side their operations are.
  const total = matrix.rowSums.reduce((all, each) => all + each, 0);
  let sum = 0;
  let best = null;
  for (let row = 1; row < matrix.height; row += 1) {
    sum += matrix.rowSums[row - 1];
    const off = Math.abs(2 * sum - total);
    if (best === null || off < best.off) best = { off, key: matrix.rows[row].start };
  }
  return best?.key ?? null;
}

/** The loads left and right of a key. `across` is the load of the range that contains it. */
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
  /** `does`: query(route), series(), changed(), catalog(), token(). */
  constructor(dialog, does) {
    this.dialog = dialog;
    this.does = does;
    this.part = (name) => dialog.querySelector(`#change-${name}`);
    this.run = null;
    this.busy = false;
    this.matrix = null;
    this.part("key").addEventListener("input", () => {
      this.typed = true;
      this.predict();
    });
    this.part("cancel").addEventListener("click", () => dialog.close());
    dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.confirm();
    });
  }

  open(title, what, button, keyed) {
    this.matrix = null;
    this.typed = false;
    this.part("title").textContent = title;
    this.part("what").textContent = what;
    this.part("do").textContent = button;
    this.part("key-label").hidden = !keyed;
    this.part("key").value = "";
    this.part("halves").replaceChildren();
    this.part("error").textContent = "";
    // A repeated click sends the same id, so the change is made once.
    this.requestId = `page-${crypto.getRandomValues(new Uint32Array(4)).join("-")}`;
    this.dialog.showModal();
  }

  async split(route, catalog) {
    this.open(
      `Split route ${route.id}`,
      `Two new routes in group ${route.group} replace route ${route.id}.`,
      "Split",
      true,
    );
    this.route = route;
    this.ids = [route.id];
    this.version = catalog.version;
    // At an equal version a restored cluster has other routes.
    this.cluster = catalog.cluster;
    this.run = () =>
      change("routes/split", {
        route_id: route.id,
        key: this.part("key").value,
        expected_version: this.version,
        cluster_id: this.cluster,
        request_id: this.requestId,
      });
    this.part("do").disabled = true;
    this.part("halves").replaceChildren(
      element("dt", {}, "Halves"),
      element("dd", {}, "asking for the load by key…"),
    );
    const opened = this.requestId;
    let matrix = null;
    let fault = "";
    try {
      matrix = readMatrix(await ask("matrix", this.does.query(route)));
    } catch (error) {
      fault = `The load is not known: ${error.message}`;
    }
    // The dialog may have been closed, or opened for another route.
    if (this.requestId !== opened || !this.dialog.open) return;
    this.matrix = matrix;
    this.part("error").textContent = fault;
    // A key that was typed meanwhile takes precedence over the proposal.
    if (!this.typed && matrix) this.part("key").value = middle(matrix) ?? "";
    this.predict();
  }

  merge(route, catalog) {
    const next = mergeable(catalog.routes, route);
    this.open(
      `Merge routes ${route.id} and ${next.id}`,
      `One new route in group ${route.group} replaces both.`,
      "Merge",
      false,
    );
    this.ids = [route.id, next.id];
    this.version = catalog.version;
    // At an equal version a restored cluster has other routes.
    this.cluster = catalog.cluster;
    this.part("do").disabled = false;
    this.part("halves").replaceChildren(
      element("dt", {}, "From"), keyElement(showStart(route.start), "dd"),
      element("dt", {}, "To"), keyElement(showEnd(next.end), "dd"));
    this.run = () =>
      change("routes/merge", {
        left_id: route.id,
        right_id: next.id,
        expected_version: this.version,
        cluster_id: this.cluster,
        request_id: this.requestId,
      });
  }

  /** Shows the halves that the key in the field would make. */
  predict() {
    const key = this.part("key").value;
    const { start, end } = this.route;
    const bytes = keyBytes(key);
    const inside =
      compareBytes(bytes, keyBytes(start)) > 0 &&
      (end === null || compareBytes(bytes, keyBytes(end)) < 0);
    this.part("do").disabled = !inside;
    if (!inside) {
      this.part("halves").replaceChildren(
        element("dt", {}, "Key"),
        element(
          "dd",
          {},
          key === "" ? "enter one: there is no load to propose it" : "must lie inside the route",
        ),
      );
      return;
    }
    const load = this.matrix && halves(this.matrix, key);
    const one = (part) =>
      `${short(part, this.does.series())} (${percent(part, this.matrix.total)})`;
    // The load of a range that the key cuts may be in either half.
    const say = (part) =>
      !load
        ? "not known"
        : load.across > 0
          ? `${one(part)} to ${one(part + load.across)}`
          : one(part);
    this.part("halves").replaceChildren(
      element("dt", {}, "Left half"),
      element(
        "dd",
        {},
        keyElement(showStart(start)),
        " → ",
        keyElement(showEnd(key)),
        `: ${say(load?.left)}`,
      ),
      element("dt", {}, "Right half"),
      element(
        "dd",
        {},
        keyElement(showStart(key)),
        " → ",
        keyElement(showEnd(end)),
        `: ${say(load?.right)}`,
      ),
      ...(load?.across > 0
        ? [
            element("dt", {}, "Either"),
            element(
              "dd",
              {},
              `${exact(load.across)} counted in a range that the key cuts: no finer count is known`,
            ),
          ]
        : []),
    );
  }

  async confirm() {
    if (this.part("do").disabled || this.busy) return;
    const opened = this.requestId;
    this.busy = true;
    this.part("error").textContent = "";
    this.part("do").disabled = true;
    try {
      await this.run();
      if (this.requestId === opened) this.dialog.close();
      this.does.changed();
    } catch (error) {
      const said = error instanceof ApiError ? `${error.code}: ${error.message}` : error.message;
      const again = error.code === "ABORTED" ? await this.moveOn() : "";
      if (this.requestId !== opened) return;
      this.part("error").textContent = `${said}${again}`;
      this.part("do").disabled = false;
      if (error.status === 401) this.does.token(error.message);
    } finally {
      this.busy = false;
    }
  }

  /**
   * The routes have changed since the dialog was opened: the next attempt uses the current version.
   */
  async moveOn() {
    const now = await this.does.catalog().catch(() => null);
    if (now === null) return "";
    if (!this.ids.every((id) => now.routes.some((route) => route.id === id)))
      return " The route is gone.";
    this.version = now.version;
    return " Other routes have changed meanwhile. Check again and confirm.";
  }
}
