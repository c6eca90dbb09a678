// The parts around the cells: the time axis, the sums along both axes with their rates, and who
// counted each row. `labels.js` draws the key axis.

import { timeMarks } from "./axes.js";
import { day, rate, zoneName } from "./format.js";
import { drawKeyAxis } from "./labels.js";
import { poolFactor } from "./raster.js";
import { secondsOf } from "./scale.js";

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
    drawKeyAxis(context, plot, this.letter);
    this.drawTimeSums(context, plot);
    this.drawKeySums(context, plot);
    this.drawNodes(context, plot);
  }

  drawTimeAxis(context, plot) {
    const { left, top, width, height } = plot.area;
    const base = top + height;
    const { t0, t1 } = plot.view;
    const { zone } = plot.style;
    context.fillStyle = plot.colours.dim;
    context.textBaseline = "top";
    context.textAlign = "center";
    const gap = 78 * (plot.letters / 11);
    for (const mark of timeMarks(t0, t1, width, zone, gap)) {
      const x = plot.xOf(mark.ms);
      context.fillRect(Math.round(x), base, 1, 4);
      if (x > left + 18 && x < left + width - 18) context.fillText(mark.text, x, base + 7);
    }
    // The day and the zone, below the key axis, where there is room.
    context.textAlign = "right";
    const place = zone === "utc" ? "UTC" : zoneName(zone).split("/").at(-1);
    const full = `${day(t0, zone)} ${place}`;
    const room = left - 24;
    const text = context.measureText(full).width <= room ? full : full.slice(4);
    if (context.measureText(text).width <= room) context.fillText(text, left - 22, base + 7);
    else context.fillText(full.slice(9, 14), left - 22, base + 7);
  }

  drawTimeSums(context, plot) {
    const { matrix, area, view } = plot;
    const room = area.top - area.events - 6;
    const now = plot.drawnMs;
    const rates = Float64Array.from(matrix.columns, (column, x) =>
      matrix.columnSums[x] / secondsOf(column, now));
    const most = rates.reduce((max, each) => Math.max(max, each), 0);
    if (matrix.uniform) {
      const step = matrix.columns[0].end - matrix.columns[0].start || 1;
      const factor = poolFactor((step / (view.t1 - view.t0)) * area.width * plot.ratio);
      const image = this.bar(plot, "time", rates, factor, room, true);
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
    } else {
      const shown = plot.visible();
      context.fillStyle = plot.colours.accent;
      context.globalAlpha = 0.75;
      for (let x = shown.firstColumn; x < shown.lastColumn; x += 1) {
        const start = Math.max(area.left, plot.xOf(matrix.columns[x].start));
        const end = Math.min(area.left + area.width, plot.xOf(matrix.columns[x].end));
        const high = (rates[x] / (most || 1)) * room;
        context.fillRect(start, area.top - 3 - high, Math.max(0.5, end - start), high);
      }
      context.globalAlpha = 1;
    }
    context.fillStyle = plot.colours.dim;
    context.textAlign = "right";
    context.textBaseline = "top";
    context.fillText(rate(most, matrix.series), area.left - 5, area.top - 3 - room);
    context.fillRect(area.left - 3, area.top - 3 - room, 3, 1);
  }

  drawKeySums(context, plot) {
    const { matrix, area, view } = plot;
    if (area.sums <= 10) return;
    const { lines } = plot.raster;
    const factor = poolFactor(
      ((area.height * matrix.height) / (view.r1 - view.r0) / lines) * plot.ratio,
    );
    const image = this.bar(plot, "keys", this.lineSums(plot, lines), factor, area.sums, false);
    const scale = lines / matrix.height / factor;
    const x = area.left + area.width + 3 + (area.strips > 0 ? area.strips + 6 : 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(
      image,
      0,
      view.r0 * scale,
      image.width,
      (view.r1 - view.r0) * scale,
      x,
      area.top,
      area.sums,
      area.height,
    );
    const seconds = (matrix.columns.at(-1).end - matrix.columns[0].start) / 1_000;
    const most = matrix.loads.reduce((max, sum) => Math.max(max, sum), 0) / seconds;
    context.fillStyle = plot.colours.dim;
    context.textAlign = "right";
    context.textBaseline = "bottom";
    context.fillText(rate(most, matrix.series).replace(" ops", ""), x + area.sums, area.top - 3);
  }

  /** The largest sum of the rows at each line of the image. */
  lineSums(plot, lines) {
    const { matrix, edges } = plot;
    const sums = new Float64Array(lines);
    const each = matrix.height / lines;
    for (let row = 0; row < matrix.height; row += 1) {
      const first = Math.min(lines - 1, Math.floor(edges[row] / each + 1e-6));
      const end = Math.max(first + 1, Math.ceil(edges[row + 1] / each - 1e-6));
      for (let line = first; line < Math.min(lines, end); line += 1)
        sums[line] = Math.max(sums[line], matrix.loads[row]);
    }
    return sums;
  }

  /** A strip a node: how much of each row it counted, the brighter the more. */
  drawNodes(context, plot) {
    const { area, shares, matrix } = plot;
    if (area.strips === 0 || !shares || shares.height !== matrix.height) return;
    const x0 = area.left + area.width + 4;
    const count = Math.min(12, shares.nodes.length);
    const wide = area.strips / count;
    const { firstRow, lastRow } = plot.visible();
    context.save();
    context.beginPath();
    context.rect(x0, 0, area.strips, area.top + area.height);
    context.clip();
    for (let node = 0; node < count; node += 1) {
      const x = x0 + node * wide;
      for (let row = firstRow; row < lastRow; row += 1) {
        const part = shares.parts[node][row];
        if (!(part > 0)) continue;
        const y = Math.max(area.top, plot.yOf(row));
        context.fillStyle = plot.colours.accent;
        context.globalAlpha = 0.12 + 0.78 * Math.min(1, part);
        context.fillRect(x, y, wide - 2, Math.max(0.5, plot.yOf(row + 1) - y));
      }
      context.globalAlpha = 1;
      context.fillStyle = plot.colours.dim;
      context.textAlign = "center";
      context.textBaseline = "bottom";
      const name = String(shares.nodes[node]);
      context.fillText(name.length > 2 ? `…${name.at(-1)}` : `n${name}`, x + wide / 2 - 1,
        area.top - 3);
    }
    context.restore();
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
