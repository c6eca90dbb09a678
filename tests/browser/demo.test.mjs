// README's path of a new user: from `keyviz demo` to the hottest range, with its route and node, in
// three clicks.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { after, before, describe, test } from "node:test";
import { Chrome, findChrome } from "./chrome.mjs";
import { findKeyviz, freeBase } from "./cluster.mjs";
import { HOTTEST, LOADED } from "./images.mjs";

const browser = findChrome();
const binary = findKeyviz();
const skip = !browser ? "no Chromium is installed" : !binary ? "keyviz is not built: cargo build --release" : false;

describe("the page of the demo", { skip, concurrency: false }, () => {
  let chrome;
  let demo;
  let url;

  before(async () => {
    chrome = await Chrome.launch(browser);
    const port = await freeBase();
    demo = spawn(binary, ["demo", "--port", String(port)], { stdio: "ignore" });
    url = `http://127.0.0.1:${port + 100}/`;
    const ask = (call) => fetch(`${url}api/v1/${call}`).then((answer) => answer.json());
    const end = Date.now() + 60_000;
    for (;;) {
      // Until the workload is in a few closed columns.
      const matrix = await ask("matrix").catch(() => null);
      if (matrix?.total > 2_000 && matrix.columns.length > 4) break;
      if (Date.now() > end) throw new Error("the demo counted nothing");
      await new Promise((done) => setTimeout(done, 200));
    }
  });
  after(async () => {
    await chrome?.close();
    if (!demo || demo.exitCode !== null) return;
    const gone = new Promise((done) => demo.once("exit", done));
    demo.kill("SIGINT");
    await gone;
  });

  test("three clicks: the page, the brightest cell, its line in the table of routes", async () => {
    // One: the address that the demo names; in dark, where hot is bright.
    const page = await chrome.page(`${url}#theme=dark`);
    await page.until(LOADED, 20_000);
    await page.until("/Total [1-9]/.test(document.getElementById('totals').textContent)", 20_000);
    await page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))");
    // Two: the brightest cell. The drawer names its route, its group and the node that leads it.
    const [x, y] = await page.run(HOTTEST);
    await page.click(x, y);
    await page.until("!document.getElementById('drawer').hidden");
    const said = await page.run("document.getElementById('drawer').innerText");
    const route = Number(/Routes\s+route (\d+)/.exec(said)?.[1]);
    assert.match(said, /Leader\s+node \d/);
    // Three: its line in the table.
    await page.run("[...document.querySelectorAll('#drawer button')].find((each) => each.textContent === 'Show the route').click()");
    await page.until(`!document.getElementById('page-routes').hidden && document.querySelector('#routes tr[data-route="${route}"]')`);
    // It is the hottest, by the API's own counts.
    const matrix = await fetch(`${url}api/v1/matrix?max_rows=1024`).then((answer) => answer.json());
    const sums = new Map();
    for (const row of matrix.rows) {
      const sum = row.values.reduce((all, value) => all + value, 0);
      for (const id of row.route_ids) sums.set(id, (sums.get(id) ?? 0) + sum / row.route_count);
    }
    const hottest = [...sums].sort(([, a], [, b]) => b - a)[0][0];
    assert.equal(route, hottest);
    await page.close();
  });
});
