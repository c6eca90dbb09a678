// The cells of the heatmap and their hatching. During a gesture the hatching of its first frame is
// moved and scaled: one image per frame instead of three passes per mark over the canvas.

import { HATCHES, hatchTile, poolFactor } from "./raster.js";

export class Cells {
  constructor() {
    this.layer = document.createElement("canvas");
    this.forget();
  }

  /** The matrix, the size or the style has changed. */
  forget() {
    this.tiles = null;
    this.hatchedView = null;
  }

  draw(context, plot) {
    const { matrix, area, view } = plot;
    const shown = plot.visible();
    if (shown.firstColumn >= shown.lastColumn || shown.firstRow >= shown.lastRow) return;
    const lineHeight = (area.height * matrix.height) / (view.r1 - view.r0) / plot.raster.lines;
    const fx = matrix.uniform ? poolFactor(cellWidth(plot, shown) * plot.ratio) : 1;
    const fy = poolFactor(lineHeight * plot.ratio);
    context.imageSmoothingEnabled = false;
    drawUnknown(context, plot);
    place(context, plot, plot.raster.image(fx, fy), fx, fy);
    if (matrix.marks !== 0) this.drawHatches(context, plot, fx, fy);
    drawGrid(context, plot, shown);
    drawBlocks(context, plot);
    drawFolds(context, plot);
    drawOpen(context, plot);
  }

  drawHatches(context, plot, fx, fy) {
    if (!plot.moving || !this.hatchedView) this.hatch(plot, fx, fy);
    const { view, area, ratio } = plot;
    const then = this.hatchedView;
    const [wide, high] = [then.t1 - then.t0, then.r1 - then.r0];
    // The part of the layer that the view shows now.
    const from = {
      x: ((view.t0 - then.t0) / wide) * area.width,
      y: ((view.r0 - then.r0) / high) * area.height,
    };
    const size = {
      x: ((view.t1 - view.t0) / wide) * area.width,
      y: ((view.r1 - view.r0) / high) * area.height,
    };
    context.drawImage(
      this.layer,
      from.x * ratio,
      from.y * ratio,
      size.x * ratio,
      size.y * ratio,
      area.left,
      area.top,
      area.width,
      area.height,
    );
  }

  /** Draws the hatching of the view into the layer, which is as large as the area of the cells. */
  hatch(plot, fx, fy) {
    const { area, ratio, raster, view } = plot;
    const { layer } = this;
    const [width, height] = [Math.round(area.width * ratio), Math.round(area.height * ratio)];
    layer.width = width;
    layer.height = height;
    this.tiles ??= new Map(
      Object.values(HATCHES).map((mark) => [
        mark,
        hatchTile(mark, ratio, plot.style.theme !== "light"),
      ]),
    );
    const over = layer.getContext("2d");
    for (const mark of Object.values(HATCHES)) {
      const mask = raster.mask(mark, fx, fy);
      if (!mask) continue;
      const cut = canvasOf(width, height);
      const context = cut.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.setTransform(ratio, 0, 0, ratio, -area.left * ratio, -area.top * ratio);
      place(context, plot, mask, fx, fy);
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.globalCompositeOperation = "source-in";
      context.fillStyle = context.createPattern(this.tiles.get(mark), "repeat");
      context.fillRect(0, 0, width, height);
      over.drawImage(cut, 0, 0);
    }
    this.hatchedView = view;
  }
}

function canvasOf(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, width);
  canvas.height = Math.max(1, height);
  return canvas;
}

function cellWidth({ matrix, view, area }, shown) {
  const widest = matrix.uniform
    ? matrix.columns[0].end - matrix.columns[0].start
    : matrix.columns
        .slice(shown.firstColumn, shown.lastColumn)
        .reduce((most, column) => Math.max(most, column.end - column.start), 1);
  return (widest / (view.t1 - view.t0)) * area.width;
}

/** One image if columns are even, else one strip per column. */
function place(context, plot, image, fx, fy) {
  const { matrix, view, area } = plot;
  const { t0, t1 } = view;
  // Lines of the image, of which a row has as many as it is high.
  const [r0, r1] = [view.r0, view.r1].map((at) => (at * plot.raster.lines) / matrix.height);
  if (matrix.uniform) {
    const step = (matrix.columns[0].end - matrix.columns[0].start) || 1;
    const from = (t0 - matrix.columns[0].start) / step / fx;
    const wide = (t1 - t0) / step / fx;
    context.drawImage(
      image,
      from,
      r0 / fy,
      wide,
      (r1 - r0) / fy,
      area.left,
      area.top,
      area.width,
      area.height,
    );
    return;
  }
  for (let x = 0; x < matrix.width; x += 1) {
    const column = matrix.columns[x];
    if (column.end <= t0 || column.start >= t1) continue;
    const start = plot.xOf(column.start);
    context.drawImage(
      image,
      x,
      r0 / fy,
      1,
      (r1 - r0) / fy,
      start,
      area.top,
      plot.xOf(column.end) - start,
      area.height,
    );
  }
}

/** Time before the first column of any node: nobody counted, which is not the same as nothing. */
function drawUnknown(context, plot) {
  const { area, matrix } = plot;
  if (!(matrix.oldestMs > plot.view.t0)) return;
  const x = Math.min(area.left + area.width, plot.xOf(matrix.oldestMs));
  context.fillStyle = plot.colours.grid;
  context.fillRect(area.left, area.top, x - area.left, area.height);
}

function drawGrid(context, plot, { firstRow, lastRow }) {
  context.fillStyle = plot.colours.grid;
  let above = plot.yOf(firstRow);
  for (let row = firstRow + 1; row < lastRow; row += 1) {
    const y = plot.yOf(row);
    if (y - above >= 9) context.fillRect(plot.area.left, Math.round(y), plot.area.width, 1);
    above = y;
  }
}

/** A line above and below folded rows. */
function drawFolds(context, plot) {
  context.fillStyle = plot.colours.line;
  for (const { first, end } of plot.folds) {
    for (const row of [first, end])
      context.fillRect(plot.area.left, Math.round(plot.yOf(row)), plot.area.width, 1);
  }
}

/** The maximum number of blocks that are outlined; more are smaller than an outline. */
const MOST_OUTLINED = 4_000;

/** A block is one rectangle with an outline, without grid lines between its rows. */
function drawBlocks(context, plot) {
  const { matrix, area, view } = plot;
  if (matrix.blocks.length > MOST_OUTLINED) return;
  context.strokeStyle = plot.colours.line;
  context.lineWidth = 1;
  for (const block of matrix.blocks) {
    const from = matrix.columns[block.column];
    const to = matrix.columns[block.column + block.columns - 1];
    if (block.straddling || to.end <= view.t0 || from.start >= view.t1) continue;
    const [x, y] = [plot.xOf(from.start), plot.yOf(block.row)];
    const [wide, high] = [plot.xOf(to.end) - x, plot.yOf(block.row + block.rows) - y];
    if (y + high < area.top || y > area.top + area.height || wide < 3 || high < 4) continue;
    const at = block.row * matrix.width + block.column;
    if (high >= 9 && isEven(matrix, block)) {
      context.fillStyle = plot.raster.colour(at);
      context.fillRect(x, y, wide, high);
    }
    context.strokeRect(x + 0.5, y + 0.5, wide - 1, high - 1);
  }
}

/** Whether only the block was counted in its rows. */
function isEven({ painted, width }, block) {
  for (let row = block.row; row < block.row + block.rows; row += 1) {
    for (let column = block.column; column < block.column + block.columns; column += 1) {
      if (painted[row * width + column] !== painted[block.row * width + block.column]) return false;
    }
  }
  return true;
}

/** A dashed line marks the beginning of the column in progress. */
function drawOpen(context, plot) {
  const open = plot.matrix.columns.at(-1);
  if (!open?.open) return;
  const x = Math.round(plot.xOf(open.start)) + 0.5;
  context.strokeStyle = plot.colours.accent;
  context.lineWidth = 1;
  context.setLineDash([3, 3]);
  context.beginPath();
  context.moveTo(x, plot.area.top);
  context.lineTo(x, plot.area.top + plot.area.height);
  context.stroke();
  context.setLineDash([]);
}
