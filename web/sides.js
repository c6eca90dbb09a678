// The parts around the cells: the key axis, the time axis and the sums along both.

import { folderBands, keyMarks, timeMarks } from "./axes.js";
import { poolFactor } from "./raster.js";

export class Sides {
  constructor() {
    this.forget();
  }

  /** The matrix, the size or the style has changed. */
  forget() {
    this.bars = new Map();
    this.letter = 0;
  }

  draw(context, plot) {
    this.letter ||= context.measureText("0").width;
    this.drawTimeAxis(context, plot);
    this.drawKeyAxis(context, plot);
    this.drawTimeSums(context, plot);
    this.drawKeySums(context, plot);
  }

  drawTimeAxis(context, plot) {
    const { left, top, width, height } = plot.area;
    const base = top + height;
    context.fillStyle = plot.colours.dim;
    context.textBaseline = "top";
    context.textAlign = "center";
    for (const mark of timeMarks(plot.view.t0, plot.view.t1, width, plot.style.zone)) {
      const x = plot.xOf(mark.ms);
      context.fillRect(Math.round(x), base, 1, 4);
      if (x > left + 18 && x < left + width - 18) context.fillText(mark.text, x, base + 7);
    }
  }

  drawKeyAxis(context, plot) {
    const { left, top, height } = plot.area;
    const { rows } = plot.matrix;
    const { firstRow, lastRow } = plot.visible();
    context.save();
    context.beginPath();
    context.rect(0, top - 8, left, height + 16);
    context.clip();
    const bands = folderBands(rows, firstRow, lastRow);
    bands.forEach((band, at) => this.drawBand(context, plot, band, at));
    const edge = bands.length > 0 ? 20 : 6;
    const chars = Math.floor((left - edge - 8) / this.letter);
    context.textAlign = "left";
    context.textBaseline = "middle";
    const yOf = (row) => Math.max(plot.yOf(row), top);
    for (const mark of keyMarks(rows, firstRow, lastRow, yOf, plot.letters + 4, chars)) {
      context.fillStyle = plot.colours.line;
      context.fillRect(left - 5, Math.round(mark.y), 5, 1);
      context.fillStyle = plot.colours.dim;
      context.fillText(mark.dim, edge, mark.y + 1);
      context.fillStyle = plot.colours.text;
      context.fillText(mark.plain, edge + context.measureText(mark.dim).width, mark.y + 1);
    }
    context.restore();
  }

  drawBand(context, plot, band, at) {
    const { top, height } = plot.area;
    const from = Math.max(top, plot.yOf(band.start));
    const to = Math.min(top + height, plot.yOf(band.end));
    if (to <= from) return;
    context.fillStyle = at % 2 === 0 ? plot.colours.line : plot.colours.grid;
    context.fillRect(2, from, 14, to - from - 1);
    const room = Math.floor((to - from - 6) / this.letter);
    if (room < 3 || band.name === "") return;
    context.save();
    context.translate(9, (from + to) / 2);
    context.rotate(-Math.PI / 2);
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillStyle = plot.colours.text;
    context.fillText(
      band.name.length > room ? `${band.name.slice(0, room - 1)}…` : band.name,
      0,
      0,
    );
    context.restore();
  }

  drawTimeSums(context, plot) {
    const { matrix, area, view } = plot;
    const room = area.top - 14;
    if (matrix.uniform) {
      const step = matrix.columns[0].end - matrix.columns[0].start || 1;
      const factor = poolFactor((step / (view.t1 - view.t0)) * area.width * plot.ratio);
      const image = this.bar(plot, "time", matrix.columnSums, factor, room, true);
      const from = (view.t0 - matrix.columns[0].start) / step / factor;
      context.imageSmoothingEnabled = false;
      context.drawImage(
        image,
        from,
        0,
        (view.t1 - view.t0) / step / factor,
        image.height,
        area.left,
        area.top - 3 - room,
        area.width,
        room,
      );
      return;
    }
    const tallest = matrix.columnSums.reduce((most, sum) => Math.max(most, sum), 0) || 1;
    const shown = plot.visible();
    context.fillStyle = plot.colours.accent;
    context.globalAlpha = 0.75;
    for (let x = shown.firstColumn; x < shown.lastColumn; x += 1) {
      const start = Math.max(area.left, plot.xOf(matrix.columns[x].start));
      const end = Math.min(area.left + area.width, plot.xOf(matrix.columns[x].end));
      const high = (matrix.columnSums[x] / tallest) * room;
      context.fillRect(start, area.top - 3 - high, Math.max(0.5, end - start), high);
    }
    context.globalAlpha = 1;
  }

  drawKeySums(context, plot) {
    const { matrix, area, view } = plot;
    if (area.sums <= 10) return;
    const factor = poolFactor((area.height / (view.r1 - view.r0)) * plot.ratio);
    const image = this.bar(plot, "keys", matrix.rowSums, factor, area.sums, false);
    context.imageSmoothingEnabled = false;
    context.drawImage(
      image,
      0,
      view.r0 / factor,
      image.width,
      (view.r1 - view.r0) / factor,
      area.left + area.width + 3,
      area.top,
      area.sums,
      area.height,
    );
  }

  /** Bars of sums as an image, one pixel wide each: the largest of `factor` sums. */
  bar(plot, name, sums, factor, room, upright) {
    const key = `${name} ${factor}`;
    if (this.bars.has(key)) return this.bars.get(key);
    const most = sums.reduce((max, sum) => Math.max(max, sum), 0) || 1;
    const count = Math.max(1, Math.ceil(sums.length / factor));
    const deep = Math.max(1, Math.round(room * plot.ratio));
    const canvas = document.createElement("canvas");
    canvas.width = upright ? count : deep;
    canvas.height = upright ? deep : count;
    const context = canvas.getContext("2d");
    context.fillStyle = plot.colours.accent;
    context.globalAlpha = 0.75;
    for (let at = 0; at < count; at += 1) {
      let sum = 0;
      for (let each = at * factor; each < Math.min(sums.length, (at + 1) * factor); each += 1)
        sum = Math.max(sum, sums[each]);
      const long = sum === 0 ? 0 : Math.max(1, Math.round((sum / most) * deep));
      if (upright) context.fillRect(at, deep - long, 1, long);
      else context.fillRect(0, at, long, 1);
    }
    this.bars.set(key, canvas);
    return canvas;
  }
}
