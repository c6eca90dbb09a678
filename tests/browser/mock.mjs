// A node's HTTP edge with made-up data: the page's files under the real content security policy, and
// the API with whatever mood a test asks for.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { fileURLToPath } from "node:url";
import path from "node:path";

const WEB = fileURLToPath(new URL("../../web/", import.meta.url));
const POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const TYPES = { html: "text/html; charset=utf-8", js: "text/javascript; charset=utf-8", css: "text/css; charset=utf-8", svg: "image/svg+xml" };
const STEP = 60_000;

/** Keys that try to break out of the page, or to disturb what stands beside them. */
export const HOSTILE = [
  "<img src=x onerror=\"window.broken=1\">",
  "<script>window.broken=2</script>",
  "\u202egnp.exe\u202c right to left",
  "line\nbreak\ttab",
  `stack${"\u0301".repeat(60)}`,
  "javascript:window.broken=3",
  `long/${"k".repeat(4_000)}`,
  "hex:fffe00ff",
];

export const FORECAST = {
  nodes: [{ id: 1, before: 700, after: 380 }, { id: 2, before: 200, after: 520 }, { id: 3, before: 100, after: 100 }],
  groups: [{ id: 1, before: 700, after: 380 }, { id: 2, before: 200, after: 520 }], unplaced: 0,
  hottest_before: 700, hottest_after: 520, imbalance_before: 2.1, imbalance_after: 1.56, routes_saved: 0,
};

/** A finding as the API writes it. */
export const finding = (more = {}) => ({
  id: "06b7fbcc8e169b85", kind: "hot-range", start: "order/000076", end: "order/000081", groups: [1], nodes: [2], share: 0.45, rate: 450,
  since_ms: 1_700_001_200_000, since_earliest_ms: 1_700_001_140_000, since_latest_ms: 1_700_001_260_000, resolved_ms: null, confidence: 0.9,
  summary: "order/000076 to order/000081: 45% of all operations (450/s).", advice: "Split at order/000078 and move keys from there to group 2.",
  facts: [{ name: "share of the operations", value: 0.45, level: 0.08 }], sparkline: [1, 2, 450, 460],
  remedies: [{ act: "split-and-move", words: "Split at order/000078 and move keys from there to group 2", at: "order/000078", start: "order/000078", end: null, group: 2, forecast: FORECAST }],
  ...more,
});

export function makeKeys(count, hostile = false) {
  const plain = Array.from({ length: count - 1 }, (_, at) => {
    const table = ["account", "order", "session", "user"][Math.floor((at * 4) / count)];
    return `${table}/${String(at).padStart(6, "0")}`;
  });
  const all = hostile ? [...plain.slice(HOSTILE.length), ...HOSTILE] : plain;
  const bytes = (key) => (key.startsWith("hex:") ? Buffer.from(key.slice(4), "hex") : Buffer.from(key));
  return ["", ...all.sort((a, b) => Buffer.compare(bytes(a), bytes(b)))];
}

async function bodyOf(request) {
  let body = "";
  try {
    for await (const chunk of request) body += chunk;
  } catch {
    // The page does not wait for the answer.
  }
  return body;
}

/** The operations of a cell: cold, but for one hot range that wanders off half way. */
function load(route, routes, column, series) {
  const hot = Math.floor(routes * (column % 60 < 40 ? 0.3 : 0.7));
  const ops = Math.abs(route - hot) < routes * 0.02 ? 5_000 + 40 * (column % 17) : (route * 7 + column * 3) % 11;
  return { "writes": ops, "reads": ops * 3, "write-bytes": ops * 128, "read-bytes": ops * 300 }[series];
}

export class Mock {
  constructor() {
    this.mood = { keys: makeKeys(256), mode: "ok", missing: false, split: null, token: "", skew: 0, unattributed: 0, apportioned: false, conflict: false, readOnly: "", leaving: false, moves: [0, 0], removed: "", prefix: "", largeIds: false, fewRoutes: false, gain: 1, plansAlways: false, findings: [], pilot: null, journal: [], refuseAct: "", oldest: null, noLeader: false };
    this.asked = [];
    this.changed = [];
    this.server = createServer((request, response) => this.answer(request, response));
  }

  async listen(port = 0) {
    await new Promise((done) => this.server.listen(port, "127.0.0.1", done));
    this.url = `http://127.0.0.1:${this.server.address().port}/`;
    return this.url;
  }

  close() {
    this.server.closeAllConnections();
    return new Promise((done) => this.server.close(done));
  }

  async answer(request, response) {
    const url = new URL(request.url, "http://mock");
    if (!url.pathname.startsWith(`${this.mood.prefix}/`)) {
      response.writeHead(404);
      response.end();
      return;
    }
    url.pathname = url.pathname.slice(this.mood.prefix.length);
    if (url.pathname.startsWith("/api/v1/")) {
      const form = request.headers["content-type"] === "application/x-www-form-urlencoded";
      const text = form ? await bodyOf(request) : "";
      const all = [...url.searchParams, ...new URLSearchParams(text)];
      // The page asks for something else by now.
      if (request.socket.destroyed) return;
      this.call(url, Object.fromEntries(all), request, response);
      return;
    }
    const file = url.pathname === "/" ? "index.html" : url.pathname.slice(1);
    const full = path.join(WEB, file);
    const headers = { "content-security-policy": POLICY, "x-content-type-options": "nosniff", "cache-control": "no-cache" };
    try {
      if (!full.startsWith(WEB)) throw new Error("outside");
      const body = gzipSync(await readFile(full));
      response.writeHead(200, { ...headers, "content-type": TYPES[file.split(".").pop()] ?? "application/octet-stream", "content-encoding": "gzip" });
      response.end(body);
    } catch {
      response.writeHead(404, headers);
      response.end();
    }
  }

  call(url, parameters, request, response) {
    const name = url.pathname.slice("/api/v1/".length);
    this.asked.push({ name, parameters });
    const send = (status, body) => {
      const text = typeof body === "string" ? body : JSON.stringify(body);
      response.writeHead(status, { "content-type": "application/json", "content-encoding": "gzip", "cache-control": "no-store" });
      response.end(gzipSync(text, { level: 1 }));
    };
    const { mood } = this;
    if (mood.mode === "cut") return request.socket.destroy();
    if (mood.mode === "garbage") return send(200, "<h1>Bad gateway & friends</h1>");
    if (mood.mode === "error") return send(500, { code: "INTERNAL", message: "the <b>disk</b> is full" });
    if (mood.mode === "off" && name === "matrix") return send(503, { code: "UNAVAILABLE", message: "keyviz is disabled on this node" });
    if (mood.token && request.headers.authorization !== `Bearer ${mood.token}`) {
      return send(401, { code: "UNAUTHENTICATED", message: "a token is needed" });
    }
    if (name === "stream") return this.stream(parameters, response);
    if (name.startsWith("routes/") && request.method === "POST") return this.change(name, request, send);
    if (name === "matrix" && mood.slow && parameters.max_columns === "1" && parameters.by_node === undefined && parameters.max_rows !== "1") {
      mood.slow.push(() => send(200, this.matrix(parameters)));
      return undefined;
    }
    if (name === "matrix") return send(200, this.matrix(parameters));
    if (name === "findings") return mood.findings === null ? send(404, { code: "NOT_FOUND", message: "there is no API call findings" }) : send(200, this.findings(parameters));
    if (name === "autopilot" && request.method === "POST") return this.setPilot(request, send);
    if (name === "autopilot") return mood.pilot ? send(200, mood.pilot) : send(404, { code: "NOT_FOUND", message: "there is no API call autopilot" });
    if (name === "autopilot/log") return send(200, { entries: mood.journal, more: false, revision: 1 });
    if (name.startsWith("acts")) return this.act(name, request, send);
    if (name === "hotkeys") return send(200, this.hotKeys(parameters));
    if (name === "routes") return send(200, { catalog_version: this.version(), routes: this.routes() });
    if (name === "cluster") return send(200, this.cluster());
    return send(404, { code: "NOT_FOUND", message: `there is no API call ${name}` });
  }

  /** The last closed column and the open one, every quarter of a second, while all is well. */
  stream(parameters, response) {
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    const tell = () => {
      if (this.mood.mode !== "ok") {
        clearInterval(timer);
        response.destroy();
        return;
      }
      const now = Date.now();
      const { after_ms: _, ...question } = parameters;
      const update = this.matrix({ ...question, from_ms: now - (now % STEP) - STEP, max_columns: 2_048 });
      response.write(`event: columns\nid: ${now - (now % STEP)}\ndata: ${JSON.stringify(update)}\n\n`);
    };
    const timer = setInterval(tell, 250);
    response.on("close", () => clearInterval(timer));
    tell();
  }

  async change(name, request, send) {
    this.changed.push([name, JSON.parse(await bodyOf(request))]);
    if (this.mood.refuse) send(409, { code: "ABORTED", message: this.mood.refuse });
    else send(200, { catalog_version: 2, created: [], retired: [] });
  }

  /** Two keys of the range: one that is exact, and one that is hostile and has bounds. */
  hotKeys(parameters) {
    const [from, to] = [Number(parameters.from_ms), Number(parameters.to_ms)];
    const points = Array.from({ length: Number(parameters.points ?? 0) }, (_, at) => at);
    const key = (name, lower, upper) => ({
      key: name, lower, upper, share: lower / 1_000, bytes: 64 * lower, first_ms: from, last_ms: to, points,
    });
    return {
      series: parameters.series, from_ms: from, to_ms: to, threshold: 7, max_error: 3, operations: 1_000,
      keys: [key(`${parameters.start ?? ""}hot`, 310, 310), key("<img src=x onerror=alert(1)>", 40, 43)],
      partial: Boolean(this.mood.missing), hashed: false, nodes: [], responded: 3, expected: 3,
    };
  }

  findings({ from_ms, to_ms }) {
    return {
      findings: this.mood.findings.slice(0, 32), resolved: this.mood.resolved ?? [], omitted: Math.max(0, this.mood.findings.length - 32),
      from_ms: Number(from_ms ?? 0), to_ms: Number(to_ms ?? Date.now()), columns: 60, partial_columns: 0, rate: 1_000, catalog_version: this.version(),
      responded: 3, expected: 3, silent: [], acts: ["split", "merge", "transfer-leader", "move"],
    };
  }

  async setPilot(request, send) {
    const asked = JSON.parse(await bodyOf(request));
    this.mood.pilot = { ...this.mood.pilot, mode: asked.mode, revision: this.mood.pilot.revision + 1 };
    send(200, this.mood.pilot);
  }

  async act(name, request, send) {
    const act = JSON.parse(await bodyOf(request));
    this.changed.push([name, act]);
    const { refuseAct } = this.mood;
    if (name === "acts/preview")
      return send(200, { act, words: "Split and move", why: "as the last columns say", forecast: FORECAST, refused: refuseAct, catalog_version: 1 });
    const entry = { id: 7, by: "operator", act, words: "Split and move", why: "", finding: act.finding, state: "under-way", failure: "", started_ms: Date.now(), ended_ms: 0, forecast: FORECAST, outcome: null, undoes: 0, undone_by: 0, catalog_version: 1 };
    this.mood.journal.unshift(entry);
    setTimeout(() => Object.assign(entry, { state: "done", outcome: { ...FORECAST, worse: false, missing: false } }), 300);
    return send(200, entry);
  }

  version() {
    return this.mood.split ? 2 : 1;
  }

  routes() {
    const { keys, split, fewRoutes } = this.mood;
    if (fewRoutes) {
      const few = keys.filter((_, at) => at % 64 === 0);
      return few.map((start, at) => ({ route_id: at + 1, start, end: few[at + 1] ?? null, group_id: 1, leader: 1, parents: [], created_version: 1, created_ms: 1_700_000_000_000 }));
    }
    return keys.map((start, at) => {
      const child = split && (at === split.at || at === split.at + 1);
      return {
        route_id: child ? keys.length + 1 + at - split.at : at + 1, start, end: keys[at + 1] ?? null,
        group_id: 1 + (at % 3), leader: 1 + (at % 3), parents: child ? [split.at + 1] : [],
        created_version: child ? 2 : 1, created_ms: child ? split.ms : 1_700_000_000_000,
      };
    });
  }

  /** A node's id as the API writes it: as text where a number would lose digits. */
  nodeId(id) {
    return this.mood.largeIds ? `900719925474099${id}` : id;
  }

  cluster() {
    const member = (id) => ({
      id: this.nodeId(id), address: `127.0.0.1:740${id}`, http: `127.0.0.1:750${id}`, ok: !(this.mood.missing && id === 3),
      error: this.mood.missing && id === 3 ? "connection refused" : "", catalog_version: this.version(), version: "0.1.0",
      voter: true, uptime_ms: 3_600_000, latency_ms: 2, leaving: this.mood.leaving && id === 3, read_only: id === 2 ? this.mood.readOnly : "",
    });
    const replica = (id, leader) => ({ node_id: this.nodeId(id), voter: true, role: id === leader ? "leader" : "follower", last_log_index: 90, applied_index: 90, lag: 0 });
    const group = (group_id) => ({ group_id, leader: this.mood.noLeader && group_id === 2 ? null : this.nodeId(group_id === 0 ? 1 : group_id), term: 2, routes: 85, replicas: [1, 2, 3].map((id) => replica(id, group_id || 1)) });
    return { cluster_id: "ab".repeat(16), catalog_version: this.version(), members: [1, 2, 3].map(member), groups: [0, 1, 2, 3].map(group),
      moves: [], moves_left: this.mood.moves[0], moves_waiting: this.mood.moves[1], removed: this.mood.removed };
  }

  events(from, to) {
    const { keys, split } = this.mood;
    if (!split || split.ms < from || split.ms >= to) return [];
    const created = [keys.length + 1, keys.length + 2];
    return [{ time_ms: split.ms, kind: "split", catalog_version: 2, retired: [split.at + 1], created, key: keys[split.at + 1] }];
  }

  matrix(parameters) {
    const { mood } = this;
    const now = Date.now();
    const to = Number(parameters.to_ms ?? now);
    const from = Number(parameters.from_ms ?? to - 3_600_000);
    const series = parameters.series ?? "writes";
    const width = Math.min(Number(parameters.max_columns ?? 480), Math.max(1, Math.ceil(to / STEP) - Math.floor(from / STEP)));
    const wide = Math.ceil((Math.ceil(to / STEP) - Math.floor(from / STEP)) / width) * STEP;
    const first = Math.floor(from / wide) * wide;
    const columns = [];
    for (let start = first; start < to; start += wide) columns.push({ start_ms: start, end_ms: start + wide, open: start + wide > now });
    const bytes = (key) => (key.startsWith("hex:") ? Buffer.from(key.slice(4), "hex") : Buffer.from(key));
    const low = bytes(parameters.start ?? "");
    const high = parameters.end === undefined ? null : bytes(parameters.end);
    const ends = mood.keys.map((_, at) => mood.keys[at + 1] ?? null);
    const inside = mood.keys.map((_, at) => at).filter((at) =>
      (high === null || Buffer.compare(bytes(mood.keys[at]), high) < 0) && (ends[at] === null || Buffer.compare(bytes(ends[at]), low) > 0));
    const most = Number(parameters.max_rows ?? 256);
    const each = Math.ceil(inside.length / most);
    const rows = [];
    if (parameters.boundaries !== undefined && !mood.plansAlways) {
      const starts = parameters.boundaries.split(",");
      const lows = starts.map(bytes);
      const begins = inside.map((key) => bytes(mood.keys[key]));
      let next = 0;
      starts.forEach((start, at) => {
        // A route counts where it begins; the first row also has the one that reaches into it.
        const members = [];
        while (next < inside.length && (at + 1 === starts.length || Buffer.compare(begins[next], lows[at + 1]) < 0)) {
          members.push(inside[next]);
          next += 1;
        }
        const around = inside[Math.max(0, next - 1)];
        rows.push({ ...this.row(members, columns, series, ends, around), start, end: starts[at + 1] ?? parameters.end ?? null });
      });
    } else {
      for (let at = 0; at < inside.length; at += each) {
        const members = inside.slice(at, at + each);
        rows.push(this.row(members, columns, series, ends));
      }
    }
    if (mood.mode === "empty") rows.forEach((row) => row.values.fill(0));
    const total = rows.reduce((sum, row) => sum + row.values.reduce((a, b) => a + b, 0), 0);
    const nodes = [1, 2, 3].map((id) => {
      const ok = !(mood.missing && id === 3);
      return { id, address: `127.0.0.1:740${id}`, ok, error: ok ? "" : "connection refused <b>", clock_skew_ms: id === 2 ? mood.skew : 0, columns: columns.length, incarnation: 1, oldest_ms: mood.oldest ?? first, latency_ms: 3 };
    });
    return {
      series, catalog_version: this.version(), columns, rows, total, unattributed: mood.unattributed, nodes,
      responded: nodes.filter((node) => node.ok).length, expected: 3, saturated: false,
      conflicts: mood.conflict ? [{ group_id: 1, term: 2, nodes: [1, 3] }] : [],
      ...(parameters.by_node === "true" ? { by_node: this.shares(rows) } : {}),
      events: this.events(from, to), events_truncated: false, axis: "now",
      ...(parameters.boundaries === undefined ? {} : { axis_gain: mood.gain }),
    };
  }

  /** Node 2 counted a quarter of each row, node 1 the rest, node 3 nothing. */
  shares(rows) {
    const sums = rows.map((row) => row.values.reduce((a, b) => a + b, 0));
    const part = (id, sum) => [sum - Math.floor(sum / 4), Math.floor(sum / 4), 0][id - 1];
    return [1, 2, 3].map((id) => {
      const of = sums.map((sum) => part(id, sum));
      return { id: this.nodeId(id), total: of.reduce((a, b) => a + b, 0), roles: {}, rows: of, unattributed: 0 };
    });
  }

  /** The row of these routes; where none begins in it, it lies in the one `around`. */
  row(members, columns, series, ends, around) {
    const { keys, missing, apportioned, conflict } = this.mood;
    const values = columns.map((column) =>
      members.reduce((sum, at) => sum + load(at, keys.length, Math.floor(column.start_ms / STEP), series), 0) * (this.mood.factor ?? 1));
    const all = columns.map((_, at) => at);
    const of = members.length > 0 ? members : [around];
    const first = of[0];
    return {
      bucket_id: of.length === 1 ? `route:${first + 1}` : `virtual:${first + 1}-abc`, start: keys[first], end: ends[of.at(-1)],
      label: "", aggregate: of.length > 1, route_ids: of.map((at) => at + 1), route_count: of.length, route_ids_truncated: false,
      roles: { leader_write: values.reduce((a, b) => a + b, 0), leader_read: 0, follower_read: 0 },
      group_id: of.length === 1 ? 1 + (first % 3) : null, values,
      apportioned: apportioned && first < keys.length / 4 ? all.slice(0, 5) : [],
      partial: missing && first % 3 === 2 ? all : [],
      conflict: conflict && first === 0 ? [1] : [],
    };
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const mock = new Mock();
  process.stdout.write(`${await mock.listen(Number(process.argv[2] ?? 7599))}\n`);
}
