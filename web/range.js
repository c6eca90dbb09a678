// The range that holds a key and no other.

import { keyBytes } from "./keys.js";

/** Bytes of the longest key. */
const LONGEST = 4_096;

const hex = (bytes) => `hex:${bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;

/** The least key above `key`, as the API takes it: the range of one key ends there. */
export function after(key) {
  const bytes = [...keyBytes(key)];
  if (bytes.length < LONGEST) return hex([...bytes, 0]);
  // No key is longer.
  while (bytes.at(-1) === 255) bytes.pop();
  return bytes.length === 0 ? null : hex([...bytes.slice(0, -1), bytes.at(-1) + 1]);
}
