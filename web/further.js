// Finds keys beyond those that are shown. Nothing is known of keys there, so the bounds are read as
// numbers whose digits are the characters of the shown keys, and moved by a share of their
// distance: an eighth before the range from key/00025000 to key/00050000 is key/00022, an eighth
// after it key/00053.

import { keyBytes, keyText } from "./keys.js";

/** The number of characters of a key that are used, after the common prefix of all keys. */
const DIGITS = 8;
/** A bound may be off by one part in this many of the move, so that it becomes shorter. */
const SLACK = 20n;
const CLASSES = [[0x30, 0x39], [0x41, 0x5a], [0x61, 0x7a]];
const SCALE = 1_000_000;

/** The bounds of the rows, moved by a share of their distance: down, or up if it is below 0. */
export function further(rows, share) {
  const starts = rows.map((row) => keyBytes(row.start));
  const start = starts[0];
  const end = rows.at(-1).end === null ? null : keyBytes(rows.at(-1).end);
  const bounds = end === null ? starts : [...starts, end];
  let common = 0;
  while (end !== null && common < start.length && start[common] === end[common]) common += 1;
  const moved = { start: share < 0 ? "" : rows[0].start, end: share < 0 ? rows.at(-1).end : null };
  // Beyond the first or last key with this common prefix, keys share less of it.
  for (let shared = common; shared >= 0; shared -= 1) {
    const bytes = bound(bounds, start, end, shared, share);
    if (bytes) return { ...moved, [share < 0 ? "start" : "end"]: keyText(bytes) };
  }
  return moved;
}

/** The moved bound, with the first `shared` bytes kept; `null` if it would need other ones. */
function bound(bounds, start, end, shared, share) {
  const alphabet = charactersOf(bounds.map((bytes) => bytes.subarray(shared)));
  const base = BigInt(alphabet.length);
  const whole = base ** BigInt(DIGITS);
  const number = (bytes) => {
    let value = 0n;
    for (let at = shared; at < shared + DIGITS; at += 1) {
      value = value * base + BigInt(at < bytes.length ? alphabet.indexOf(bytes[at]) : 0);
    }
    return value;
  };
  const [low, high] = [number(start), end === null ? whole : number(end)];
  const by = ((high - low) * BigInt(Math.round(Math.abs(share) * SCALE))) / BigInt(SCALE);
  const goal = share < 0 ? low - by : high + by;
  if (goal <= 0n || goal >= whole) return null;
  const digits = shortest(goal, by / SLACK, base);
  return Uint8Array.from([
    ...start.subarray(0, shared),
    ...digits.map((digit) => alphabet[digit]),
  ]);
}

/** All characters that occur and those of the same kind: with one digit, all digits. */
function charactersOf(list) {
  const seen = new Set();
  for (const bytes of list) {
    for (const byte of bytes) {
      const [first, last] = byte < 0x20 || byte > 0x7e ? [0, 255]
        : CLASSES.find(([low, high]) => byte >= low && byte <= high) ?? [byte, byte];
      if (seen.has(first) && seen.has(last)) continue;
      for (let each = first; each <= last; each += 1) seen.add(each);
    }
  }
  if (seen.size < 2) return Array.from({ length: 256 }, (_, byte) => byte);
  return [...seen].sort((a, b) => a - b);
}

/** The digits of the number that takes the fewest among those within `slack` of the goal. */
function shortest(goal, slack, base) {
  let unit = base ** BigInt(DIGITS - 1);
  let near = goal;
  while (unit > 1n) {
    near = ((goal + unit / 2n) / unit) * unit;
    if (near > 0n && near - goal <= slack && goal - near <= slack) break;
    unit /= base;
    near = goal;
  }
  const digits = [];
  for (let place = base ** BigInt(DIGITS - 1); place >= unit; place /= base) {
    digits.push(Number((near / place) % base));
    if (place === 1n) break;
  }
  return digits;
}
