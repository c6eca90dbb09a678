// Reads the packed form of a matrix (`encoding=packed`): cells as one string of Z85, row by row.
// src/json/src/packed.rs specifies it.

import { BadAnswer } from "./bad.js";

const Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
const PLACES = new Uint8Array(128).fill(255);
for (let at = 0; at < 85; at += 1) PLACES[Z85.charCodeAt(at)] = at;

function z85(text) {
  if (typeof text !== "string" || text.length % 5 !== 0)
    throw new BadAnswer("packed cells are no Z85");
  const bytes = new Uint8Array((text.length / 5) * 4);
  for (let at = 0, into = 0; at < text.length; at += 5, into += 4) {
    let number = 0;
    for (let each = 0; each < 5; each += 1) {
      const place = PLACES[text.charCodeAt(at + each)] ?? 255;
      if (place === 255) throw new BadAnswer("packed cells are no Z85");
      number = number * 85 + place;
    }
    bytes[into] = number >>> 24;
    bytes[into + 1] = number >>> 16;
    bytes[into + 2] = number >>> 8;
    bytes[into + 3] = number;
  }
  return bytes;
}

/** Reads numbers of 7 bits per byte, lowest first. Above 2^53 they are as exact as a double. */
class Numbers {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  next() {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      if (this.at >= this.bytes.length) throw new BadAnswer("packed cells end too early");
      const byte = this.bytes[this.at];
      this.at += 1;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  }
}

/** The cells of an answer: `count` numbers, row by row. */
export function unpackCells(cells, count) {
  const bytes = z85(cells?.data);
  const values = new Float64Array(count);
  if (cells.form === "rounded") {
    if (bytes.length < count * 2) throw new BadAnswer("packed cells end too early");
    for (let at = 0; at < count; at += 1) {
      const half = bytes[2 * at] | (bytes[2 * at + 1] << 8);
      const shift = half >> 10;
      values[at] = shift === 0 ? half : (1_024 + (half & 1_023)) * 2 ** (shift - 1);
    }
    return values;
  }
  if (cells.form !== "exact") throw new BadAnswer(`cells of an unknown form: ${cells.form}`);
  const numbers = new Numbers(bytes);
  for (let at = 0; at < count;) {
    const value = numbers.next();
    if (value > 0) {
      values[at] = value;
      at += 1;
    } else {
      at += numbers.next();
    }
  }
  return values;
}

/** Sets `mark` in `flags` as the answer says. Returns whether any cell has it. */
export function unpackMarks(marks, flags, mark) {
  if (marks === undefined || marks === null) return false;
  const bytes = z85(marks.data);
  if (marks.form === "bits") {
    if (bytes.length * 8 < flags.length) throw new BadAnswer("packed marks end too early");
    for (let at = 0; at < flags.length; at += 1) {
      if ((bytes[at >> 3] >> (at & 7)) & 1) flags[at] |= mark;
    }
    return true;
  }
  if (marks.form !== "runs") throw new BadAnswer(`marks of an unknown form: ${marks.form}`);
  const numbers = new Numbers(bytes);
  for (let at = 0, marked = false; at < flags.length; marked = !marked) {
    const end = at + numbers.next();
    if (marked) for (; at < Math.min(end, flags.length); at += 1) flags[at] |= mark;
    at = end;
  }
  return true;
}

/** The blocks of an answer that do not straddle. */
export function unpackBlocks(blocks) {
  if (blocks === undefined || blocks === null) return [];
  const numbers = new Numbers(z85(blocks.data));
  return Array.from({ length: Number(blocks.count) }, () => {
    const six = [1, 2, 3, 4, 5, 6].map(() => numbers.next());
    const [column, row, rows, columns, value, conflict] = six;
    return { column, row, rows, columns, value, conflict: conflict > 0 };
  });
}
