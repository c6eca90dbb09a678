// The cells of a matrix as images. A screen pixel that covers several cells shows the hottest of
// them: nearest-neighbour scaling would drop hot rows, and averaging would dim them.

import { STEPS, css, greys, ramp } from "./colour.js";
import { APPORTIONED, BLOCK, CONFLICT, PARTIAL } from "./matrix.js";

export const HATCHES = { partial: PARTIAL, apportioned: APPORTIONED, conflict: CONFLICT };

/** The maximum number of lines of an image whose rows are not equally high. */
const MOST_LINES = 2_048;

export class Raster {
  /** `edges`: where rows begin, in rows; `pixels`: how many device pixels all of them have. */
  constructor(matrix, style, scale, edges = null, pixels = 0) {
    this.marks = matrix.marks;
    const colours = ramp(style.palette, style.theme);
    const blocks = greys(style.theme);
    // A code is a step of the ramp and whether it is a measured cell, which hides a block.
    this.colours = Uint32Array.from({ length: 2 * STEPS }, (_, code) =>
      (code % 2 === 1 ? colours : blocks)[code >> 1],
    );
    const { width, height, flags } = matrix;
    this.codes = codesOf(matrix, scale);
    const hottest = (a, b) => (a > b ? a : b);
    const both = (a, b) => a | b;
    /** How many lines the image has; as many as rows where these are equally high. */
    this.lines = edges ? Math.max(height, Math.min(MOST_LINES, pixels)) : height;
    const spread = (data, join) => (edges ? placed(data, width, edges, this.lines, join) : data);
    this.steps = new Pyramid(spread(this.codes, hottest), width, this.lines, hottest);
    this.flags = new Pyramid(spread(flags, both), width, this.lines, both);
    this.images = new Map();
    this.masks = new Map();
  }

  /** Cells pooled `fx` by `fy`, as a canvas that is drawn once per matrix. */
  image(fx, fy) {
    return cached(this.images, `${fx} ${fy}`, () =>
      paint(this.steps.level(fx, fy), (pixels, data) => {
        for (let at = 0; at < data.length; at += 1) {
          if (data[at] > 0) pixels[at] = this.colours[data[at]];
        }
      }),
    );
  }

  /** The colour of one cell. */
  colour(at) {
    return this.codes[at] > 0 ? css(this.colours[this.codes[at]]) : "transparent";
  }

  /** The cells with a mark, as an opaque mask; `null` if there are none. */
  mask(mark, fx, fy) {
    if ((this.marks & mark) === 0) return null;
    return cached(this.masks, `${mark} ${fx} ${fy}`, () =>
      paint(this.flags.level(fx, fy), (pixels, data) => {
        for (let at = 0; at < data.length; at += 1) {
          if (data[at] & mark) pixels[at] = 0xff000000;
        }
      }),
    );
  }
}

/**
 * The bytes of cells pooled by increasing powers of two; each level is made from the one before.
 */
class Pyramid {
  constructor(data, width, height, join) {
    this.levels = new Map([["1 1", { data, width, height }]]);
    this.join = join;
  }

  /** The level for `fx` by `fy` cells; both are powers of two. */
  level(fx, fy) {
    return cached(this.levels, `${fx} ${fy}`, () =>
      (fx > 1 ? this.narrower(this.level(fx / 2, fy)) : this.lower(this.level(fx, fy / 2))));
  }

  narrower({ data, width, height }) {
    const { join } = this;
    const wide = Math.ceil(width / 2);
    const result = new data.constructor(wide * height);
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < wide; x += 1) {
        const at = y * width + 2 * x;
        result[y * wide + x] = 2 * x + 1 < width ? join(data[at], data[at + 1]) : data[at];
      }
    }
    return { data: result, width: wide, height };
  }

  lower({ data, width, height }) {
    const { join } = this;
    const high = Math.ceil(height / 2);
    const result = new data.constructor(width * high);
    for (let y = 0; y < high; y += 1) {
      const [from, into] = [2 * y * width, y * width];
      const next = 2 * y + 1 < height ? from + width : from;
      for (let x = 0; x < width; x += 1) result[into + x] = join(data[from + x], data[next + x]);
    }
    return { data: result, width, height: high };
  }
}

function cached(map, key, make) {
  if (!map.has(key)) map.set(key, make());
  return map.get(key);
}

/** A code per cell: 0 for no operations, else a step of the ramp, which is never 0. */
function codesOf({ painted, values, flags, width }, { part, seconds }) {
  const result = new Uint16Array(painted.length);
  for (let at = 0; at < result.length; at += 1) {
    const value = painted[at];
    if (value <= 0) continue;
    const step = Math.floor(part(value / seconds[at % width]) * (STEPS - 1) + 0.5);
    const measured = (flags[at] & BLOCK) === 0 || 2 * values[at] >= value;
    result[at] = 2 * Math.max(1, step) + (measured ? 1 : 0);
  }
  return result;
}

/** The rows at their heights: each line has what any row in it has. */
function placed(data, width, edges, lines, join) {
  const height = edges.length - 1;
  const result = new data.constructor(width * lines);
  const [each, near] = [height / lines, 1e-6];
  for (let row = 0; row < height; row += 1) {
    const first = Math.min(lines - 1, Math.floor(edges[row] / each + near));
    const end = Math.max(first + 1, Math.ceil(edges[row + 1] / each - near));
    for (let line = first; line < Math.min(lines, end); line += 1) {
      const [from, into] = [row * width, line * width];
      for (let x = 0; x < width; x += 1) {
        result[into + x] = join(result[into + x], data[from + x]);
      }
    }
  }
  return result;
}

function paint({ data, width, height }, fill) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, width);
  canvas.height = Math.max(1, height);
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  fill(new Uint32Array(image.data.buffer), data);
  context.putImageData(image, 0, 0);
  return canvas;
}

/** The power of two by which cells of `size` device pixels must be pooled to fill one pixel. */
export function poolFactor(size) {
  let factor = 1;
  while (size * factor < 1 && factor < 4096) factor *= 2;
  return factor;
}

/** A tile of the hatching that a mark is drawn with: two tones, so that it shows on any colour. */
export function hatchTile(mark, ratio, dark) {
  const size = Math.round(8 * ratio);
  const canvas = document.createElement("canvas");
  canvas.width = size;
  canvas.height = size;
  const context = canvas.getContext("2d");
  const [light, deep] = ["rgba(255,255,255,.7)", "rgba(0,0,0,.6)"];
  for (const [colour, off] of dark ? [[deep, ratio], [light, 0]] : [[light, ratio], [deep, 0]]) {
    context.strokeStyle = colour;
    context.fillStyle = colour;
    context.lineWidth = Math.max(1, ratio);
    context.beginPath();
    if (mark === APPORTIONED) {
      context.arc(size / 2 + off, size / 2 + off, Math.max(1, ratio), 0, 7);
      context.fill();
      continue;
    }
    for (const shift of [-size, 0, size]) {
      context.moveTo(shift, size + off);
      context.lineTo(shift + size, off);
      if (mark === CONFLICT) {
        context.moveTo(shift, off);
        context.lineTo(shift + size, size + off);
      }
    }
    context.stroke();
  }
  return canvas;
}
