// Which node counted how much: of each row for the strips beside the picture, and of pieces of the
// window for the page of nodes.

import { ask, serverNow } from "./api.js";
import { figure } from "./charts.js";
import { element } from "./element.js";
import { percent, rate, span } from "./format.js";
import { layoutOf } from "./layout.js";
import { finish } from "./matrix.js";
import { partsOf, queryOf } from "./query.js";
import { listed } from "./rows.js";
import { scaleOf } from "./scale.js";

const EVERY_MS = 20_000;
/** Of so many pieces of the window it is asked who counted what. */
const PIECES = 12;

/** The parts of every row that each node counted, over one window. */
async function askShares(state, { rows }, { from, to }, signal) {
  const boundaries = rows.map((row) => listed(row.start)).join(",");
  const asked = { ...state, from, to, columns: 1 };
  const answers = await Promise.all(partsOf(state.series).map((each) =>
    ask("matrix", { ...queryOf(asked, each), boundaries, by_node: true }, signal)));
  const sums = new Map();
  for (const json of answers) {
    for (const node of Array.isArray(json.by_node) ? json.by_node : []) {
      const id = String(node.id);
      const known = sums.get(id) ?? new Float64Array(rows.length);
      if (!Array.isArray(node.rows) || node.rows.length !== rows.length) continue;
      node.rows.forEach((count, row) => { known[row] += Number(count) || 0; });
      // What was counted for several rows together lies evenly in them.
      for (const block of Array.isArray(node.blocks) ? node.blocks : []) {
        const first = Number(block.first_row);
        const many = Number(block.row_count);
        for (let row = first; row < Math.min(rows.length, first + many); row += 1)
          known[row] += Number(block.value) / many || 0;
      }
      sums.set(id, known);
    }
  }
  const ids = [...sums.keys()].sort((a, b) => (BigInt(a) < BigInt(b) ? -1 : 1));
  return { nodes: ids, sums: ids.map((id) => sums.get(id)) };
}

export class Shares {
  /** `does`: state(), look(), cluster(), set(shares) for the strips. */
  constructor({ line, charts }, does) {
    this.line = line;
    this.charts = charts;
    this.does = does;
    this.askedMs = -Infinity;
    this.name = "";
    this.controller = null;
    this.pages = null;
  }

  /** The strips beside the picture. */
  async follow(matrix) {
    if (matrix.width === 0 || matrix.height === 0) return;
    const window_ = { from: matrix.columns[0].start, to: matrix.columns.at(-1).end };
    const name = JSON.stringify([matrix.series, matrix.rows.map((row) => row.start)]);
    const now = performance.now();
    if (name === this.name && now - this.askedMs < EVERY_MS) return;
    Object.assign(this, { name, askedMs: now });
    this.controller?.abort();
    this.controller = new AbortController();
    const { signal } = this.controller;
    const told = await askShares(this.does.state(), matrix, window_, signal).catch(() => null);
    if (signal.aborted || name !== this.name) return;
    if (!told || told.nodes.length === 0) return;
    const parts = told.sums.map((rows) => Float64Array.from(rows, (count, row) => {
      const sum = told.sums.reduce((all, each) => all + each[row], 0);
      return sum > 0 ? count / sum : 0;
    }));
    this.does.set({ nodes: told.nodes, parts, height: matrix.height });
  }

  /** The page of nodes: one picture a node, and one a group. */
  async show(matrix) {
    if (matrix.width === 0 || matrix.height === 0) return;
    this.pages?.abort();
    const controller = new AbortController();
    this.pages = controller;
    const [t0, t1] = [matrix.columns[0].start, matrix.columns.at(-1).end];
    // Whole columns: else those at an edge would be in two pieces.
    const step = Math.max(1, matrix.columns[0].end - t0);
    const length = step * Math.max(1, Math.ceil((t1 - t0) / step / PIECES));
    const pieces = Array.from({ length: PIECES }, (_, at) => ({
      from: t0 + at * length,
      to: Math.min(t1, t0 + (at + 1) * length),
    })).filter(({ from, to }) => from < to);
    try {
      const told = [];
      for (let at = 0; at < pieces.length; at += 4) {
        told.push(...await Promise.all(pieces.slice(at, at + 4).map((piece) =>
          askShares(this.does.state(), matrix, piece, controller.signal))));
      }
      if (!controller.signal.aborted) this.draw(matrix, pieces, told);
    } catch (error) {
      if (error.name !== "AbortError") this.line.textContent = `Not known: ${error.message}`;
    }
  }

  draw(matrix, pieces, told) {
    const look = this.does.look();
    const ids = [...new Set(told.flatMap((each) => each.nodes))]
      .sort((a, b) => (BigInt(a) < BigInt(b) ? -1 : 1));
    const columns = pieces.map(({ from, to }) => ({ start: from, end: to, open: false }));
    const seconds = (columns.at(-1).end - columns[0].start) / 1_000;
    const of = (pick) => {
      const values = new Float64Array(matrix.height * columns.length);
      for (let row = 0; row < matrix.height; row += 1)
        for (let x = 0; x < columns.length; x += 1)
          values[row * columns.length + x] = pick(row, x);
      const flags = new Uint8Array(values.length);
      return finish({
        ...matrix, columns, width: columns.length, values, flags, blocks: [], parts: undefined,
        uniform: true,
      });
    };
    const all = Math.max(1e-9, matrix.total);
    const nodes = ids.map((id) => {
      const own = of((row, x) => {
        const at = told[x].nodes.indexOf(id);
        return at < 0 ? 0 : told[x].sums[at][row];
      });
      return [`Node ${id}`, own, this.leads(id)];
    });
    const groups = [...new Set(matrix.rows.map((row) => row.group))].filter((id) => id !== null)
      .sort((a, b) => a - b).slice(0, 24)
      .map((id) => {
        const leader = this.does.cluster()?.groups?.find((each) => each.group_id === id)?.leader;
        const values = new Float64Array(matrix.painted.length);
        matrix.rows.forEach((row, y) => {
          if (row.group !== id) return;
          const [from, to] = [y * matrix.width, (y + 1) * matrix.width];
          values.set(matrix.painted.subarray(from, to), from);
        });
        const flags = new Uint8Array(values.length);
        const own = finish({ ...matrix, values, flags, blocks: [] });
        return [`Group ${id}`, own, leader == null ? "no leader known" : `led by node ${leader}`];
      });
    this.line.textContent = `Who counted what, in ${pieces.length} pieces of ` +
      `${span(columns[0].end - columns[0].start)}; groups by the columns of the heatmap.`;
    const top = Math.max(0, ...nodes.map(([, own]) => own.total));
    const layout = layoutOf(matrix.loads, look.height, 160);
    // Nodes with nodes, and groups with groups: on one scale, that a cold one looks cold.
    const scales = [nodes, groups].map((list) => {
      const free = { ...look, high: null, low: null };
      const each = list.map(([, own]) => scaleOf(own, free, serverNow()).high);
      return { ...free, high: Math.max(0, ...each) };
    });
    this.charts.replaceChildren(...[...nodes, ...groups].map(([title, own, what], at) =>
      figure(title, own, scales[at < nodes.length ? 0 : 1], {
        layout,
        more: `${rate(own.total / seconds, matrix.series)}, ${percent(own.total, all)}, ${what}` +
          (own.total === top && nodes.length > 1 && title.startsWith("Node") ? ", the most" : ""),
      })));
    if (nodes.length + groups.length === 0)
      this.charts.replaceChildren(element("p", {}, "No node told what it counted."));
  }

  leads(id) {
    const groups = this.does.cluster()?.groups ?? [];
    const led = groups.filter((group) => group.group_id !== 0 && String(group.leader) === id);
    return `leads ${led.length} of ${groups.filter((group) => group.group_id !== 0).length} groups`;
  }
}
