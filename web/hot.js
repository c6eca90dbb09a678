// The hot keys of a cell, in its drawer: names beside what the cell says, never in place of it.

import { ask } from "./api.js";
import { copyButton } from "./copying.js";
import { bars, button, element, keyElement } from "./element.js";
import { exact, percent, short, stamp } from "./format.js";
import { elide, showStart } from "./keys.js";
import { partsOf } from "./query.js";
import { after } from "./range.js";

const KEYS = 10;
const POINTS = 40;

/** Hot keys are ranked by operations; a series of bytes shows those of its operations. */
export const operationsOf = (series) =>
  series === "operations" ? series : series.startsWith("read") ? "reads" : "writes";

/** Hot keys of a series; of reads and writes together the sums of the bounds of both. */
export async function askKeys(parameters, series, signal) {
  const parts = partsOf(series);
  const answers = await Promise.all(
    parts.map((each) => ask("hotkeys", { ...parameters, series: each }, signal)),
  );
  for (const { keys } of answers) if (!Array.isArray(keys)) throw new TypeError("no keys");
  return answers.length === 1 ? answers[0] : joinKeys(answers, parameters.limit);
}

/** A key that one list does not have lies between nothing and what that list leaves out. */
export function joinKeys(answers, limit = 20) {
  const sum = (name) => answers.reduce((all, answer) => all + Number(answer[name]), 0);
  const operations = sum("operations");
  const known = new Map();
  answers.forEach((answer, at) => {
    for (const key of answer.keys) {
      const before = known.get(key.key) ?? { key: key.key, of: [], points: [] };
      before.of[at] = key;
      known.set(key.key, before);
    }
  });
  const keys = [...known.values()].map(({ key, of }) => {
    const told = answers.map((answer, at) => of[at] ?? { lower: 0, upper: answer.threshold });
    const each = (name) => of.filter(Boolean).map((part) => Number(part[name] ?? 0));
    const [lower, upper] = ["lower", "upper"].map((name) =>
      told.reduce((all, part) => all + Number(part[name]), 0));
    const points = of.filter(Boolean).map((part) => part.points ?? []);
    return {
      key, lower, upper,
      share: operations > 0 ? lower / operations : 0,
      bytes: each("bytes").reduce((all, bytes) => all + bytes, 0),
      first_ms: Math.min(...each("first_ms")),
      last_ms: Math.max(...each("last_ms")),
      points: points[0].map((_, x) => points.reduce((all, part) => all + Number(part[x] ?? 0), 0)),
      of: told.map((part) => Number(part.lower)),
    };
  });
  keys.sort((a, b) => b.lower - a.lower);
  return {
    ...answers[0],
    keys: keys.slice(0, Number(limit)),
    operations,
    threshold: sum("threshold"),
    partial: answers.some((answer) => answer.partial),
    hashed: answers.some((answer) => answer.hashed),
  };
}

/** `lower` where that is exact, else both bounds. */
export const boundsText = (lower, upper) =>
  lower === upper ? exact(lower) : `${exact(lower)} to ${exact(upper)}`;

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
      askKeys({ ...asked, limit: KEYS }, what, signal),
      askKeys(over, what, signal),
    ]);
    if (signal.aborted) return;
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
