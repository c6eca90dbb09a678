// The hot keys of a cell, in its drawer: names beside what the cell says, never in place of it.

import { ask } from "./api.js";
import { copyButton, element, keyElement } from "./details.js";
import { exact, percent, short, stamp } from "./format.js";
import { elide, keyBytes, showStart } from "./keys.js";

const KEYS = 10;
const POINTS = 40;
/** Bytes of the longest key. */
const LONGEST = 4_096;
const SVG = "http://www.w3.org/2000/svg";

/** Hot keys are ranked by operations; a series of bytes shows those of its operations. */
export const operationsOf = (series) => (series.startsWith("read") ? "reads" : "writes");

/** `lower` where that is exact, else both bounds. */
export const boundsText = (lower, upper) =>
  lower === upper ? exact(lower) : `${exact(lower)} to ${exact(upper)}`;

/** The least key above `key`, as the API takes it: the range of one key ends there. */
export function after(key) {
  const bytes = [...keyBytes(key)];
  if (bytes.length < LONGEST) return hex([...bytes, 0]);
  // No key is longer.
  while (bytes.at(-1) === 255) bytes.pop();
  return bytes.length === 0 ? null : hex([...bytes.slice(0, -1), bytes.at(-1) + 1]);
}

const hex = (bytes) => `hex:${bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;

/** What is said below the keys. */
export function thresholdText(json, what) {
  const above = exact(Number(json.threshold));
  const all = exact(Number(json.operations));
  return json.keys.length === 0
    ? `No key has more than ${above} of ${all} ${what}.`
    : `Every key with more than ${above} of ${all} ${what} is listed.`;
}

/** A list of hot keys; `only(key)` shows one of them alone. */
export function hotKeysList(json, what, zone, only) {
  const points = (key) => (key.points ?? []).map(Number);
  const most = Math.max(1, ...json.keys.flatMap(points));
  const items = json.keys.map((key) => {
    const bounds = boundsText(Number(key.lower), Number(key.upper));
    const share = percent(Number(key.share), 1);
    const bytes = short(Number(key.bytes), "read-bytes");
    const shown = elide(showStart(key.key), 80);
    return element(
      "li",
      {},
      element("div", { class: "hot-key" }, keyElement(shown)),
      element("div", { class: "dim" }, `${bounds} ${what}, ${share}, ${bytes}`),
      element("div", { class: "dim" }, `since ${stamp(Number(key.first_ms), zone)}`),
      bars(points(key), most, `${what} of the key over the window`),
      element(
        "div",
        { class: "row" },
        copyButton("Copy", key.key),
        json.hashed ? null : button("Only this key", () => only(key.key)),
      ),
    );
  });
  const words = [thresholdText(json, what)];
  if (json.hashed) words.push("Keys are shown as salted hashes.");
  if (json.partial) {
    words.push("▧ A node or a part of the time is missing here, so numbers may be larger.");
  }
  const list = items.length > 0 ? [element("ol", { class: "hot-keys" }, ...items)] : [];
  return [...list, ...words.map((text) => element("p", { class: "dim" }, text))];
}

const button = (label, onclick) => element("button", { type: "button", onclick }, label);

function svg(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function bars(values, most, label) {
  const viewBox = `0 0 ${Math.max(1, values.length)} 10`;
  const looks = { class: "hot-bars", viewBox, preserveAspectRatio: "none" };
  const drawing = svg("svg", { ...looks, role: "img", "aria-label": label });
  values.forEach((value, x) => {
    const height = (value / most) * 10;
    if (height > 0) drawing.append(svg("rect", { x, y: 10 - height, width: 0.9, height }));
  });
  return drawing;
}

/** The question for the keys of a row: of one column, or of a window. */
export function hotKeysQuery(row, from_ms, to_ms) {
  const parameters = { from_ms, to_ms };
  if (row.start !== "") parameters.start = row.start;
  if (row.end !== null) parameters.end = row.end;
  return parameters;
}

/** Fills a place of the drawer; `zone()` is the time zone, `go(start, end)` shows a range. */
export const hotKeysWith = (zone, go) => async (place, matrix, row, column, signal) => {
  const what = operationsOf(matrix.series);
  const asked = hotKeysQuery(row, column.start, column.end);
  // Where the key was before and after, by the whole window.
  const [first, last] = [matrix.columns[0].start, matrix.columns.at(-1).end];
  const over = { ...hotKeysQuery(row, first, last), limit: 100, points: POINTS };
  try {
    const [json, history] = await Promise.all([
      ask("hotkeys", { ...asked, series: what, limit: KEYS }, signal),
      ask("hotkeys", { ...over, series: what }, signal),
    ]);
    if (signal.aborted) return;
    if (!Array.isArray(json.keys) || !Array.isArray(history.keys)) throw new TypeError("no keys");
    const known = new Map(history.keys.map((key) => [key.key, key]));
    for (const key of json.keys) {
      const { points, first_ms } = known.get(key.key) ?? key;
      Object.assign(key, { points, first_ms });
    }
    const only = (key) => go(key, after(key));
    const buttons = () => [...place.querySelectorAll("button")];
    const focused = buttons().indexOf(document.activeElement);
    place.replaceChildren(...hotKeysList(json, what, zone(), only));
    if (focused >= 0) buttons()[focused]?.focus({ preventScroll: true });
  } catch (error) {
    if (error.name === "AbortError") return;
    const why = error.message ? `Not known: ${error.message}` : "Not known.";
    place.replaceChildren(element("p", { class: "dim" }, why));
  }
};
