// Draws the heatmap on two canvases: what changes with data and view below, what follows the pointer
// above. Keys are only ever drawn as text.

import { folderBands, keyMarks, timeMarks } from "./axes.js";
import { columnAt } from "./matrix.js";
import { HATCHES, Raster, hatchTile, poolFactor } from "./raster.js";

const FONT = '11px ui-monospace, "DejaVu Sans Mono", monospace';

export class Plot {
  constructor(base, overlay) {
    this.base = base;
    this.overlay = overlay;
    this.matrix = null;
    this.events = [];
    this.cursor = null;
    this.pinned = null;
    this.box = null;
    this.style = { palette: "ember", theme: "dark", scale: "log", brightness: 0, zone: "local" };
    this.layer = document.createElement("canvas");
    this.asked = { base: false, overlay: false };
    new ResizeObserver(() => this.resize()).observe(base);
    this.resize();
  }

  resize() {
    const { clientWidth, clientHeight } = this.base;
    this.ratio = Math.min(3, window.devicePixelRatio || 1);
    this.width = clientWidth;
    this.height = clientHeight;
    for (const canvas of [this.base, this.overlay]) {
      canvas.width = Math.max(1, Math.round(clientWidth * this.ratio));
      canvas.height = Math.max(1, Math.round(clientHeight * this.ratio));
    }
    const narrow = clientWidth < 560;
    const left = narrow ? 84 : Math.min(210, Math.max(130, clientWidth * 0.14));
    const right = narrow ? 6 : 56;
    const top = 40;
    const bottom = 24;
    this.area = {
      left, top,
      width: Math.max(10, clientWidth - left - right),
      height: Math.max(10, clientHeight - top - bottom),
      sums: right - 8,
    };
    this.tiles = null;
    this.draw();
  }

  setStyle(style) {
    const before = this.style;
    this.style = { ...before, ...style };
    const recolour = ["palette", "theme", "scale", "brightness"].some((name) => before[name] !== this.style[name]);
    if (recolour && this.matrix) this.raster = new Raster(this.matrix, this.style);
    this.tiles = null;
    this.readColours();
    this.draw();
  }

  readColours() {
    const look = getComputedStyle(document.documentElement);
    const colour = (name) => look.getPropertyValue(`--${name}`).trim();
    this.colours = Object.fromEntries(
      ["plot", "text", "dim", "line", "grid", "cursor", "accent", "panel"].map((name) => [name, colour(name)]));
  }

  /** Shows a matrix; the view is all of it unless one is given. */
  setMatrix(matrix, view) {
    this.matrix = matrix;
    this.raster = matrix ? new Raster(matrix, this.style) : null;
    this.view = view ?? this.whole();
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
    return this.area.top + ((row - r0) / (r1 - r0)) * this.area.height;
  }

  timeAt(x) {
    const { t0, t1 } = this.view;
    return t0 + ((x - this.area.left) / this.area.width) * (t1 - t0);
  }

  rowAt(y) {
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

  begin(canvas) {
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.scale(this.ratio, this.ratio);
    context.font = FONT;
    context.direction = "ltr";
    return context;
  }

  drawBase() {
    const context = this.begin(this.base);
    if (!this.colours) this.readColours();
    context.fillStyle = this.colours.plot;
    context.fillRect(0, 0, this.width, this.height);
    if (!this.view) return;
    const { left, top, width, height } = this.area;
    context.save();
    context.beginPath();
    context.rect(left, top, width, height);
    context.clip();
    this.drawCells(context);
    this.drawEvents(context);
    context.restore();
    this.drawTimeAxis(context);
    this.drawKeyAxis(context);
    this.drawSums(context);
    context.strokeStyle = this.colours.line;
    context.lineWidth = 1;
    context.strokeRect(left - 0.5, top - 0.5, width + 1, height + 1);
  }

  /** The rows and columns that the view shows some of. */
  visible() {
    const { columns, height } = this.matrix;
    const { t0, t1, r0, r1 } = this.view;
    const first = columns.findIndex((column) => column.end > t0);
    let last = columns.length;
    while (last > 0 && columns[last - 1].start >= t1) last -= 1;
    return {
      firstRow: Math.max(0, Math.floor(r0)),
      lastRow: Math.min(height, Math.ceil(r1)),
      firstColumn: first < 0 ? columns.length : first,
      lastColumn: last,
    };
  }

  drawCells(context) {
    const { matrix, area, view } = this;
    const shown = this.visible();
    if (shown.firstColumn >= shown.lastColumn || shown.firstRow >= shown.lastRow) return;
    const cellHeight = area.height / (view.r1 - view.r0);
    const widest = matrix.columns.slice(shown.firstColumn, shown.lastColumn)
      .reduce((most, column) => Math.max(most, column.end - column.start), 1);
    const cellWidth = (widest / (view.t1 - view.t0)) * area.width;
    const fx = matrix.uniform ? poolFactor(cellWidth * this.ratio) : 1;
    const fy = poolFactor(cellHeight * this.ratio);
    context.imageSmoothingEnabled = false;
    this.drawImage(context, this.raster.image(fx, fy), fx, fy);
    this.tiles ??= new Map(Object.values(HATCHES).map((mark) =>
      [mark, hatchTile(mark, this.ratio, this.style.theme !== "light")]));
    for (const mark of Object.values(HATCHES)) {
      const mask = this.raster.mask(mark, fx, fy);
      if (mask) this.drawHatch(context, mask, fx, fy, this.tiles.get(mark));
    }
    this.drawGrid(context, shown, cellHeight);
    this.drawOpen(context);
  }

  /** One image where columns are even, else one strip a column. */
  drawImage(context, image, fx, fy) {
    const { matrix, view, area } = this;
    const { r0, r1, t0, t1 } = view;
    if (matrix.uniform) {
      const step = (matrix.columns[0].end - matrix.columns[0].start) || 1;
      const from = (t0 - matrix.columns[0].start) / step / fx;
      const wide = (t1 - t0) / step / fx;
      context.drawImage(image, from, r0 / fy, wide, (r1 - r0) / fy, area.left, area.top, area.width, area.height);
      return;
    }
    for (let x = 0; x < matrix.width; x += 1) {
      const column = matrix.columns[x];
      if (column.end <= t0 || column.start >= t1) continue;
      const start = this.xOf(column.start);
      context.drawImage(image, x, r0 / fy, 1, (r1 - r0) / fy, start, area.top, this.xOf(column.end) - start, area.height);
    }
  }

  drawHatch(context, mask, fx, fy, tile) {
    const { layer, base } = this;
    if (layer.width !== base.width || layer.height !== base.height) {
      layer.width = base.width;
      layer.height = base.height;
    }
    const over = layer.getContext("2d");
    over.setTransform(1, 0, 0, 1, 0, 0);
    over.globalCompositeOperation = "copy";
    over.fillStyle = over.createPattern(tile, "repeat");
    over.fillRect(0, 0, layer.width, layer.height);
    // Strips drawn one by one must not erase each other: gather them first, then cut once.
    over.globalCompositeOperation = "destination-in";
    const cut = this.matrix.uniform ? mask : this.strips(mask, fx, fy);
    over.imageSmoothingEnabled = false;
    if (this.matrix.uniform) {
      over.scale(this.ratio, this.ratio);
      this.drawImage(over, cut, fx, fy);
    } else {
      over.drawImage(cut, 0, 0);
    }
    context.drawImage(layer, 0, 0, this.width, this.height);
  }

  strips(mask, fx, fy) {
    const canvas = document.createElement("canvas");
    canvas.width = this.base.width;
    canvas.height = this.base.height;
    const context = canvas.getContext("2d");
    context.scale(this.ratio, this.ratio);
    context.imageSmoothingEnabled = false;
    this.drawImage(context, mask, fx, fy);
    return canvas;
  }

  drawGrid(context, { firstRow, lastRow }, cellHeight) {
    if (cellHeight < 9) return;
    context.fillStyle = this.colours.grid;
    for (let row = firstRow + 1; row < lastRow; row += 1) {
      context.fillRect(this.area.left, Math.round(this.yOf(row)), this.area.width, 1);
    }
  }

  /** The column in progress is not over: a dashed line stands where it begins. */
  drawOpen(context) {
    const open = this.matrix.columns.at(-1);
    if (!open?.open) return;
    const x = Math.round(this.xOf(open.start)) + 0.5;
    context.strokeStyle = this.colours.accent;
    context.setLineDash([3, 3]);
    context.beginPath();
    context.moveTo(x, this.area.top);
    context.lineTo(x, this.area.top + this.area.height);
    context.stroke();
    context.setLineDash([]);
  }

  drawEvents(context) {
    for (const event of this.shownEvents()) {
      context.strokeStyle = this.colours.cursor;
      context.globalAlpha = 0.35;
      context.beginPath();
      context.moveTo(event.x, this.area.top);
      context.lineTo(event.x, this.area.top + this.area.height);
      context.stroke();
      context.globalAlpha = 1;
      if (event.y !== null) diamond(context, event.x, event.y, 5, this.colours.accent, this.colours.plot);
    }
  }

  /** Events of the view with their places; at most 500, so that a storm of splits stays drawable. */
  shownEvents() {
    if (!this.view) return [];
    const { t0, t1 } = this.view;
    return this.events.filter((event) => event.ms >= t0 && event.ms < t1).slice(-500).map((event) => {
      const row = event.row(this.matrix);
      const y = row === null ? null : this.yOf(row);
      const { top, height } = this.area;
      return { ...event, x: this.xOf(event.ms), y: y !== null && y >= top && y <= top + height ? y : null };
    });
  }

  drawTimeAxis(context) {
    const { left, top, width, height } = this.area;
    const base = top + height;
    context.fillStyle = this.colours.dim;
    context.textBaseline = "top";
    context.textAlign = "center";
    for (const mark of timeMarks(this.view.t0, this.view.t1, width, this.style.zone)) {
      const x = this.xOf(mark.ms);
      context.fillRect(Math.round(x), base, 1, 4);
      if (x > left + 18 && x < left + width - 18) context.fillText(mark.text, x, base + 7);
    }
  }

  drawKeyAxis(context) {
    const { left, top, height } = this.area;
    const { rows } = this.matrix;
    const { firstRow, lastRow } = this.visible();
    context.save();
    context.beginPath();
    context.rect(0, top - 8, left, height + 16);
    context.clip();
    const bands = folderBands(rows, firstRow, lastRow);
    bands.forEach((band, at) => this.drawBand(context, band, at));
    const edge = bands.length > 0 ? 20 : 6;
    const chars = Math.floor((left - edge - 8) / context.measureText("0").width);
    context.textAlign = "left";
    context.textBaseline = "middle";
    const yOf = (row) => Math.max(this.yOf(row), top);
    for (const mark of keyMarks(rows, firstRow, lastRow, yOf, 15, chars)) {
      context.fillStyle = this.colours.line;
      context.fillRect(left - 5, Math.round(mark.y), 5, 1);
      context.fillStyle = this.colours.dim;
      context.fillText(mark.dim, edge, mark.y + 1);
      context.fillStyle = this.colours.text;
      context.fillText(mark.plain, edge + context.measureText(mark.dim).width, mark.y + 1);
    }
    context.restore();
  }

  drawBand(context, band, at) {
    const { top, height } = this.area;
    const from = Math.max(top, this.yOf(band.start));
    const to = Math.min(top + height, this.yOf(band.end));
    if (to <= from) return;
    context.fillStyle = at % 2 === 0 ? this.colours.line : this.colours.grid;
    context.fillRect(2, from, 14, to - from - 1);
    const room = Math.floor((to - from - 6) / context.measureText("0").width);
    if (room < 3 || band.name === "") return;
    context.save();
    context.translate(9, (from + to) / 2);
    context.rotate(-Math.PI / 2);
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillStyle = this.colours.text;
    context.fillText(band.name.length > room ? `${band.name.slice(0, room - 1)}…` : band.name, 0, 0);
    context.restore();
  }

  drawSums(context) {
    const { matrix, area } = this;
    const shown = this.visible();
    const { columnSums, rowSums, columns } = matrix;
    context.fillStyle = this.colours.accent;
    context.globalAlpha = 0.75;
    const tallest = columnSums.reduce((most, sum) => Math.max(most, sum), 0) || 1;
    const room = area.top - 14;
    for (let x = shown.firstColumn; x < shown.lastColumn; x += 1) {
      const start = Math.max(area.left, this.xOf(columns[x].start));
      const end = Math.min(area.left + area.width, this.xOf(columns[x].end));
      const high = (columnSums[x] / tallest) * room;
      context.fillRect(start, area.top - 3 - high, Math.max(0.5, end - start - 0.2), high);
    }
    if (area.sums > 10) {
      const widest = rowSums.reduce((most, sum) => Math.max(most, sum), 0) || 1;
      const edge = area.left + area.width + 3;
      for (let row = shown.firstRow; row < shown.lastRow; row += 1) {
        const y = Math.max(area.top, this.yOf(row));
        const end = Math.min(area.top + area.height, this.yOf(row + 1));
        context.fillRect(edge, y, (rowSums[row] / widest) * area.sums, Math.max(0.5, end - y - 0.2));
      }
    }
    context.globalAlpha = 1;
  }

  drawOverlay() {
    const context = this.begin(this.overlay);
    if (!this.view) return;
    const { left, top, width, height } = this.area;
    if (!this.colours) this.readColours();
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

  outline(context, { start, t0, t1 }) {
    const row = this.matrix.rows.findIndex((each) => each.start === start);
    if (row < 0 || t1 <= this.view.t0 || t0 >= this.view.t1) return;
    const [x, y] = [this.xOf(t0), this.yOf(row)];
    context.save();
    context.beginPath();
    context.rect(this.area.left - 2, this.area.top - 2, this.area.width + 4, this.area.height + 4);
    context.clip();
    context.strokeStyle = this.colours.accent;
    context.lineWidth = 2;
    context.strokeRect(x - 1, y - 1, Math.max(4, this.xOf(t1) - x) + 2, Math.max(4, this.yOf(row + 1) - y) + 2);
    context.restore();
  }

  /** Where a cell is drawn, clipped to the plot, at least one pixel large. */
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

function diamond(context, x, y, size, fill, edge) {
  context.beginPath();
  context.moveTo(x, y - size);
  context.lineTo(x + size, y);
  context.lineTo(x, y + size);
  context.lineTo(x - size, y);
  context.closePath();
  context.fillStyle = fill;
  context.fill();
  context.strokeStyle = edge;
  context.stroke();
}
