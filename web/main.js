// The page: what is shown, when it is asked for, and what the answers change.

import { ApiError, Unreachable, ask, serverNow, setToken } from "./api.js";
import { changes } from "./events.js";
import { wireExports } from "./export.js";
import { fieldTime, parseFieldTime } from "./format.js";
import { hotKeysWith } from "./hot.js";
import { KeptRows } from "./rows.js";
import { Interact } from "./interact.js";
import { follow, slide } from "./live.js";
import { BadAnswer, readMatrix } from "./matrix.js";
import { describe, setFault, setLink, showScreen } from "./notices.js";
import { Plot } from "./plot.js";
import { Pointing } from "./pointing.js";
import { isStreamed, queryName, routeQueryOf } from "./query.js";
import { WINDOWS, readState, rememberState, writeState } from "./state.js";
import { RouteChanges } from "./changes.js";
import { overlaps, readRoutes, showCluster, showRoutes } from "./tables.js";
import { committed } from "./window.js";

/** A live heatmap is reloaded now and then: routes, members and totals beside it change too. */
const REFRESH_MS = { off: 0, live: 60_000, "5s": 5_000, "30s": 30_000 };
const RETRY_MS = [1_000, 2_000, 5_000, 10_000];
/** Controls that show a part of the state as it is. */
const SELECTS = "beside refresh scale brightness rows columns role axis palette zone".split(" ");
const COPY_KEYS = { c: "key", r: "range", t: "time" };
const SERIES_KEYS = { 1: "writes", 2: "reads", 3: "write-bytes", 4: "read-bytes" };

const at = (id) => document.getElementById(id);
const controls = at("controls");
const plot = new Plot(at("base"), at("overlay"));
/** How cells are shown. */
const look = () => {
  const { zone, palette, role } = state;
  return { zone, palette, theme: theme(), cluster, role };
};
const pointing = new Pointing(plot, look, {
  zoom: (row) => go({ ...state, start: row.start, end: row.end }),
  route: (id) => {
    at("route-tools").elements.find.value = `#${id}`;
    go({ ...state, tab: "routes" });
  },
  hotKeys: hotKeysWith(() => state.zone, (start, end) => go({ ...state, start, end })),
});

let state = readState(location.hash);
let depth = Number(history.state?.depth ?? 0);
let [catalog, cluster] = [{ version: 0, routes: [] }, null];
/** The node does not answer: what is shown is from before. */
let lost = false;
let tokenWanted = false;
let [failures, timer] = [0, 0];
let [running, stream, cursor] = [null, null, null];
let shownQuery = "";
const axis = new KeptRows();

// ---- What is asked ---------------------------------------------------------------------------

async function load() {
  clearTimeout(timer);
  running?.abort();
  const controller = new AbortController();
  running = controller;
  const name = queryName(state);
  setLink("busy", "asking…");
  at("plot").setAttribute("aria-busy", "true");
  try {
    const asked = performance.now();
    let refused = null;
    const [matrix, members] = await Promise.all([
      ask("matrix", { ...axis.query(state), encoding: "packed" }, controller.signal)
        .then(readMatrix)
        .catch((error) => {
          refused = error;
          return fallBack(error);
        }),
      ask("cluster", {}, controller.signal).catch(fallBack),
    ]);
    if (controller.signal.aborted) return;
    lost = false;
    if (matrix === null) {
      // Routes and members are known without the sampler.
      cluster = members ?? cluster;
      await askRoutes(controller.signal);
      showTables();
      throw refused;
    }
    failures = 0;
    setFault(null);
    // A gesture has begun meanwhile: leave the heatmap as it is, and load again when it ends.
    if (interact.busy) return;
    if (members) cluster = members;
    shownQuery = name;
    axis.answered(name, matrix);
    setLink("good", `answered in ${Math.round(performance.now() - asked)} ms`);
    show(matrix);
    if (!stream) cursor = String(matrix.columns.findLast((column) => !column.open)?.end ?? "");
    if (axis.isPoor(matrix)) axis.plan();
    listen();
    await askRoutes(controller.signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    failed(error);
  } finally {
    if (running === controller) {
      running = null;
      at("plot").setAttribute("aria-busy", "false");
      schedule();
    }
  }
}

/** The routes, where they are not those of now: there can be 100,000 of them. */
async function askRoutes(signal) {
  const version = Number(cluster?.catalog_version ?? plot.matrix?.version ?? 0);
  if (catalog.version === version && catalog.routes.length > 0) return;
  const routes = await ask("routes", {}, signal).catch(fallBack);
  if (routes === null || signal.aborted) return;
  catalog = readRoutes(routes);
  showTables();
}

function show(matrix) {
  axis.offer(at("detail"), matrix);
  plot.events = changes(matrix.events);
  plot.setMatrix(matrix);
  describe(matrix, state, theme(), plot.lookColours());
  showTables();
  pointing.follow();
}

// ---- Live ------------------------------------------------------------------------------------

const isLive = () => isStreamed(state) && !document.hidden;

/** Opens the stream of what is shown, keeps it, or closes it. */
function listen() {
  if (stream && (!isLive() || stream.name !== axis.streamName(state))) {
    stream.controller.abort();
    stream = null;
  }
  if (!isLive() || stream) return;
  const controller = new AbortController();
  const mine = { name: axis.streamName(state), controller };
  stream = mine;
  // An earlier node plans its own rows: as fine as can be, so that each lies in one shown.
  const { from_ms: _, max_columns: __, ...parameters } = axis.query(state);
  follow({ ...parameters, max_rows: 1_024, encoding: "packed" }, cursor, controller.signal, {
    update(json, id) {
      cursor = id;
      if (stream === mine) join(readMatrix(json));
    },
  }).catch((error) => {
    if (stream === mine) stream = null;
    if (error.name === "AbortError") return;
    failed(error);
    schedule();
  });
}

/** Slides what is new into the picture; where it does not fit, the whole is asked for. */
function join(update) {
  if (interact.busy || running || queryName(state) !== shownQuery || !plot.matrix) return;
  const next = slide(plot.matrix, update, serverNow() - WINDOWS[state.last]);
  if (!next) {
    load();
    return;
  }
  show(next);
  if (axis.isPoor(next)) axis.plan(load);
}

/** Beside the matrix, routes and members may be missing; but a refused token concerns all. */
function fallBack(error) {
  if (error.name === "AbortError" || error.status === 401 || error instanceof Unreachable)
    throw error;
  return null;
}

function schedule() {
  clearTimeout(timer);
  const wait =
    failures > 0 ? RETRY_MS[Math.min(failures, RETRY_MS.length) - 1] : REFRESH_MS[state.refresh];
  if (wait > 0 && !document.hidden && !tokenWanted) timer = setTimeout(load, wait);
}

// ---- What went wrong -------------------------------------------------------------------------

function failed(error) {
  failures += 1;
  stream?.controller.abort();
  stream = null;
  if (error instanceof Unreachable) {
    setLink("bad", "connection lost");
    lost = true;
    setFault(["bad", "Connection lost", "Trying again; what is shown is from before."]);
    showTables();
    return;
  }
  if (error instanceof ApiError && (error.status === 401 || error.code === "UNAUTHENTICATED")) {
    askToken(error.message);
    return;
  }
  if (error instanceof ApiError || error instanceof BadAnswer) {
    const code = error.code ?? "BAD ANSWER";
    setLink("bad", code);
    if (code === "UNAVAILABLE" && !plot.matrix)
      showScreen("off", "The key visualizer cannot answer", error.message);
    setFault(["bad", code, error.message]);
    return;
  }
  setLink("bad", "the page failed");
  setFault(["bad", "The page failed", error.message]);
  throw error;
}

function askToken(said) {
  setLink("bad", "token needed");
  tokenWanted = true;
  clearTimeout(timer);
  const dialog = at("token-dialog");
  at("token-said").textContent = said;
  setFault(["bad", "Token needed", said, ["Enter a token", () => askToken(said)]]);
  if (dialog.open) return;
  dialog.returnValue = "";
  dialog.showModal();
}

// ---- Views -----------------------------------------------------------------------------------

/** Goes to another view; it can be gone back from. */
function go(next) {
  depth += 1;
  state = next;
  history.pushState({ depth }, "", writeState(state));
  apply();
}

/** Changes how the view looks, without a step to go back over. */
function adjust(change) {
  state = { ...state, ...change };
  history.replaceState({ depth }, "", writeState(state));
  rememberState(state);
  apply();
}

function back() {
  interact.forget();
  if (depth > 0) history.back();
}

function reset() {
  interact.forget();
  const first = { ...state, from: null, to: null, start: "", end: null };
  if (writeState(first) === writeState(state)) plot.setView(plot.whole());
  else go(first);
}

const theme = () =>
  state.theme || (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");

/** Whether a page is shown: the chosen one, and beside the heatmap what is wanted there. */
const isShown = (tab) => tab === state.tab || (state.tab === "heat" && tab === state.beside);

/** Makes the page show the state, and asks the node where the picture is of another query. */
function apply() {
  document.documentElement.dataset.theme = theme();
  for (const tab of document.querySelectorAll("[data-tab]")) {
    const chosen = tab.dataset.tab === state.tab;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    at(`page-${tab.dataset.tab}`).hidden = !isShown(tab.dataset.tab);
  }
  at("pages").classList.toggle("beside", state.tab === "heat" && state.beside !== "");
  fillControls();
  const { palette, scale, brightness, zone } = state;
  plot.setStyle({ palette, scale, brightness, zone, theme: theme() });
  if (plot.matrix) {
    describe(plot.matrix, state, theme(), plot.lookColours());
    showTables();
  }
  if (queryName(state) === shownQuery) {
    schedule();
    if (running === null) listen();
  } else {
    load();
  }
}

function fillControls() {
  const fields = controls.elements;
  fields.series.value = state.series;
  for (const name of SELECTS) fields[name].value = String(state[name]);
  const custom = state.from !== null;
  fields.last.value = custom ? "custom" : state.last;
  at("custom").hidden = !custom;
  if (custom) {
    fields.from.value = fieldTime(state.from, state.zone);
    fields.to.value = fieldTime(state.to, state.zone);
  }
  at("back").disabled = depth === 0;
}

function showTables() {
  if (isShown("routes")) {
    const { find, sort } = at("route-tools").elements;
    showRoutes(
      at("routes"),
      at("route-count"),
      catalog,
      plot.matrix,
      {
        find: find.value.trim(),
        sort: sort.value,
        zone: state.zone,
        linked: pointing.linked,
        cluster,
        series: plot.matrix?.series ?? state.series,
      },
      {
        light: (route) => pointing.light(route && ((row) => overlaps(route, row))),
        open: (route) => go({ ...state, tab: "heat", start: route.start, end: route.end }),
        split: (route) => routeChanges.split(route, catalog),
        merge: (route) => routeChanges.merge(route, catalog),
      },
    );
  }
  if (isShown("cluster") && cluster) {
    showCluster(
      cluster,
      lost,
      { line: at("cluster-line"), members: at("members"), groups: at("groups") },
      pointing.linked,
      { light: (group) => pointing.light(group === null ? null : (row) => row.group === group) },
    );
  }
}

const routeChanges = new RouteChanges(at("change-dialog"), {
  query: (route) => routeQueryOf(state, route),
  series: () => state.series,
  changed: load,
  async catalog() {
    catalog = readRoutes(await ask("routes"));
    showTables();
    return catalog;
  },
  token: askToken,
});

// ---- Wiring ----------------------------------------------------------------------------------

const interact = new Interact(plot, {
  cursor: (...cell) => pointing.cursor(...cell),
  pin: (cell) => pointing.pin(cell),
  unpin: () => pointing.unpin(),
  back,
  reset,
  commit(view) {
    const next = committed(state, plot.matrix, view, catalog.routes, serverNow());
    setBoxMode(false);
    if (next) {
      go(next);
      return;
    }
    plot.setView(plot.whole());
    if (queryName(state) !== shownQuery) load();
  },
  key(name) {
    if (SERIES_KEYS[name]) adjust({ series: SERIES_KEYS[name] });
    else if (name === "l" || name === "L")
      adjust({ scale: state.scale === "log" ? "linear" : "log" });
    else if (name === "k" || name === "K") pointing.showHotKeys();
    else if (name === "?") at("help-dialog").showModal();
    else if (COPY_KEYS[name.toLowerCase()]) pointing.copy(COPY_KEYS[name.toLowerCase()]);
  },
});

function setBoxMode(on) {
  interact.boxMode = on;
  at("box").setAttribute("aria-pressed", String(on));
}

controls.addEventListener("submit", (event) => event.preventDefault());
controls.addEventListener("input", (event) => {
  const { name, value } = event.target;
  if (name === "last" && value === "custom") {
    const to = Math.round(serverNow());
    go({ ...state, from: to - WINDOWS[state.last], to });
  } else if (name === "last") {
    adjust({ last: value, from: null, to: null });
  } else if (name === "from" || name === "to") {
    const ms = parseFieldTime(value, state.zone);
    const next = { ...state, [name]: ms };
    if (ms !== null && next.from < next.to) adjust({ from: next.from, to: next.to });
  } else if (["rows", "columns", "brightness"].includes(name)) {
    adjust({ [name]: Number(value) });
  } else if (name) {
    adjust({ [name]: value });
  }
});
for (const tab of document.querySelectorAll("[data-tab]")) {
  tab.addEventListener("click", () => go({ ...state, tab: tab.dataset.tab }));
  tab.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") tab.previousElementSibling?.focus();
    if (event.key === "ArrowRight") tab.nextElementSibling?.focus();
  });
}
at("theme").addEventListener("click", () =>
  adjust({ theme: theme() === "dark" ? "light" : "dark" }),
);
at("back").addEventListener("click", back);
at("reset").addEventListener("click", reset);
at("box").addEventListener("click", () => setBoxMode(!interact.boxMode));
at("hot").addEventListener("click", () => pointing.showHotKeys());
at("detail").addEventListener("click", () => axis.plan(load));
at("help").addEventListener("click", () => at("help-dialog").showModal());
const exports = { png: at("png"), csv: at("csv"), json: at("json") };
wireExports(exports, plot, () => ({ ...state, theme: theme() }), failed);
at("route-tools").addEventListener("input", showTables);
at("route-tools").addEventListener("submit", (event) => event.preventDefault());
at("token-dialog").addEventListener("close", () => {
  const given = at("token").value;
  at("token").value = "";
  if (at("token-dialog").returnValue !== "ok") return;
  tokenWanted = false;
  setToken(given);
  load();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) listen();
  else load();
});
addEventListener("online", load);
addEventListener("popstate", (event) => {
  interact.forget();
  depth = Number(event.state?.depth ?? 0);
  state = readState(location.hash);
  apply();
});
matchMedia("(prefers-color-scheme: light)").addEventListener("change", apply);
document.addEventListener("click", (event) => {
  const sheet = document.querySelector(".more");
  if (!sheet.contains(event.target)) sheet.open = false;
});

history.replaceState({ depth }, "", writeState(state));
apply();
