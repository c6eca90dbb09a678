// The joining of streamed columns to a picture, without a browser: it never guesses.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { halves, middle } from "../../web/changes.js";
import { slide } from "../../web/live.js";
import { readMatrix } from "../../web/matrix.js";

const STEP = 1_000;

/** A matrix of rows `[start, values, marks]` whose first column begins at `from`; the last is open. */
function matrix(from, rows, { version = 1, open = true } = {}) {
  const width = rows[0][1].length;
  return readMatrix({
    series: "writes", catalog_version: version, total: rows.flatMap(([, values]) => values).reduce((sum, value) => sum + value, 0), unattributed: 0, nodes: [], responded: 3, expected: 3, events: [],
    columns: Array.from({ length: width }, (_, at) => ({ start_ms: from + at * STEP, end_ms: from + (at + 1) * STEP, open: open && at === width - 1 })),
    rows: rows.map(([start, values, marks = {}], at) => ({ start, end: rows[at + 1]?.[0] ?? null, values, route_ids: [at + 1], route_count: 1, ...marks })),
  });
}

const rowsOf = ({ values, width, height }) => Array.from({ length: height }, (_, y) => [...values.slice(y * width, (y + 1) * width)]);

test("what is told again is replaced, what is new comes in, what is old goes out", () => {
  const shown = matrix(10_000, [["", [1, 2, 3]], ["m", [4, 5, 6]]]);
  const told = matrix(12_000, [["", [30, 7]], ["m", [1, 2]], ["p", [10, 20]]]);
  const next = slide(shown, told, 11_000);
  assert.deepEqual(rowsOf(next), [[2, 30, 7], [5, 11, 22]]);
  assert.deepEqual(next.columns.map((column) => [column.start, column.open]), [[11_000, false], [12_000, false], [13_000, true]]);
  assert.deepEqual([next.total, [...next.rowSums], [...next.columnSums], next.max], [77, [39, 38], [7, 41, 29], 30]);
});

test("marks come along", () => {
  const shown = matrix(10_000, [["", [1, 2]], ["m", [3, 4]]]);
  const next = slide(shown, matrix(11_000, [["", [1, 1], { partial: [1] }], ["m", [1, 1]]]), 10_000);
  assert.deepEqual([...next.flags], [0, 0, 2, 0, 0, 0]);
});

test("conflicts that are told come along, each once", () => {
  const [shown, told] = [matrix(10_000, [["", [1, 2]]]), matrix(11_000, [["", [1, 1]]])];
  shown.conflicts = [{ group_id: 1, term: 2, nodes: [1, 3] }];
  told.conflicts = [{ group_id: 1, term: 2, nodes: [1, 3] }, { group_id: 2, term: 7, nodes: [2, 3] }];
  assert.deepEqual(slide(shown, told, 10_000).conflicts.map(({ term }) => term), [2, 7]);
});

test("what would be a guess is refused", () => {
  const shown = matrix(10_000, [["", [1, 2]], ["m", [3, 4]]]);
  const across = (values, marks) => matrix(11_000, [["", values, marks]]);
  assert.equal(slide(shown, across([1, 0]), 0), null, "a count that lies across two rows");
  assert.ok(slide(shown, across([0, 0]), 0), "nothing across two rows is nothing in both");
  assert.equal(slide(shown, across([0, 0], { partial: [0] }), 0), null, "a mark across two rows");
  assert.equal(slide(shown, matrix(12_000, [["", [1]], ["m", [1]]]), 0), null, "the open column was never finished");
  assert.equal(slide(shown, matrix(11_000, [["", [1]], ["m", [1]]], { version: 2 }), 0), null, "other routes");
  assert.equal(slide(matrix(10_000, [["", [1]], ["m", [1]]], { open: false }), matrix(13_000, [["", [1]], ["m", [1]]]), 0), null, "a gap");
});

test("the predicted halves add up, and what the key cuts belongs to neither", () => {
  const route = matrix(0, [["a", [10]], ["b", [30]], ["c", [40]], ["d", [20]]]);
  assert.equal(middle(route), "c");
  assert.deepEqual(halves(route, "c"), { left: 40, right: 60, across: 0 });
  assert.deepEqual(halves(route, "bb"), { left: 10, right: 60, across: 30 });
});

test("the packed form reads as the plain one, and rounded cells are near", () => {
  // Written by the node's own tests.
  const example = JSON.parse(readFileSync(new URL("packed.json", import.meta.url)));
  const [plain, packed, rounded] = [example.plain, example.packed, example.rounded].map(readMatrix);
  const bare = ({ rows, ...rest }) => ({ ...rest, rows: rows.map(({ routeIds: _, ...row }) => ({ ...row, roles: { leader_write: row.roles.leader_write ?? 0 } })) });
  assert.deepEqual(bare(packed), bare(plain));
  assert.deepEqual(packed.rows.map((row) => row.routeIds), plain.rows.map((row) => row.routeIds.slice(0, 12)));
  assert.equal(rounded.rounded, true);
  rounded.values.forEach((value, at) => assert.ok(Math.abs(value - plain.values[at]) <= plain.values[at] / 2_048, `${value} for ${plain.values[at]}`));
  assert.deepEqual([rounded.rowSums, rounded.columnSums, rounded.total, rounded.flags], [plain.rowSums, plain.columnSums, plain.total, plain.flags]);
});

test("broken cells are refused in words", () => {
  const { packed } = JSON.parse(readFileSync(new URL("packed.json", import.meta.url)));
  const broken = (data, form = "exact") => () => readMatrix({ ...packed, cells: { form, data } });
  assert.throws(broken("00000"), /end too early/);
  assert.throws(broken("\"\"\"\"\""), /no Z85/);
  assert.throws(broken("0000"), /no Z85/);
  assert.throws(broken("00000", "other"), /unknown form: other/);
  assert.throws(broken(undefined), /no Z85/);
});
