// When the node is asked, and how what it pushes becomes the picture. Rows stay the same while
// somebody looks; a live picture takes what the streams bring, and asks for the whole only where
// that does not fit and once a minute.

import { ask, serverNow } from "./api.js";
import { Unreachable } from "./api.js";
import { combine } from "./combine.js";
import { follow, slide } from "./live.js";
import { readMatrix } from "./matrix.js";
import { isStreamed, partsOf, queryName, spanOf } from "./query.js";
import { KeptRows } from "./rows.js";
import { askMatrix } from "./source.js";
import { readRoutes } from "./tables.js";

/** A live heatmap is reloaded now and then: routes, members and totals beside it change too. */
const REFRESH_MS = { off: 0, live: 60_000, "5s": 5_000, "30s": 30_000 };
/** A stream brings something at least so often. */
const LIVE_MS = 5_000;
const RETRY_MS = [1_000, 2_000, 5_000, 10_000];
/** How long the streams of two series may be at different columns. */
const APART_MS = 5_000;

export class Loader {
  /**
   * `does`: state(), busy(), asking(on), show(matrix), members(cluster), tables(), failed(error),
   * unknown(error) where the matrix alone is missing, answered(ms), heard().
   */
  constructor(does) {
    this.does = does;
    this.axis = new KeptRows();
    this.catalog = { version: 0, routes: [] };
    this.cluster = null;
    this.shownQuery = "";
    this.failures = 0;
    this.waits = false;
    this.timer = 0;
    this.running = null;
    this.streams = [];
    /** The matrix of each series that is shown, as its stream left it. */
    this.parts = [];
    this.cursors = [];
    this.apartSince = null;
    /** Columns of the window are wider than those of the streams. */
    this.wide = false;
  }

  /** How often something new is expected. */
  get everyMs() {
    const { refresh } = this.does.state();
    return refresh === "live" && !this.wide ? LIVE_MS : REFRESH_MS[refresh];
  }

  get isShown() {
    return queryName(this.does.state()) === this.shownQuery;
  }

  async load() {
    clearTimeout(this.timer);
    this.running?.abort();
    const controller = new AbortController();
    this.running = controller;
    const { signal } = controller;
    const state = this.does.state();
    const name = queryName(state);
    this.does.asking(true);
    try {
      const asked = performance.now();
      let refused = null;
      const [matrix, members] = await Promise.all([
        askMatrix(state, this.axis, signal).catch((error) => {
          refused = error;
          return fallBack(error);
        }),
        ask("cluster", {}, signal).catch(fallBack),
      ]);
      if (signal.aborted) return;
      if (matrix === null) {
        // Routes and members are known without the sampler.
        this.cluster = members ?? this.cluster;
        await this.askRoutes(signal, 0);
        this.does.unknown();
        throw refused;
      }
      this.failures = 0;
      this.does.answered(performance.now() - asked);
      // A gesture has begun meanwhile: leave the heatmap as it is, and load again when it ends.
      if (this.does.busy()) return;
      if (members) this.cluster = members;
      this.shownQuery = name;
      this.axis.answered(name, matrix);
      this.keepParts(matrix);
      this.does.show(matrix, true);
      if (this.axis.isPoor(matrix)) this.axis.plan();
      this.listen();
      await this.askRoutes(signal, matrix.version);
    } catch (error) {
      if (error.name !== "AbortError") this.fail(error);
    } finally {
      if (this.running === controller) {
        this.running = null;
        this.does.asking(false);
        this.schedule();
      }
    }
  }

  /** What the streams go on from. */
  keepParts(matrix) {
    this.parts = matrix.parts ?? [matrix];
    this.apartSince = null;
    if (this.streams.length > 0) return;
    this.cursors = this.parts.map((part) =>
      String(part.columns.findLast((column) => !column.open)?.end ?? ""));
  }

  /** The routes, where they are not those of now: there can be 100,000 of them. */
  async askRoutes(signal, shown) {
    const version = Number(this.cluster?.catalog_version ?? shown);
    if (this.catalog.version === version && this.catalog.routes.length > 0) return;
    const routes = await ask("routes", {}, signal).catch(fallBack);
    if (routes === null || signal.aborted) return;
    this.catalog = readRoutes(routes);
    this.does.tables();
  }

  async freshCatalog() {
    this.catalog = readRoutes(await ask("routes"));
    this.does.tables();
    return this.catalog;
  }

  // ---- Live ----------------------------------------------------------------------------------

  /** Opens the streams of what is shown, keeps them, or closes them. */
  listen() {
    const state = this.does.state();
    const live = isStreamed(state) && !document.hidden && this.parts.length > 0;
    const name = this.axis.streamName(state);
    if (this.streams.length > 0 && (!live || this.streams[0].name !== name)) this.deafen();
    if (!live || this.streams.length > 0) return;
    this.streams = partsOf(state.series).map((series, at) => this.open(state, series, at, name));
  }

  open(state, series, at, name) {
    const controller = new AbortController();
    const mine = { name, controller };
    // An earlier node plans its own rows: as fine as can be, so that each lies in one shown.
    const { from_ms: _, max_columns: __, ...parameters } = this.axis.query(state);
    const asked = { ...parameters, series, max_rows: 1_024, encoding: "packed" };
    follow(asked, this.cursors[at], controller.signal, {
      update: (json, id) => {
        this.cursors[at] = id;
        if (this.streams.includes(mine)) this.join(at, readMatrix(json));
      },
    }).catch((error) => {
      if (error.name === "AbortError" || !this.streams.includes(mine)) return;
      this.fail(error);
      this.schedule();
    });
    return mine;
  }

  deafen() {
    for (const { controller } of this.streams) controller.abort();
    this.streams = [];
  }

  /** Slides what is new into the picture; where it does not fit, the whole is asked for. */
  join(at, update) {
    if (this.does.busy() || this.running || !this.isShown) return;
    const part = this.parts[at];
    if (!part) return;
    const state = this.does.state();
    const next = slide(part, update, serverNow() - spanOf(state));
    if (!next) {
      // Columns of the window may be wider than those of the stream; then the next reload brings
      // them. Other rows or routes are asked for at once.
      this.wide = stepOf(part) !== stepOf(update);
      if (!this.wide) this.load();
      return;
    }
    this.wide = false;
    this.parts[at] = next;
    const matrix = this.parts.length === 1 ? next : combine(this.parts, state.series);
    if (matrix) {
      this.apartSince = null;
      this.does.heard();
      this.does.show(matrix, false);
      if (this.axis.isPoor(matrix)) this.axis.plan(() => this.load());
      return;
    }
    // The other series has not come to this column yet.
    this.apartSince ??= performance.now();
    if (performance.now() - this.apartSince > APART_MS) this.load();
  }

  // ---- Time ----------------------------------------------------------------------------------

  schedule() {
    clearTimeout(this.timer);
    const { refresh } = this.does.state();
    const wait =
      this.failures > 0
        ? RETRY_MS[Math.min(this.failures, RETRY_MS.length) - 1]
        : REFRESH_MS[refresh];
    if (wait > 0 && !document.hidden && !this.waits)
      this.timer = setTimeout(() => this.load(), wait);
  }

  /** A token is asked for: nothing is sent until there is one. */
  hold(on) {
    this.waits = on;
    if (on) clearTimeout(this.timer);
  }

  /** The state or its look has changed: ask only where the picture is of another query. */
  follow() {
    if (!this.isShown) {
      this.load();
      return;
    }
    this.schedule();
    if (this.running === null) this.listen();
  }

  fail(error) {
    this.failures += 1;
    this.deafen();
    this.does.failed(error);
  }
}

const stepOf = ({ columns }) => (columns.length > 0 ? columns[0].end - columns[0].start : 0);

/** Beside the matrix, routes and members may be missing; but a refused token concerns all. */
function fallBack(error) {
  if (error.name === "AbortError" || error.status === 401 || error instanceof Unreachable)
    throw error;
  return null;
}
