// The page: its state, and what follows from a change of it.

import { serverNow, setToken } from "./api.js";
import { Compare } from "./compare.js";
import { Connection } from "./connection.js";
import { copyText } from "./copying.js";
import { all, at, button } from "./element.js";
import { changes } from "./events.js";
import { wireExports } from "./export.js";
import { Findings } from "./findings.js";
import { fieldTime, parseFieldTime } from "./format.js";
import { Four } from "./four.js";
import { hotKeysWith } from "./hot.js";
import { Interact } from "./interact.js";
import { Journal } from "./journal.js";
import { showLines } from "./lines.js";
import { Loader } from "./loader.js";
import { Minimap } from "./minimap.js";
import { describe, problems, showScreen } from "./notices.js";
import { Pilot } from "./pilot.js";
import { Plot } from "./plot.js";
import { Pointing } from "./pointing.js";
import { queryOf, routeQueryOf } from "./query.js";
import { after } from "./range.js";
import { Replay } from "./replay.js";
import { RouteChanges } from "./changes.js";
import { Shares } from "./shares.js";
import { WINDOWS, readState, rememberState, writeState } from "./state.js";
import { overlaps, showCluster, showRoutes } from "./tables.js";
import { Top } from "./top.js";
import { committed } from "./window.js";
import { fillWords } from "./words.js";

/** Controls that show a part of the state as it is. */
const SELECTS =
  "series beside refresh height scale brightness rows columns role axis palette zone".split(" ");
const COPY_KEYS = { c: "key", r: "range", t: "time" };
const SERIES_KEYS = {
  0: "operations", 1: "writes", 2: "reads", 3: "write-bytes", 4: "read-bytes",
};
const SCALES = ["clip", "linear", "exponent", "log"];
/** A phone has no room beside: it shows what is hottest first. */
const narrow = matchMedia("(max-width: 760px)");

const controls = at("controls");
let state = readState(location.hash);
let depth = Number(history.state?.depth ?? 0);

const zone = () => state.zone;
const theme = () =>
  state.theme || (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");
const plot = new Plot(at("base"), at("overlay"));
const connection = new Connection({
  token: askToken,
  zone,
  everyMs: () => loader.everyMs,
});
/** How cells are shown. */
const look = () => ({
  ...plot.style,
  colours: plot.lookColours(),
  theme: theme(),
  cluster: loader.cluster,
  role: state.role,
});

const loader = new Loader({
  state: () => state,
  busy: () => interact.busy,
  asking(on) {
    if (on) connection.asking();
    at("plot").setAttribute("aria-busy", String(on));
  },
  answered: (ms) => connection.answered(`answered in ${Math.round(ms)} ms`),
  heard: () => connection.heard(),
  show,
  tables: showTables,
  unknown: showTables,
  failed,
});
const pilot = new Pilot(at("remedy-dialog"), at("pilot"), { done: () => loader.load() });
const findings = new Findings(at("findings"), {
  zone,
  show: showFinding,
  preview: (finding, remedy) => pilot.preview(finding, remedy),
  changed() {
    plot.ranks = ranksOf(findings.all);
    plot.draw();
    pointing.followFinding(findings);
    pointing.restore(state.sel, findings);
    if (state.tab === "journal" && plot.matrix) journal.show(plot.matrix, plot.events);
  },
});
const pointing = new Pointing(plot, look, {
  zoom: (row) => go({ ...state, start: row.start, end: row.end }),
  route: (id) => {
    at("route-tools").elements.find.value = `#${id}`;
    go({ ...state, tab: "routes" });
  },
  hotKeys: hotKeysWith(zone, (start, end) => go({ ...state, start, end })),
  lines: showLines,
  selected,
  acts: (finding) => [
    ...finding.remedies.slice(0, 3).map((remedy) =>
      button(`Preview: ${remedy.words}`, () => pilot.preview(finding, remedy))),
    button("Zoom to the keys", () => zoomTo(finding)),
    button("Before and after", () => compareAt(finding.since)),
  ],
});
const minimap = new Minimap(at("minimap"), at("mini"), at("mini-text"), {
  zone,
  colours: () => plot.lookColours(),
  go: (from, to) => go({ ...state, from, to }),
});
const replay = new Replay(at("player"), plot, { zone, ended: () => at("overlay").focus() });
const opened = { state: () => state, look, cluster: () => loader.cluster, zone };
const open = (row) => go({ ...state, tab: "heat", start: row.start, end: row.end });
const top = new Top(
  { ranges: at("top-ranges"), keys: at("top-keys"), note: at("top-note") },
  { ...opened, open, openKey: (key) => open({ start: key, end: after(key) }) },
);
const compare = new Compare(
  { line: at("compare-line"), charts: at("compare-charts"), rows: at("compare-rows") },
  { ...opened, open },
);
const four = new Four({ line: at("four-line"), charts: at("four-charts") }, opened);
const shares = new Shares(
  { line: at("nodes-line"), charts: at("nodes-charts") },
  { ...opened, set: (each) => plot.setShares(each) },
);
const journal = new Journal(
  { line: at("journal-line"), body: at("journal") },
  { zone, pilot, findings: () => [...findings.all, ...findings.resolved], compare: compareAt },
);
const PAGES = {
  top: (matrix) => top.show(matrix),
  compare: (matrix) => compare.show(matrix),
  four: (matrix) => four.show(matrix),
  nodes: (matrix) => shares.show(matrix),
  journal: (matrix) => journal.show(matrix, plot.events),
};
const routeChanges = new RouteChanges(at("change-dialog"), {
  query: (route) => routeQueryOf(state, route),
  series: () => queryOf(state).series,
  changed: () => loader.load(),
  catalog: () => loader.freshCatalog(),
  token: askToken,
});

// ---- What is shown ---------------------------------------------------------------------------

/** Shows a matrix; `whole` where it was asked for, else a stream brought its last columns. */
function show(matrix, whole) {
  if (replay.isOn) return;
  loader.axis.offer(at("detail"), matrix);
  plot.events = changes(matrix.events);
  plot.setMatrix(matrix);
  connection.say(matrix, problems(matrix, loader.cluster, state.zone));
  describe(plot, state, theme());
  showTables();
  pointing.follow();
  pointing.restore(state.sel, findings);
  if (whole) showPages();
  const { from_ms, to_ms, start, end, role } = queryOf(state);
  const name = JSON.stringify([state.last, state.from, to_ms, start, end]);
  const window_ = Object.fromEntries(
    Object.entries({ from_ms, to_ms, start, end }).filter(([, value]) => value !== undefined),
  );
  findings.follow(window_, name);
  shares.follow(matrix);
  minimap.follow(matrix, { start, end, role });
}

/** The pages that are computed from the matrix, or asked for beside it. */
function showPages() {
  const { matrix } = plot;
  if (!matrix) return;
  for (const [tab, draw] of Object.entries(PAGES)) if (isShown(tab)) draw(matrix);
}

function showTables() {
  const { catalog, cluster } = loader;
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
        open,
        split: (route) => routeChanges.split(route, catalog),
        merge: (route) => routeChanges.merge(route, catalog),
      },
    );
  }
  if (isShown("cluster") && cluster) {
    showCluster(
      cluster,
      connection.lost,
      { line: at("cluster-line"), members: at("members"), groups: at("groups") },
      pointing.linked,
      { light: (group) => pointing.light(group === null ? null : (row) => row.group === group) },
    );
  }
}

/** The first findings that are of some keys, with the rows that have these. */
function ranksOf(all) {
  return all.slice(0, 3).map((finding, at) => ({ finding, rank: at + 1 }))
    .filter(({ finding: { key, start, end } }) => key !== null || start !== "" || end !== null)
    .map(({ finding: { key, start, end }, rank }) => {
      const range = key === null ? { start, end } : { start: key, end: after(key) };
      return { rank, has: (row) => overlaps(range, row) };
    });
}

function showFinding(finding) {
  findings.mark(finding.id);
  if (state.tab !== "heat") go({ ...state, tab: "heat" });
  pointing.showFinding(finding);
}

/** The keys of a finding, with its time where it has ended. */
function zoomTo(finding) {
  const { key, start, end } = finding;
  const range = key === null ? { start, end } : { start: key, end: after(key) };
  go({ ...state, ...range });
}

/** Before and after a time: as long each as there is room, up to ten minutes. */
function compareAt(ms) {
  const length = Math.max(10_000, Math.min(600_000, serverNow() - ms));
  const [from, to] = [Math.round(ms), Math.round(ms + length)];
  const versus = `${Math.round(ms - length)}-${from}`;
  go({ ...state, tab: "compare", from, to, versus });
}

// ---- What went wrong -------------------------------------------------------------------------

function failed(error) {
  const kind = connection.failed(error);
  if (kind === "lost") {
    showTables();
    if (!plot.matrix) showScreen("lost", "No node answers", "Trying again.");
  } else if (kind === "token") {
    askToken(error.message);
  } else if (kind === "refused" && !plot.matrix) {
    const title = error.code === "UNAVAILABLE" ? "The key visualizer cannot answer" : error.code;
    showScreen("off", title ?? "The answer is broken", error.message);
  } else if (kind === "failed") {
    throw error;
  }
}

function askToken(said) {
  loader.hold(true);
  const dialog = at("token-dialog");
  at("token-said").textContent = said;
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

/** What is selected stands in the link, and changes nothing else. */
function selected(sel) {
  if (sel === state.sel) return;
  state = { ...state, sel };
  history.replaceState({ depth }, "", writeState(state));
  findings.mark(pointing.finding?.id ?? "");
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

/** Whether a page is shown: the chosen one, and beside the heatmap what is wanted there. */
function isShown(tab) {
  if (tab === state.tab) return true;
  if (state.tab !== "heat") return false;
  return tab === state.beside || (narrow.matches && tab === "top");
}

/** Makes the page show the state, and asks the node where the picture is of another query. */
function apply() {
  document.documentElement.dataset.theme = theme();
  at("main").dataset.tab = state.tab;
  for (const tab of all("[data-tab]")) {
    const chosen = tab.dataset.tab === state.tab;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    at(`page-${tab.dataset.tab}`).hidden = !isShown(tab.dataset.tab);
  }
  at("pages").classList.toggle("beside", state.tab === "heat" && state.beside !== "");
  fillControls();
  const { palette, scale, brightness, low, high, height } = state;
  const style = { palette, scale, brightness, low, high, height, zone: zone(), theme: theme() };
  plot.setStyle(style);
  if (plot.matrix) {
    describe(plot, state, theme());
    showTables();
    minimap.draw();
    findings.draw();
    if (loader.isShown) showPages();
  }
  loader.follow();
}

function fillControls() {
  const fields = controls.elements;
  for (const name of SELECTS) fields[name].value = String(state[name]);
  for (const name of ["low", "high"])
    if (document.activeElement !== fields[name]) fields[name].value = state[name] ?? "";
  const custom = state.from !== null;
  fields.last.value = custom ? "custom" : state.last;
  at("custom").hidden = !custom;
  if (custom) {
    fields.from.value = fieldTime(state.from, state.zone);
    fields.to.value = fieldTime(state.to, state.zone);
  }
  at("back").hidden = depth === 0;
  at("live").setAttribute("aria-pressed", String(state.refresh === "live" && !custom));
  at("zones").textContent = state.zone === "utc" ? "UTC" : "Local";
  const { versus, then } = at("compare-tools").elements;
  const own = state.versus.includes("-");
  versus.value = own ? "other" : state.versus;
  then.closest("label").hidden = !own;
  if (own) then.value = fieldTime(Number(state.versus.split("-")[0]), state.zone);
}

// ---- Wiring ----------------------------------------------------------------------------------

const interact = new Interact(plot, {
  cursor: (...cell) => pointing.cursor(...cell),
  pin: (cell) => pointing.pin(cell),
  unpin: () => (replay.isOn ? replay.end() : pointing.unpin()),
  event: (event) => compareAt(event.ms),
  back,
  reset,
  commit(view, box) {
    const next = committed(state, plot.matrix, view, loader.catalog.routes, serverNow());
    setBoxMode(false);
    if (next) {
      go(box ? { ...next, sel: '["view"]' } : next);
      return;
    }
    plot.setView(plot.whole());
    if (!loader.isShown) loader.load();
  },
  key(name) {
    const lower = name.toLowerCase();
    if (SERIES_KEYS[name]) adjust({ series: SERIES_KEYS[name] });
    else if (lower === "l")
      adjust({ scale: SCALES[(SCALES.indexOf(state.scale) + 1) % SCALES.length] });
    else if (lower === "h") adjust({ height: state.height === "load" ? "equal" : "load" });
    else if (lower === "k") pointing.showHotKeys();
    else if (lower === "p") replay.start();
    else if (name === "?") at("help-dialog").showModal();
    else if (COPY_KEYS[lower]) pointing.copy(COPY_KEYS[lower]);
  },
});

function setBoxMode(on) {
  interact.boxMode = on;
  at("box").setAttribute("aria-pressed", String(on));
}

controls.addEventListener("submit", (event) => event.preventDefault());
for (const box of [controls, at("custom")]) box.addEventListener("input", control);

/** @param {any} event */
function control(event) {
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
  } else if (name === "low" || name === "high") {
    const number = value === "" ? null : Number(value);
    if (number === null || number >= 0) adjust({ [name]: number });
  } else if (["rows", "columns", "brightness"].includes(name)) {
    adjust({ [name]: Number(value) });
  } else if (name) {
    adjust({ [name]: value });
  }
}

at("compare-tools").addEventListener("submit", (event) => event.preventDefault());
at("compare-tools").addEventListener("input", (/** @type {any} */ event) => {
  const length = plot.matrix ? plot.matrix.columns.at(-1).end - plot.matrix.columns[0].start : 0;
  const from = event.target.name === "then"
    ? parseFieldTime(event.target.value, state.zone)
    : Math.round(serverNow() - 2 * length);
  const own = event.target.name === "then" || event.target.value === "other";
  if (own && from !== null) adjust({ versus: `${from}-${from + length}` });
  else if (!own) adjust({ versus: event.target.value });
});
for (const tab of all("[data-tab]")) {
  tab.addEventListener("click", () => go({ ...state, tab: tab.dataset.tab }));
  tab.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") tab.previousElementSibling?.focus();
    if (event.key === "ArrowRight") tab.nextElementSibling?.focus();
  });
}
const clicks = {
  theme: () => adjust({ theme: theme() === "dark" ? "light" : "dark" }),
  live: () => adjust({ refresh: state.refresh === "live" ? "off" : "live", from: null, to: null }),
  zones: () => adjust({ zone: state.zone === "utc" ? "local" : "utc" }),
  back,
  reset,
  box: () => setBoxMode(!interact.boxMode),
  hot: () => pointing.showHotKeys(),
  replay: () => replay.start(),
  detail: () => loader.axis.plan(() => loader.load()),
  help: () => at("help-dialog").showModal(),
  glossary: () => at("words-dialog").showModal(),
  async share() {
    const done = await copyText(location.href);
    at("share").textContent = done ? "Copied" : "Refused";
    setTimeout(() => { at("share").textContent = "Share"; }, 1_500);
  },
};
for (const [id, run] of Object.entries(clicks)) at(id).addEventListener("click", run);
const exports = { png: at("png"), csv: at("csv"), json: at("json") };
wireExports(exports, plot, () => ({ ...state, theme: theme() }), failed);
at("route-tools").addEventListener("input", showTables);
at("route-tools").addEventListener("submit", (event) => event.preventDefault());
at("token-dialog").addEventListener("close", () => {
  const given = at("token").value;
  at("token").value = "";
  if (at("token-dialog").returnValue !== "ok") return;
  loader.hold(false);
  setToken(given);
  loader.load();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) loader.listen();
  else loader.load();
});
addEventListener("online", () => loader.load());
addEventListener("popstate", (event) => {
  interact.forget();
  depth = Number(event.state?.depth ?? 0);
  state = readState(location.hash);
  apply();
});
narrow.addEventListener("change", apply);
matchMedia("(prefers-color-scheme: light)").addEventListener("change", apply);
document.addEventListener("click", (event) => {
  const [sheet] = all(".more");
  if (!sheet.contains(event.target)) sheet.open = false;
});

fillWords(at("words"));
history.replaceState({ depth }, "", writeState(state));
apply();
