// Draws the heatmap on two canvases: one for the cells, which change with data and view, and one
// above for the pointer. Keys are only ever drawn as text.

import { Cells } from "./cells.js";
import { drawEventLine, drawEvents } from "./events.js";
import { serverNow } from "./api.js";
import { drawRanks } from "./labels.js";
import { layoutOf, movedFar, rowOfUnit, unitOf } from "./layout.js";
import { cellHolding, columnAt } from "./matrix.js";
import { scaleOf } from "./scale.js";
import { Raster } from "./raster.js";
import { Sides } from "./sides.js";

/** The width of the strip of a node. */
const STRIP = 15;
const FONT = 'ui-monospace, "DejaVu Sans Mono", monospace';

export class Plot {
  constructor(base, overlay) {
    this.base = base;
    this.overlay = overlay;
    this.matrix = null;
    this.events = [];
    this.cursor = null;
    this.pinned = null;
    /** The rows that a table highlights, as a function of a row. */
    this.lit = null;
    /** The rows of what is selected, as the same. */
    this.marked = null;
    this.box = null;
    this.style = { palette: "ember", theme: "dark", scale: "clip", height: "load", zone: "utc" };
    /** Where rows begin, and which are folded. */
    this.edges = new Float64Array(1);
    this.folds = [];
    /** What the layout was made of; it stays while rows and their loads are about the same. */
    this.laid = null;
    this.members = 0;
    /** Of the nodes, which counted how much of each row; `null`: not known. */
    this.shares = null;
    /** The findings that the picture has: `{rank, has(row)}`. */
    this.ranks = [];
    /** Columns from this time on are not shown yet: a replay is under way. */
    this.until = null;
    this.cells = new Cells();
    this.sides = new Sides();
    /** A gesture is under way: the matrix is drawn many times. */
    this.moving = false;
    this.asked = { base: false, overlay: false };
    new ResizeObserver(() => this.resize()).observe(base);
    this.resize();
  }

  resize() {
    this.measure();
    this.laid = null;
    this.paint();
    this.forget();
    this.draw();
  }

  measure() {
    const { clientWidth, clientHeight } = this.base;
    this.ratio = Math.min(3, window.devicePixelRatio || 1);
    this.width = clientWidth;
    this.height = clientHeight;
    for (const canvas of [this.base, this.overlay]) {
      canvas.width = Math.max(1, Math.round(clientWidth * this.ratio));
      canvas.height = Math.max(1, Math.round(clientHeight * this.ratio));
    }
    /** The font size in CSS pixels; larger on a screen that is viewed from further away. */
    this.letters = clientWidth > 2_600 ? 20 : clientWidth > 1_900 ? 13 : 11;
    const narrow = clientWidth < 560;
    const most = clientWidth > 2_000 ? 400 : 230;
    const left = narrow ? 96 : Math.round(Math.min(most, Math.max(150, clientWidth * 0.15)));
    const big = this.letters / 11;
    // Room for a strip a node from the first answer on, so that nothing moves when they are known.
    const strips = narrow ? 0 : Math.min(12, this.members) * STRIP * big;
    const right = narrow ? 6 : 56 * big + (strips > 0 ? strips + 6 : 0);
    const top = Math.round(58 * big);
    const bottom = Math.round(24 * big);
    this.area = {
      left, top,
      width: Math.max(10, clientWidth - left - right),
      height: Math.max(10, clientHeight - top - bottom),
      sums: narrow ? 0 : 48 * big,
      strips,
      /** Events are marked in a line above the sums. */
      events: Math.round(16 * big),
    };
    // For tests, which look where a person would.
    this.base.dataset.area = JSON.stringify(this.area);
  }

  /** The matrix, the size or the style has changed: discards the cached images. */
  forget() {
    this.cells.forget();
    this.sides.forget();
  }

  setStyle(style) {
    const before = this.style;
    this.style = { ...before, ...style };
    if (before.height !== this.style.height) this.laid = null;
    const looks = ["palette", "theme", "scale", "brightness", "low", "high", "height"];
    if (looks.some((name) => before[name] !== this.style[name])) this.paint();
    this.forget();
    this.readColours();
    this.draw();
  }

  /** Makes the layout, the scale and the image of the matrix. */
  paint() {
    const { matrix, style } = this;
    if (!matrix) {
      this.raster = null;
      return;
    }
    const name = matrix.rows.map((row) => row.start).join("\0");
    if (this.laid?.name !== name || movedFar(this.laid.sums, matrix.loads)) {
      this.laid = { name, sums: matrix.loads };
      Object.assign(this, layoutOf(matrix.loads, style.height, this.area.height));
    }
    const known = matrix.nodes.map((node) => Number(node.ok ? node.oldest_ms ?? 0 : 0));
    matrix.oldestMs = known.length > 0 ? Math.min(...known) : 0;
    this.scale = scaleOf(matrix, style, serverNow());
    const uneven = style.height === "load" ? this.edges : null;
    const pixels = Math.round(this.area.height * this.ratio);
    this.raster = new Raster(matrix, style, this.scale, uneven, pixels);
  }

  /** Who counted the rows: ids of nodes, and of each its part of every row. */
  setShares(shares) {
    this.shares = shares;
    this.draw();
  }

  lookColours() {
    if (!this.colours) this.readColours();
    return this.colours;
  }

  readColours() {
    const look = getComputedStyle(document.documentElement);
    const colour = (name) => look.getPropertyValue(`--${name}`).trim();
    this.colours = Object.fromEntries(
      ["plot", "text", "dim", "line", "grid", "cursor", "accent", "panel"].map((name) => [
        name,
        colour(name),
      ]),
    );
  }

  /** Shows a matrix, all of it unless a view is given. */
  setMatrix(matrix, view) {
    this.matrix = matrix;
    const members = Math.max(this.members, matrix?.nodes.length ?? 0);
    if (members !== this.members) {
      this.members = members;
      this.measure();
    }
    this.paint();
    this.view = view ?? this.whole();
    this.forget();
    if (this.cursor && matrix) {
      this.cursor.row = Math.min(this.cursor.row, matrix.height - 1);
      this.cursor.column = Math.min(this.cursor.column, matrix.width - 1);
    }
    if (!matrix || matrix.height === 0 || matrix.width === 0) this.cursor = null;
    this.draw();
  }

  whole() {
    if (!this.matrix || this.matrix.width === 0) return null;
    const { columns, height } = this.matrix;
    return { t0: columns[0].start, t1: columns.at(-1).end, r0: 0, r1: height };
  }

  setView(view) {
    this.view = view;
    this.draw();
  }

  xOf(ms) {
    const { t0, t1 } = this.view;
    return this.area.left + ((ms - t0) / (t1 - t0)) * this.area.width;
  }

  yOf(row) {
    const { r0, r1 } = this.view;
    return this.area.top + ((unitOf(this.edges, row) - r0) / (r1 - r0)) * this.area.height;
  }

  /** The view in rows: where some are higher than others, it is kept in places of the layout. */
  rowsOf({ r0, r1, ...times }) {
    return { ...times, r0: rowOfUnit(this.edges, r0), r1: rowOfUnit(this.edges, r1) };
  }

  timeAt(x) {
    const { t0, t1 } = this.view;
    return t0 + ((x - this.area.left) / this.area.width) * (t1 - t0);
  }

  rowAt(y) {
    return rowOfUnit(this.edges, this.unitAt(y));
  }

  unitAt(y) {
    const { r0, r1 } = this.view;
    return r0 + ((y - this.area.top) / this.area.height) * (r1 - r0);
  }

  inside(x, y) {
    const { left, top, width, height } = this.area;
    return x >= left && x < left + width && y >= top && y < top + height;
  }

  /** The cell under a point of the canvas, or `null`. */
  cellAt(x, y) {
    if (!this.view || !this.inside(x, y)) return null;
    const row = Math.floor(this.rowAt(y));
    const column = columnAt(this.matrix, this.timeAt(x));
    return row >= 0 && row < this.matrix.height && column >= 0 ? { row, column } : null;
  }

  draw() {
    this.ask("base", () => this.drawBase());
    this.drawPointer();
  }

  drawPointer() {
    this.ask("overlay", () => this.drawOverlay());
  }

  ask(what, run) {
    if (this.asked[what]) return;
    this.asked[what] = true;
    requestAnimationFrame(() => {
      this.asked[what] = false;
      run();
    });
  }

  fontOf(bold) {
    return `${bold ? "bold " : ""}${this.letters}px ${FONT}`;
  }

  begin(canvas) {
    const context = canvas.getContext("2d", { alpha: canvas === this.overlay });
    context.setTransform(1, 0, 0, 1, 0, 0);
    if (canvas === this.overlay) context.clearRect(0, 0, canvas.width, canvas.height);
    context.scale(this.ratio, this.ratio);
    context.font = this.fontOf(false);
    context.direction = "ltr";
    return context;
  }

  drawBase() {
    const context = this.begin(this.base);
    this.drawnMs = serverNow();
    if (!this.colours) this.readColours();
    context.fillStyle = this.colours.plot;
    context.fillRect(0, 0, this.width, this.height);
    if (!this.view) return;
    const { left, top, width, height } = this.area;
    context.save();
    context.beginPath();
    context.rect(left, top, width, height);
    context.clip();
    this.cells.draw(context, this);
    drawEvents(context, this);
    drawRanks(context, this);
    context.restore();
    this.sides.draw(context, this);
    drawEventLine(context, this);
    context.strokeStyle = this.colours.line;
    context.lineWidth = 1;
    context.strokeRect(left - 0.5, top - 0.5, width + 1, height + 1);
  }

  /** The rows and columns that are visible in the view, in whole or in part. */
  visible() {
    const { columns, height } = this.matrix;
    const { t0, t1, r0, r1 } = this.view;
    const first = columns.findIndex((column) => column.end > t0);
    let last = columns.length;
    while (last > 0 && columns[last - 1].start >= t1) last -= 1;
    return {
      firstRow: Math.max(0, Math.floor(rowOfUnit(this.edges, r0))),
      lastRow: Math.min(height, Math.ceil(rowOfUnit(this.edges, r1))),
      firstColumn: first < 0 ? columns.length : first,
      lastColumn: last,
    };
  }

  /**
   * The events in the view with their positions; at most 500, so that many splits can still be
   * drawn.
   */
  shownEvents() {
    if (!this.view) return [];
    const { t0, t1 } = this.view;
    const { top, height } = this.area;
    return this.events
      .filter((event) => event.ms >= t0 && event.ms < t1)
      .slice(-500)
      .map((event) => {
        const y = this.yOf(event.row(this.matrix));
        return { ...event, x: this.xOf(event.ms), y: y >= top && y <= top + height ? y : null };
      });
  }

  /** The event whose mark is under a point: at its key, or in the line above. */
  eventAt(x, y) {
    const lane = this.area.events / 2;
    const off = (event) =>
      Math.min(
        event.y === null ? Infinity : Math.hypot(event.x - x, event.y - y),
        Math.hypot(event.x - x, lane - y),
      );
    return this.shownEvents().map((event) => [off(event), event]).filter(([away]) => away < 9)
      .sort(([a], [b]) => a - b)[0]?.[1] ?? null;
  }

  drawOverlay() {
    const context = this.begin(this.overlay);
    if (!this.view) return;
    const { left, top, width, height } = this.area;
    if (!this.colours) this.readColours();
    if (this.until !== null) this.drawReplay(context);
    if (this.cursor) {
      const cell = this.cellBox(this.cursor);
      context.fillStyle = this.colours.cursor;
      context.globalAlpha = 0.12;
      context.fillRect(left, cell.y, width, cell.height);
      context.fillRect(cell.x, top, cell.width, height);
      context.globalAlpha = 1;
      context.fillRect(left - 4, cell.y, 4, cell.height);
      context.fillRect(cell.x, top + height, cell.width, 4);
    }
    if (this.marked) this.drawLit(context, this.marked, false);
    if (this.lit) this.drawLit(context, this.lit, true);
    if (this.pinned) this.outline(context, this.pinned);
    if (this.box) {
      const { x0, y0, x1, y1 } = this.box;
      context.fillStyle = this.colours.accent;
      context.strokeStyle = this.colours.accent;
      context.globalAlpha = 0.18;
      context.fillRect(x0, y0, x1 - x0, y1 - y0);
      context.globalAlpha = 1;
      context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
  }

  /** Hides what a replay has not come to yet. */
  drawReplay(context) {
    const { left, top, width, height } = this.area;
    const x = Math.max(left, Math.min(left + width, this.xOf(this.until)));
    context.fillStyle = this.colours.plot;
    context.globalAlpha = 0.88;
    context.fillRect(x, top, left + width - x, height);
    context.globalAlpha = 1;
    context.fillStyle = this.colours.accent;
    context.fillRect(x - 1, top, 2, height);
  }

  /** Bands over the highlighted rows, or lines around them. */
  drawLit(context, lit, filled) {
    const { left, top, width, height } = this.area;
    const { rows } = this.matrix;
    context.fillStyle = this.colours.accent;
    for (let row = 0; row < rows.length; row += 1) {
      if (!lit(rows[row])) continue;
      const from = row;
      while (row + 1 < rows.length && lit(rows[row + 1])) row += 1;
      const [y0, y1] = [Math.max(top, this.yOf(from)), Math.min(top + height, this.yOf(row + 1))];
      if (y1 <= y0) continue;
      if (filled) {
        context.globalAlpha = 0.18;
        context.fillRect(left, y0, width, Math.max(1, y1 - y0));
        context.globalAlpha = 1;
      } else {
        // What is selected keeps its colours, between two lines.
        context.fillRect(left, y0 - 1, width, 2);
        context.fillRect(left, y1 - 1, width, 2);
      }
      context.fillRect(left - 6, y0, 6, Math.max(2, y1 - y0));
    }
  }

  /**
   * The position of the pinned cell's beginning in the current matrix; `null` if it is not there.
   */
  pinnedCell() {
    if (!this.pinned || !this.matrix) return null;
    return cellHolding(this.matrix, this.pinned.start, this.pinned.t0);
  }

  outline(context, { t0, t1 }) {
    const row = this.pinnedCell()?.row;
    if (row === undefined || t1 <= this.view.t0 || t0 >= this.view.t1) return;
    const [x, y] = [this.xOf(t0), this.yOf(row)];
    context.save();
    context.beginPath();
    context.rect(this.area.left - 2, this.area.top - 2, this.area.width + 4, this.area.height + 4);
    context.clip();
    context.strokeStyle = this.colours.accent;
    context.lineWidth = 2;
    context.strokeRect(
      x - 1,
      y - 1,
      Math.max(4, this.xOf(t1) - x) + 2,
      Math.max(4, this.yOf(row + 1) - y) + 2,
    );
    context.restore();
  }

  /** The rectangle of a cell, clipped to the plot, at least one pixel large. */
  cellBox({ row, column }) {
    const { left, top, width, height } = this.area;
    const clip = (value, low, high) => Math.min(high, Math.max(low, value));
    const { start, end } = this.matrix.columns[column];
    const x = clip(this.xOf(start), left, left + width);
    const y = clip(this.yOf(row), top, top + height);
    return {
      x, y,
      width: Math.max(1, clip(this.xOf(end), left, left + width) - x),
      height: Math.max(1, clip(this.yOf(row + 1), top, top + height) - y),
    };
  }
}
