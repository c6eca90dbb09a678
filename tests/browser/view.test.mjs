// What the page computes of times and keys, without a browser.

import assert from "node:assert/strict";
import { test } from "node:test";
import { timeMarks } from "../../web/axes.js";
import { sharesText } from "../../web/details.js";
import { further } from "../../web/further.js";
import { after } from "../../web/range.js";
import { compareBytes, endOf, keyBytes, keyText } from "../../web/keys.js";

process.env.TZ = "Europe/Berlin";

test("marks of days stand at midnight on both sides of the end and the beginning of summer time", () => {
  for (const [from, to, days] of [
    ["2026-10-23T00:00:00Z", "2026-10-29T00:00:00Z", ["10-24", "10-25", "10-26", "10-27", "10-28", "10-29"]],
    ["2026-03-27T00:00:00Z", "2026-04-02T00:00:00Z", ["03-28", "03-29", "03-30", "03-31", "04-01", "04-02"]],
  ]) {
    const marks = timeMarks(Date.parse(from), Date.parse(to), 600, "local");
    assert.deepEqual(marks.map((mark) => mark.text), days);
    assert.ok(marks.every((mark) => new Date(mark.ms).getHours() === 0), "each at midnight");
  }
  const night = timeMarks(Date.parse("2026-10-24T20:00:00Z"), Date.parse("2026-10-25T08:00:00Z"), 600, "local");
  assert.ok(night.every((mark, at) => at === 0 || mark.ms > night[at - 1].ms));
  assert.ok(night.every((mark) => new Date(mark.ms).getHours() % 2 === 0), "full hours of the clock on the wall");
});

test("a range that is moved along the keys stays as wide, in the characters of its keys", () => {
  const rows = (...bounds) => bounds.slice(0, -1).map((start, at) => ({ start, end: bounds[at + 1] }));
  const order = rows("key/00025000", "key/00040000", "key/00050000");
  assert.deepEqual(further(order, -0.125), { start: "key/00022", end: "key/00050000" });
  assert.deepEqual(further(order, 0.125), { start: "key/00025000", end: "key/00053" });
  assert.deepEqual(further(rows("hex:ff00", "hex:ff80"), 0.3).end, "hex:ffa6");
  assert.deepEqual(further(rows("g", null), -0.1), { start: "e", end: null });
  // Out of the folder: still before, and still not everything.
  const before = further(rows("key/00000000", "key/00050000"), -0.125).start;
  assert.ok(before !== "" && compareBytes(keyBytes(before), keyBytes("key/00000000")) < 0);
  assert.equal(further(rows("", "hex:ffff"), 5).end, null);
});

test("a key is written so that its bytes can be read again", () => {
  for (const bytes of [[0x61], [0xff, 0], [...Buffer.from("hex:61")], [...Buffer.from("a\u202eb")], [...Buffer.from("näv")]]) {
    assert.deepEqual([...keyBytes(keyText(Uint8Array.from(bytes)))], bytes);
  }
  assert.equal(keyText(Buffer.from("näv")), "näv");
});

test("a row of one key says so, and the range of one key is that row", () => {
  for (const key of ["", "user/1", "hex:ff00", "näv"]) {
    assert.equal(endOf({ start: key, end: after(key) }), "(one key)");
    assert.equal(endOf({ start: `${key}00`, end: after(key) }) === "(one key)", false);
  }
  assert.equal(after("x".repeat(4_095) + "y"), `hex:${"78".repeat(4_095)}7a`, "no key is longer");
  assert.equal(after(`hex:61${"ff".repeat(4_095)}`), "hex:62");
  assert.equal(endOf({ start: "a", end: null }), "(end)");
  assert.equal(endOf({ start: "a", end: "b" }), "b");
});

test("ids beyond 2^53 keep all their digits", () => {
  const said = sharesText([{ id: "9007199254740993", total: 3 }, { id: 7, total: 1 }]);
  assert.equal(said, "node 9007199254740993 75 %, node 7 25 %");
});
