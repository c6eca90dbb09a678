// The page answers by itself: what stands out, why, and what helps; every tab; and what it must bear.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { Chrome, findChrome } from "./chrome.mjs";
import { Mock, finding, makeKeys } from "./mock.mjs";

const binary = findChrome();
const skip = binary ? false : "no Chromium is installed";
const HOUR = "from=1700000040000&to=1700003640000&refresh=off&zone=utc";
const TABS = ["heat", "top", "compare", "four", "nodes", "routes", "cluster", "journal"];

let chrome;
let mock;
let url;
let page;

const textOf = (selector) => page.run(`document.querySelector(${JSON.stringify(selector)}).innerText`);
const loaded = () => page.until("document.getElementById('link-pill').textContent === 'connected' && document.getElementById('plot').getAttribute('aria-busy') === 'false' && document.getElementById('findings').dataset.state === 'known'");
const drawn = () => page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))");
const clickOn = (within, label) => page.run(`[...document.querySelectorAll(${JSON.stringify(`${within} button`)})].find((each) => each.textContent.startsWith(${JSON.stringify(label)})).click()`);
const hashOf = async () => Object.fromEntries(new URLSearchParams((await page.run("location.hash")).slice(1)));
const rest = (ms) => new Promise((done) => setTimeout(done, ms));

async function open(hash = `#${HOUR}`, size) {
  await page?.close();
  page = await chrome.page(`${url}${hash}`, size);
  await loaded();
  await drawn();
}
const tab = async (name) => {
  await page.run(`document.getElementById("tab-${name}").click()`);
  await page.until(`!document.getElementById("page-${name}").hidden`);
};

describe("what the page answers", { skip, concurrency: false }, () => {
  before(async () => { chrome = await Chrome.launch(binary); });
  after(async () => { await chrome.close(); });
  beforeEach(async () => {
    mock = new Mock();
    url = await mock.listen();
  });
  afterEach(async () => {
    const faults = page?.faults ?? [];
    await page?.close();
    page = null;
    await mock.close();
    assert.deepEqual(faults, []);
  });

  test("the first screen names what is hottest with share, rate, beginning and node; at most eight controls are in sight", async () => {
    mock.mood.findings = [finding(), finding({ id: "2", kind: "one-key", key: "user/000201", start: "user/000201", end: null, rate: 120, share: 0.12, since_earliest_ms: null, remedies: [] })];
    await open();
    const said = await textOf("#findings");
    for (const part of [/hot range/, /order\/000076 – order\/000081/, /450 ops\/s, 45%/, /since 22:33:20/, /node 2/, /one key\s+user\/000201/, /all the window/, /hottest node 700 ops\/s → 520 ops\/s/]) assert.match(said, part);
    const controls = await page.run(`[...document.querySelectorAll("#controls button, #controls select, #controls input, #controls summary")]
      .filter((each) => each.checkVisibility() && each.getBoundingClientRect().width > 0 && (each.tagName === "SUMMARY" || !each.closest("details:not([open])"))).map((each) => each.name || each.id || each.tagName)`);
    assert.ok(controls.length <= 8, controls.join(" "));
    // Rates and their unit.
    assert.match(await textOf("#legend-text"), /^ops\/s in a row and 1 min, linear/);
    const asked = mock.asked.filter(({ name, parameters }) => name === "matrix" && parameters.boundaries && parameters.max_columns === "480");
    assert.deepEqual([...new Set(asked.map((each) => each.parameters.series))].sort(), ["reads", "writes"], "both, on the same rows");
    assert.equal(new Set(asked.map((each) => each.parameters.boundaries)).size, 1);
  });

  test("one click shows cause and remedy, two clicks act, and the outcome is shown", async () => {
    mock.mood.findings = [finding()];
    mock.mood.pilot = { mode: "advise", set: "advise", node: 1, reasons: ["group 1 is hot"], advice: [], nodes: [], imbalance: 1.4, revision: 3, policy: {} };
    await open();
    await clickOn("#findings", "Show");
    await page.until("!document.getElementById('drawer').hidden");
    const said = await textOf("#drawer");
    for (const part of [/hot range/, /45% of all operations/, /share of the operations: 0\.45 \(from 0\.08 on\)/, /Split at order\/000078/, /Certainty\s+90 %/]) assert.match(said, part);
    assert.match((await hashOf()).sel, /^\["finding","06b7fbcc8e169b85"\]$/);
    await clickOn("#findings", "Preview");
    await page.until("document.getElementById('remedy-dialog').open && !document.getElementById('remedy-do').hidden");
    assert.match(await textOf("#remedy-what"), /Node 1\s+700 ops\/s\s+380 ops\/s/);
    await page.run("document.getElementById('remedy-do').click(); document.getElementById('remedy-do').click()");
    await page.until("document.getElementById('remedy-said').textContent.startsWith('Done. Measured')");
    assert.match(await textOf("#remedy-what"), /before\s+measured/);
    const acts = mock.changed.filter(([name]) => name === "acts");
    assert.equal(acts.length, 1, "two quick clicks are one act");
    assert.deepEqual([acts[0][1].act, acts[0][1].at, acts[0][1].group, acts[0][1].finding, acts[0][1].expected_version], ["split-and-move", "order/000078", 2, "06b7fbcc8e169b85", 1]);
    assert.ok(acts[0][1].request_id.length > 8);
    await page.run("document.querySelector('#remedy-dialog [type=submit]').click()");
    await tab("journal");
    await page.until("/operator/.test(document.getElementById('journal').innerText)");
    assert.match(await textOf("#journal"), /Split and move\s+operator\s+hottest node 700 ops\/s → 520 ops\/s/);
    assert.match(await textOf("#pilot"), /Autopilot[^]*group 1 is hot/);
    await clickOn("#pilot", "act");
    await page.until("document.querySelector('#pilot [aria-pressed=true]').textContent === 'act'");
  });

  test("a refused remedy says why, and a node without acts tells the command", async () => {
    mock.mood.findings = [finding({ remedies: [{ act: "transfer-leader", words: "Transfer the leadership of group 2 to node 3", group: 2, node: 3, forecast: null }] })];
    await open();
    await clickOn("#findings", "Preview");
    await page.until("document.getElementById('remedy-said').textContent.includes('keyviz cluster transfer-leader 2 3')");
    assert.equal(await page.run("document.getElementById('remedy-do').hidden"), true);
    mock.mood.pilot = { mode: "off", reasons: [], revision: 1 };
    mock.mood.refuseAct = "a move is under way";
    await open();
    await clickOn("#findings", "Preview");
    await page.until("document.getElementById('remedy-said').textContent === 'It cannot be done now: a move is under way'");
    assert.equal(await page.run("document.getElementById('remedy-do').hidden"), true);
  });

  test("a node without findings shows no strip, and a busy one says so", async () => {
    mock.mood.findings = null;
    await open();
    assert.equal(await page.run("document.getElementById('findings').hidden"), true);
  });

  test("what is selected is in the link, on another page load too, and says when it is gone", async () => {
    mock.mood.findings = [finding()];
    await open(`#${HOUR}&height=equal`);
    const { x, y, width, height } = await page.run(`(() => { const b = document.getElementById("base"); const r = b.getBoundingClientRect(); const a = JSON.parse(b.dataset.area); return { x: r.x + a.left, y: r.y + a.top, width: a.width, height: a.height }; })()`);
    await page.click(x + width * 0.505, y + height * 0.302);
    await page.until("!document.getElementById('drawer').hidden");
    const [kind, t0, , start] = JSON.parse((await hashOf()).sel);
    assert.equal(kind, "cell");
    const hash = await page.run("location.hash");
    await open(hash);
    await page.until("!document.getElementById('drawer').hidden");
    assert.ok((await textOf("#drawer")).includes(start));
    assert.match(await textOf("#drawer"), /10 min before\s+\S+ ops\/s, now \S+ times as much/);
    await page.until("document.querySelectorAll('#drawer .lines .line').length === 4");
    // The finding of a link, and one that is not found any more.
    await open(`#${HOUR}&sel=${encodeURIComponent('["finding","06b7fbcc8e169b85"]')}`);
    await page.until("/hot range/.test(document.getElementById('drawer').innerText)");
    assert.ok(t0 > 0);
  });

  test("a comparison tells what grew, what appeared and what vanished, and is a link", async () => {
    mock.mood.oldest = 1_600_000_000_000;
    await open(`#${HOUR}&tab=compare&versus=1699996440000-1700000040000`);
    await page.until("document.querySelectorAll('#compare-charts canvas').length === 2 && document.querySelectorAll('#compare-rows tr').length > 5");
    assert.match(await textOf("#compare-line"), /2023-11-14 21:14:00Z and 2023-11-14 22:14:00Z, 1 h each/);
    assert.match(await textOf("#compare-rows"), /(session|order)\/\d+ – \S+\s+\S+ ops\/s\s+\S+ ops\/s\s+[+−]/);
    // Nothing is recorded of a day before.
    mock.mood.oldest = 1_700_000_000_000;
    await page.run("(() => { const f = document.querySelector('#compare-tools [name=versus]'); f.value = 'day'; f.dispatchEvent(new Event('input', { bubbles: true })); })()");
    await page.run("dispatchEvent(new Event('online'))");
    await page.until("/Nothing is recorded of the earlier window/.test(document.getElementById('compare-line').innerText)");
    assert.equal(await page.run("document.querySelectorAll('#compare-rows tr').length"), 0);
    assert.equal((await hashOf()).versus, undefined, "the default");
  });

  test("four series, nodes and groups, and top keys and ranges are there", async () => {
    await open();
    await tab("four");
    await page.until("document.querySelectorAll('#four-charts canvas').length === 4");
    assert.match(await textOf("#four-charts"), /Writes \S+ ops\/s on average[^]*Read bytes \S+ KiB\/s on average/);
    await tab("nodes");
    await page.until("document.querySelectorAll('#nodes-charts canvas').length === 6");
    assert.match(await textOf("#nodes-charts"), /Node 1 \S+ ops\/s, \d+ %, leads 1 of 3 groups, the most/);
    assert.match(await textOf("#nodes-charts"), /Group 2 \S+ ops\/s, \d+ %, led by node 2/);
    await tab("top");
    await page.until("document.querySelectorAll('#top-ranges tr').length === 20 && document.querySelectorAll('#top-keys tr').length === 2");
    assert.match(await textOf("#top-ranges"), /order\/0000\d\d – order\/0000\d\d\s+\d+ ops\/s\s+[\d.]+ %\s+node \d/);
    await page.run("document.querySelector('#top-ranges tr').click()");
    await page.until("location.hash.includes('start=order')");
  });

  test("an event in the line above leads to before and after", async () => {
    mock.mood.split = { at: 128, ms: 1_700_001_800_000 };
    mock.mood.oldest = 1_600_000_000_000;
    await open();
    const [x, y] = await page.run(`(() => { const b = document.getElementById("base"); const r = b.getBoundingClientRect(); const a = JSON.parse(b.dataset.area); return [r.x + a.left + a.width * (1700001800000 - 1700000040000) / 3600000, r.y + a.events / 2]; })()`);
    await page.click(x, y);
    await page.until("!document.getElementById('page-compare').hidden");
    const { from, versus } = await hashOf();
    assert.deepEqual([from, versus], ["1700001800000", "1700001200000-1700001800000"]);
    await tab("journal");
    await page.until("document.querySelectorAll('#journal tr').length > 0");
    assert.match(await textOf("#journal"), /route 129 split at/);
  });

  test("the line below is all that is known, and goes to a time of it", async () => {
    mock.mood.oldest = Date.now() - 4 * 3_600_000;
    await open("#refresh=off&last=1h&zone=utc");
    await page.until("!document.getElementById('minimap').hidden");
    assert.match(await textOf("#mini-text"), /^since \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ, 4(\.\d)? h, up to \S+ ops\/s$/);
    const [x, y, wide] = await page.run("(() => { const b = document.getElementById('mini').getBoundingClientRect(); return [b.x, b.y + b.height / 2, b.width]; })()");
    await page.click(x + wide * 0.4, y);
    await page.until("location.hash.includes('from=')");
    const { from, to } = await hashOf();
    assert.ok(Math.abs((Number(to) - Number(from)) / 3_600_000 - 1) < 0.05, "as long as before");
    const middle = (Number(from) + Number(to)) / 2;
    assert.ok(Math.abs(middle - (Date.now() - 0.6 * 4 * 3_600_000)) < 600_000);
  });

  test("ids of nodes beyond 2^53 are told in every place, and none of their digits is lost", async () => {
    mock.mood.largeIds = true;
    mock.mood.findings = [finding({ nodes: ["9007199254740993"] })];
    await open(`#${HOUR}&tab=nodes`);
    await page.until("/Node 9007199254740992/.test(document.getElementById('nodes-charts').innerText)");
    assert.match(await textOf("#findings"), /node 9007199254740993/);
  });

  test("a window is played again, column by column", async () => {
    await open();
    await page.run("document.getElementById('replay').click()");
    await page.until("!document.getElementById('player').hidden");
    await page.run("document.querySelector('[data-play=toggle]').click()");
    const first = await textOf("#played");
    assert.match(first, /^22:1\d:00 .*order\/0000\d\d.*ops\/s, [\d.]+ % of/);
    await page.run("document.querySelector('[data-play=step]').click()");
    assert.notEqual(await textOf("#played"), first);
    await page.run("document.querySelector('[data-play=end]').click()");
    assert.equal(await page.run("document.getElementById('player').hidden"), true);
  });

  test("lost quorum, no node, no sampler, no token and no data are each a different, true screen", async () => {
    const screens = new Map();
    const see = async (name, until) => {
      await page.until(until, 15_000);
      await drawn();
      for (const each of TABS) {
        await page.run(`document.getElementById("tab-${each}").click()`);
        assert.notEqual(await textOf("#link-pill"), name === "quorum" || name === "empty" ? "" : "connected", `${name} on ${each}`);
      }
      screens.set(name, `${await textOf("#banners")} ${await page.run("document.querySelector('#screen:not([hidden])')?.innerText ?? ''")}`);
    };
    mock.mood.noLeader = true;
    await open();
    await see("quorum", "document.getElementById('banners').innerText.includes('No quorum')");
    assert.match(screens.get("quorum"), /Group 2 has no leader: its keys can be neither read nor written/);
    mock.mood.noLeader = false;
    mock.mood.mode = "empty";
    await open();
    await see("empty", "document.getElementById('screen').dataset.kind === 'empty'");
    for (const [mode, until] of [["cut", "document.getElementById('screen').dataset.kind === 'lost'"], ["off", "document.getElementById('screen').dataset.kind === 'off'"]]) {
      await page.close();
      mock.mood.mode = "ok";
      page = await chrome.page();
      await page.open(url);
      await loaded();
      mock.mood.mode = mode;
      const fresh = await chrome.page();
      await page.close();
      page = fresh;
      if (mode === "cut") {
        // The page itself still comes; its questions do not arrive.
        await page.open(url);
      } else {
        await page.open(url);
      }
      await see(mode, until);
      assert.equal(await page.run("document.querySelectorAll('.pill.good').length"), 0, "nothing is green");
    }
    mock.mood.mode = "ok";
    mock.mood.token = "s3cret";
    await page.close();
    page = await chrome.page(url);
    await page.until("document.getElementById('token-dialog').open");
    screens.set("token", await textOf("#banners"));
    assert.equal(new Set(screens.values()).size, 5, JSON.stringify([...screens]));
  });

  test("after an outage every tab says how old it is", async () => {
    await open("#refresh=live");
    mock.mood.mode = "cut";
    await page.until("document.getElementById('banners').innerText.includes('Connection lost')");
    await page.until("!document.getElementById('age').hidden");
    for (const each of TABS) {
      await page.run(`document.getElementById("tab-${each}").click()`);
      await drawn();
      assert.match(await textOf("#age"), /^as of \d\d:\d\d:\d\d, \S+ \S+ ago$/, each);
    }
    mock.mood.mode = "ok";
    await page.run("dispatchEvent(new Event('online'))");
    await page.until("document.getElementById('age').hidden");
  });

  test("ten thousand findings, hostile ones and broken ones stay a strip", async () => {
    mock.mood.findings = [
      finding({ id: "h", summary: "<img src=x onerror=window.broken=1>", start: "<script>window.broken=2</script>", end: null, advice: "\u202egnp" }),
      {}, null, { kind: 7, share: "x", remedies: "none", facts: null, nodes: ["9007199254740993"] },
      ...Array.from({ length: 9_996 }, (_, at) => finding({ id: `f${at}` })),
    ];
    await open();
    assert.equal(await page.run("document.querySelectorAll('#findings li').length"), 3);
    assert.match(await textOf("#findings .foot"), /9997 more/);
    await clickOn("#findings", "9997 more");
    await page.until("document.querySelectorAll('#findings li').length === 32");
    assert.match(await textOf("#findings"), /node 9007199254740993/);
    await clickOn("#findings li:first-child", "Show");
    await page.until("!document.getElementById('drawer').hidden");
    assert.equal(await page.run("typeof window.broken"), "undefined");
    assert.equal(await page.run("document.querySelectorAll('img').length"), 0);
    assert.ok(await page.run("document.documentElement.scrollWidth <= innerWidth"));
  });

  test("a finding whose keys are gone is told all the same", async () => {
    mock.mood.findings = [finding({ start: "zzz/1", end: "zzz/2" })];
    await open(`#${HOUR}&start=order/&end=order0`);
    await clickOn("#findings", "Show");
    await page.until("/zzz\\/1/.test(document.getElementById('drawer').innerText)");
    mock.mood.findings = [];
    await open(`#${HOUR}&sel=${encodeURIComponent('["finding","06b7fbcc8e169b85"]')}`);
    assert.equal(await page.run("document.getElementById('drawer').hidden"), true);
  });

  test("a link of an earlier version, and nonsense in what is selected or compared, show the page", async () => {
    for (const hash of ["#series=writes&last=1h&refresh=5s&scale=log&brightness=0&palette=ember&zone=utc&beside=routes", `#${HOUR}&sel=%5B%22cell%22%5D&versus=9-&low=9&high=2`, `#${HOUR}&sel=${encodeURIComponent('["cell",5,1,"a",null]')}`, `#${HOUR}&sel=%7B&tab=four`]) {
      await open(hash);
      assert.deepEqual(page.faults, []);
    }
  });

  test("a phone shows findings first, then what is hottest, without scrolling sideways", async () => {
    mock.mood.findings = [finding()];
    await open(`#${HOUR}`, { width: 390, height: 844 });
    await page.until("document.querySelectorAll('#top-ranges tr').length > 0");
    const order = await page.run(`["#findings li", "#top-ranges tr", "#plot"].map((each) => document.querySelector(each).getBoundingClientRect().top)`);
    assert.deepEqual(order, [...order].sort((a, b) => a - b));
    for (const each of TABS) {
      await tab(each);
      await rest(200);
      assert.ok(await page.run("document.documentElement.scrollWidth <= innerWidth"), `${each} scrolls sideways`);
    }
  });

  test("live asks for the whole at most once a minute, with both series", async () => {
    mock.mood.keys = makeKeys(64);
    await open("#refresh=live&last=15m");
    await rest(500);
    const whole = () => mock.asked.filter(({ name, parameters }) => name === "matrix" && parameters.max_columns === "480").length;
    const before = whole();
    const sums = () => page.run("document.getElementById('totals').textContent");
    const shown = await sums();
    mock.mood.factor = 3;
    await page.until(`document.getElementById('totals').textContent !== ${JSON.stringify(shown)}`);
    await rest(2_000);
    assert.equal(whole(), before);
    assert.equal(mock.asked.filter((each) => each.name === "stream").length, 2, "a stream a series");
    // Columns of a long window are wider than those of the stream: they come with the next reload.
    await open("#refresh=live&last=7d");
    const long = whole();
    await rest(2_500);
    assert.equal(whole(), long);
    assert.equal(await page.run("document.getElementById('age').hidden"), true);
  });
});
