// Heights, scales and sums of the picture, without a browser.

import assert from "node:assert/strict";
import { test } from "node:test";
import { combine, jointRows } from "../../web/combine.js";
import { changesOf, earlier, ratioText } from "../../web/compare.js";
import { readFinding, helpText, sinceText, whereText } from "../../web/findings.js";
import { joinKeys } from "../../web/hot.js";
import { journalOf } from "../../web/journal.js";
import { folder, plainBound, showKey } from "../../web/keys.js";
import { labelsOf } from "../../web/labels.js";
import { foldsOf, layoutOf, movedFar, rowOfUnit, unitOf } from "../../web/layout.js";
import { readMatrix } from "../../web/matrix.js";
import { actOf, commandOf } from "../../web/pilot.js";
import { scaleOf, secondsOf, ticks } from "../../web/scale.js";
import { readState, writeState } from "../../web/state.js";

/** A matrix of rows `[start, values]` with columns of a second from 10 s on. */
function matrix(rows, { series = "writes", from = 10_000, blocks = [] } = {}) {
  const width = rows[0][1].length;
  return readMatrix({
    series, catalog_version: 1, total: rows.flatMap(([, values]) => values).reduce((sum, value) => sum + value, 0) + blocks.reduce((sum, block) => sum + block.value, 0),
    unattributed: 0, nodes: [], responded: 3, expected: 3, events: [], blocks,
    columns: Array.from({ length: width }, (_, at) => ({ start_ms: from + at * 1_000, end_ms: from + (at + 1) * 1_000 })),
    rows: rows.map(([start, values], at) => ({ start, end: rows[at + 1]?.[0] ?? null, values, route_ids: [at + 1], route_count: 1, roles: { leader_write: 1 } })),
  });
}
const close = (a, b, by = 1e-9) => assert.ok(Math.abs(a - b) <= by, `${a} is not ${b}`);

test("a lone burst does not darken what is hot all the time, and the legend's marks are round", () => {
  const hot = Array.from({ length: 100 }, () => 500);
  const burst = hot.map((_, at) => (at === 50 ? 900 : 5));
  const shown = matrix([["a", hot], ["b", burst], ["c", hot.map(() => 40)]]);
  const scale = scaleOf(shown, { scale: "clip" }, 1e12);
  assert.ok(scale.high < 560 && scale.high > 440, `${scale.high}`);
  assert.equal(scale.most, 900);
  assert.equal(scale.clipped, true);
  assert.ok(scale.part(40) > 0.05 && scale.part(40) < 0.12, "warm is told from hot");
  assert.deepEqual(ticks(scale), [0, 200, 400]);
  assert.deepEqual(ticks({ kind: "log", low: 0, high: 3_000 }), [0, 1, 10, 100, 1_000]);
  const chosen = scaleOf(shown, { scale: "linear", low: 10, high: 100 }, 1e12);
  assert.deepEqual([chosen.part(10), chosen.part(55), chosen.part(1_000)], [0, 0.5, 1]);
  assert.equal(scaleOf(matrix([["", [0, 0]]]), { scale: "clip" }, 1e12).part(1), 0, "nothing at all");
});

test("a column in progress is a rate of the time that has passed", () => {
  const open = { start: 10_000, end: 20_000, open: true };
  assert.equal(secondsOf(open, 15_000), 5);
  assert.equal(secondsOf(open, 99_000), 10, "clocks apart");
  assert.equal(secondsOf(open, 0), 2.5, "few counts are no high rate");
  assert.equal(secondsOf({ ...open, open: false }, 15_000), 10);
});

test("conservation heights add up, grow with the load, and cold neighbours share a band", () => {
  const sums = [0, 0, 1, 0, 0, 6_000, 0, 0, 0, 2_000, 2_000];
  const { edges, folds } = layoutOf(sums, "load", 600);
  assert.deepEqual(folds, [{ first: 0, end: 5 }]);
  close(edges.at(-1), sums.length);
  const height = (row) => edges[row + 1] - edges[row];
  assert.ok(height(5) > 2 * height(9));
  close(height(9), height(10));
  assert.ok(height(5) > 0.35 * sums.length, "60% of the load has more than a third of the height");
  for (const unit of [0, 0.3, 4.9, 7.2, 10.99]) close(unitOf(edges, rowOfUnit(edges, unit)), unit, 1e-6);
  assert.deepEqual([...layoutOf(sums, "equal", 600).edges], sums.concat(0).map((_, at) => at));
  assert.deepEqual(foldsOf([0, 0, 0, 0, 0]), [], "where all is cold nothing is folded");
  assert.equal(movedFar([5, 5, 0], [5, 6, 0]), false);
  assert.equal(movedFar([9, 1, 0], [1, 9, 0]), true);
});

test("the key axis has folders with shares, keys without them, one key, and cold ranges", () => {
  const cold = Array.from({ length: 6 }, (_, at) => [`user/${at}`, [0, 0]]);
  const shown = matrix([["order/1", [10, 10]], ["order/2", [60, 60]], ["hex:6f726465722f3200", [5, 5]], ...cold]);
  const { edges, folds } = layoutOf(shown.loads, "load", 600);
  const span = (row) => [edges[row] * 60, edges[row + 1] * 60];
  const labels = labelsOf({ matrix: shown, folds }, [0, shown.height], span, 15);
  const said = labels.map(({ text, share, one }) => `${text} ${Math.round(share * 100)}${one ? " one" : ""}`);
  assert.deepEqual(said, ["order/ 100", "1 13", "2 80 one", "> 2 7", "user/ 6 cold ranges 0"]);
  labels.reduce((above, label) => { assert.ok(label.y >= above + 14); return label.y; }, -20);
});

test("conservation the sum of two series has the cells, blocks and totals of both, or is refused", () => {
  const block = { column: 0, column_count: 1, first_row: 0, row_count: 2, value: 8, start: "", end: null };
  const writes = matrix([["", [1, 2]], ["m", [3, 4]]], { blocks: [block] });
  const reads = matrix([["", [10, 20]], ["m", [30, 40]]], { series: "reads", blocks: [{ ...block, value: 2 }] });
  const both = combine([writes, reads], "operations");
  assert.deepEqual([[...both.values], both.total, both.blocks.length, both.blocks[0].value], [[11, 22, 33, 44], 120, 1, 10]);
  assert.deepEqual([...both.loads], [11 + 5 + 22, 33 + 5 + 44]);
  assert.deepEqual(both.rows[0].roles, { leader_write: 2 });
  assert.equal(combine([writes, matrix([["", [1, 2]], ["n", [3, 4]]])], "operations"), null, "other rows");
  assert.equal(combine([writes, matrix([["", [1, 2]], ["m", [3, 4]]], { from: 11_000 })], "operations"), null, "other columns");
  assert.deepEqual(jointRows([writes, matrix([["", [1, 2]], ["g", [9, 9]], ["m", [3, 4]]])], 8), ["", "g", "m"]);
  assert.deepEqual(jointRows([matrix([["", [1]], ["g", [1]], ["m", [90]], ["t", [80]]])], 3), ["", "m", "t"], "the coldest neighbours are joined");
});

test("bounds of a key in two lists hold for the sum, also where one leaves it out", () => {
  const list = (threshold, keys) => ({ threshold, operations: 100, keys: keys.map(([key, lower, upper]) => ({ key, lower, upper, bytes: 1, first_ms: 5, last_ms: 9, points: [1] })) });
  const { keys, threshold, operations } = joinKeys([list(3, [["a", 10, 12], ["b", 4, 4]]), list(2, [["a", 5, 5]])], 10);
  assert.deepEqual(keys.map(({ key, lower, upper }) => [key, lower, upper]), [["a", 15, 17], ["b", 4, 6]]);
  assert.deepEqual([threshold, operations], [5, 200]);
  assert.deepEqual(keys.map((key) => key.of), [[10, 5], [4, null]]);
});

test("a comparison is by rate: what grew, what appeared, what vanished", () => {
  const then = matrix([["", [10, 10]], ["g", [5, 5]], ["m", [0, 0]], ["t", [0, 0]]], { from: 0 });
  const now = matrix([["", [40, 40, 40, 40]], ["g", [0, 0, 0, 0]], ["m", [2, 2, 2, 2]], ["t", [0, 0, 0, 0]]]);
  const changes = changesOf(then, now);
  assert.deepEqual(changes.map((each) => [each.row.start, each.before, each.after, ratioText(each)]),
    [["", 10, 40, "× 4"], ["g", 5, 0, "vanished"], ["m", 0, 2, "appeared"]]);
  assert.deepEqual(earlier("before", { from: 100, to: 130 }), { from: 70, to: 100 });
  assert.deepEqual(earlier("5-9", { from: 100, to: 130 }), { from: 5, to: 9 });
});

test("a finding says what, where, since when and what helps, whatever is missing", () => {
  const whole = readFinding({ kind: "hot-range", start: "a", end: "hex:622f616100", rate: 5, share: 0.5, since_ms: 1_700_001_200_000, since_earliest_ms: 1, remedies: [{ words: "Move it", forecast: { hottest_before: 9, hottest_after: 4 } }] });
  assert.deepEqual([whereText(whole), sinceText(whole, "utc"), helpText(whole)], ["a – ≤ b/aa", "since 22:33:20", "Move it: hottest node 9 ops/s → 4 ops/s"]);
  const empty = readFinding(null);
  assert.deepEqual([whereText(empty), helpText(empty), sinceText(empty, "utc")], ["all keys", "", "all the window"]);
  assert.deepEqual(actOf({ act: "move", start: "a", end: null, group: 2, words: "x", forecast: {} }, "id"), { finding: "id", act: "move", start: "a", group: 2 });
  assert.equal(commandOf({ act: "transfer-leader", group: 2, node: "9007199254740993" }), "keyviz cluster transfer-leader 2 9007199254740993");
});

test("the journal has all that happened, the newest first, with actor and outcome", () => {
  const entry = { id: 1, by: "autopilot", words: "Split", state: "done", started_ms: 30, outcome: { hottest_before: 900, hottest_after: 500, worse: false } };
  const lines = journalOf([{ ms: 20, text: "route 1 split", kind: "split" }], [{ ...readFinding({ kind: "one-key", key: "k" }), since: 10, resolved: 40 }],
    [entry, { ...entry, started_ms: "nonsense" }, { ...entry, id: 2, started_ms: 5, state: "failed", failure: "no quorum", undone_by: 3 }]);
  assert.deepEqual(lines.map((line) => [line.ms, line.what, line.by, line.outcome]), [
    [40, "ended: one key: k", "", ""], [30, "Split", "autopilot", "hottest node 900 ops/s → 500 ops/s"], [20, "route 1 split", "", ""],
    [10, "began: one key: k", "", ""], [5, "Split", "autopilot", "failed: no quorum, undone since"]]);
});

test("keys of bytes are text where most of them is, and folders are of the text", () => {
  assert.equal(showKey("hex:64656d6f2f3700"), "demo/7\\x00");
  assert.equal(folder("hex:64656d6f2f3700"), "demo/");
  assert.equal(showKey("hex:fffe00ff"), "hex:fffe00ff");
  assert.equal(plainBound("demo/7\\x00", ">"), "> demo/7");
});

test("a link holds what is selected and compared, and one of an earlier version means what it said", () => {
  const link = "#tab=compare&series=reads&from=5&to=9&sel=%5B%22view%22%5D&versus=1-4&scale=exponent&low=2&high=8.5&height=equal";
  const state = readState(link);
  assert.deepEqual([state.tab, state.sel, state.versus, state.low, state.high, state.height], ["compare", '["view"]', "1-4", 2, 8.5, "equal"]);
  assert.deepEqual(readState(writeState(state)), state);
  const old = readState("#series=writes&last=1h&rows=256&columns=480&beside=&refresh=5s&scale=log&brightness=0&palette=ember&zone=local&theme=");
  assert.deepEqual([old.series, old.last, old.refresh, old.scale, old.height, old.sel], ["writes", "1h", "5s", "log", "load", ""]);
  assert.equal(readState("#low=9&high=2").low, null);
});
