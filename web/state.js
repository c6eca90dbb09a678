// The state of the page. It is in the URL, so that a link reproduces it; preferences are also
// stored in the browser.

export const WINDOWS = {
  "fit": 3_600_000,
  "5m": 300_000,
  "15m": 900_000,
  "1h": 3_600_000,
  "6h": 21_600_000,
  "24h": 86_400_000,
  "7d": 604_800_000,
};

export const TABS = "heat top compare four nodes routes cluster journal".split(" ");

const one = (...allowed) => (text) => (allowed.includes(text) ? text : undefined);
const whole = (text) => (/^\d{1,15}$/.test(text) ? Number(text) : undefined);
const any = (text) => (text.length <= 12_300 ? text : undefined);
const count = (text) => (/^\d{1,15}(\.\d{1,3})?$/.test(text) ? Number(text) : undefined);
const windowName = (text) =>
  /^(day|before|\d{1,15}-\d{1,15})$/.test(text) ? text : undefined;
const between = (low, high) => (text) => {
  const value = Number(text);
  return text !== "" && value >= low && value <= high ? value : undefined;
};

/**
 * name: [default, parser, whether the browser stores it]
 * @type {Record<string, [any, (text: string) => any, boolean]>}
 */
const FIELDS = {
  tab: ["heat", one(...TABS), false],
  series: [
    "operations",
    one("operations", "writes", "reads", "write-bytes", "read-bytes"),
    false,
  ],
  last: ["fit", one(...Object.keys(WINDOWS)), true],
  from: [null, whole, false],
  to: [null, whole, false],
  start: ["", any, false],
  end: [null, any, false],
  rows: [256, (text) => one("64", "128", "256", "512", "1024")(text) && Number(text), true],
  columns: [
    480,
    (text) => one("120", "240", "480", "960", "1440", "2048")(text) && Number(text),
    true,
  ],
  role: ["", one("", "leader-write", "leader-read", "follower-read"), false],
  axis: ["now", one("now", "then"), false],
  beside: ["", one("", "routes", "cluster"), true],
  /** What is selected: a finding, a cell or a rectangle, as `selection.js` writes it. */
  sel: ["", any, false],
  /** What the window is compared with: the same one a day before, the one before, or a window. */
  versus: ["day", windowName, false],
  refresh: ["live", one("off", "live", "5s", "30s"), true],
  height: ["load", one("load", "equal"), true],
  scale: ["clip", one("clip", "linear", "log", "exponent"), true],
  low: [null, count, false],
  high: [null, count, false],
  brightness: [0, between(-4, 4), true],
  palette: ["ember", one("ember", "sea", "gray"), true],
  zone: ["local", one("local", "utc"), true],
  theme: ["", one("", "dark", "light"), true],
};

const MEMORY = "keyviz.view.2";

function remembered() {
  try {
    return JSON.parse(localStorage.getItem(MEMORY)) ?? {};
  } catch {
    return {};
  }
}

/** The state of a URL. Missing values come from the stored preferences, then from the defaults. */
export function readState(hash) {
  const asked = new URLSearchParams(hash.replace(/^#/, ""));
  const memory = remembered();
  const state = {};
  for (const [name, [fallback, read, remember]] of Object.entries(FIELDS)) {
    const said = asked.has(name) ? read(asked.get(name)) : undefined;
    const known = remember && typeof memory[name] === "string" ? read(memory[name]) : undefined;
    state[name] = said ?? known ?? fallback;
  }
  if (state.from === null || state.to === null || state.from >= state.to) {
    state.from = null;
    state.to = null;
  }
  if (state.low !== null && state.high !== null && state.low >= state.high) state.low = null;
  return state;
}

/** The URL of a state. It has everything but defaults, even what is stored. */
export function writeState(state) {
  const said = new URLSearchParams();
  for (const [name, [fallback, , remember]] of Object.entries(FIELDS)) {
    const value = state[name];
    if (value !== null && (remember || value !== fallback)) said.set(name, String(value));
  }
  return `#${said}`;
}

export function rememberState(state) {
  const memory = {};
  for (const [name, [, , remember]] of Object.entries(FIELDS)) {
    if (remember) memory[name] = String(state[name]);
  }
  try {
    localStorage.setItem(MEMORY, JSON.stringify(memory));
  } catch {
    // Storage may be full or forbidden; then preferences last as long as the page.
  }
}
