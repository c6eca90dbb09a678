// Five loads whose cause is known, on a real cluster: the first screen names what is hottest with its
// share, its rate, since when and on which node; one click shows cause and remedy. Prints the times.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { Chrome, findChrome } from "./chrome.mjs";
import { Cluster, findKeyviz } from "./cluster.mjs";

const browser = findChrome();
const binary = findKeyviz();
const skip = !browser ? "no Chromium is installed" : !binary ? "keyviz is not built: cargo build --release" : false;
const RATE = 240;
/** How long a load runs, and after how much of it the page is opened. */
const SECONDS = 45;
const OPENED = 22;
const SPLITS = Array.from({ length: 15 }, (_, at) => `item/${String((at + 1) * 625).padStart(5, "0")}`);

const item = (number) => `item/${String(Math.floor(number) % 10_000).padStart(5, "0")}`;

/** Lines of a trace: `pick(time, at, random)` says the operation and the key. */
function trace(pick) {
  let seed = 11;
  const random = (below) => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed % below;
  };
  const lines = ["t_s,op,key,value_bytes"];
  for (let at = 0; at < SECONDS * RATE; at += 1) {
    const time = at / RATE;
    const [op, key] = pick(time, at, random);
    lines.push(`${time.toFixed(3)},${op},${key},64`);
  }
  return `${lines.join("\n")}\n`;
}

const even = (random) => [random(2) === 0 ? "read" : "write", item(random(10_000))];
const PLACES = [900, 7_900, 3_700, 9_300, 5_600];

const LOADS = {
  "one key": { kind: "one key", where: /item\/07000/, share: [30, 65],
    pick: (_, at, random) => (at % 2 === 0 ? [at % 4 === 0 ? "read" : "write", "item/07000"] : even(random)) },
  "append": { kind: "sequential writes", where: /item\/0\d{4}/, share: [25, 65],
    pick: (time, at, random) => (at % 2 === 0 ? ["write", item(400 + time * 200)] : even(random)) },
  "moving spot": { kind: "moving spot", where: /item\/|all keys/, share: [25, 70],
    pick: (time, at, random) => (at % 2 === 0 ? ["write", item(PLACES[Math.floor(time / 5.3) % 5] + random(40))] : even(random)) },
  "scan": { kind: "scan", where: /item\/|all keys/, share: [25, 65],
    pick: (time, at, random) => (at % 2 === 0 ? ["read", item(400 + time * 200)] : even(random)) },
  "uneven leaders": { kind: "uneven leaders", where: /node \d/, share: null, leaders: true, pick: (_, __, random) => even(random) },
};

describe("five loads", { skip, concurrency: false }, () => {
  let chrome;
  before(async () => { chrome = await Chrome.launch(browser); });
  after(async () => { await chrome?.close(); });

  for (const [name, { kind, where, share, leaders, pick }] of Object.entries(LOADS)) {
    test(`${name} is named on the first screen, with cause and remedy a click away`, async () => {
      const cluster = await Cluster.start(binary, { step: "1s", groups: 4, splitAt: SPLITS });
      let page;
      let load;
      try {
        if (leaders) {
          for (const group of [1, 2, 3, 4]) {
            const { groups } = await cluster.ask(1, "cluster");
            if (groups.find((each) => each.group_id === group).leader !== 2) cluster.run("cluster", "transfer-leader", String(group), "2");
          }
        }
        const file = path.join(cluster.folder, "known.csv");
        writeFileSync(file, trace(pick));
        load = cluster.start("load", "--trace", file, "--speed", "1", "--clients", "24");
        const over = new Promise((done) => load.once("exit", done));
        await new Promise((done) => setTimeout(done, OPENED * 1_000));
        const opened = Date.now();
        page = await chrome.page(`${cluster.url(1)}#theme=dark&zone=utc`);
        await page.until(`[...document.querySelectorAll("#findings li b")].some((each) => each.textContent === ${JSON.stringify(kind)})`, 40_000)
          .catch(async (error) => { throw new Error(`${error.message}; the strip says: ${await page.run("document.getElementById('findings').innerText")}`); });
        const named = Date.now() - opened;
        const line = await page.run(`[...document.querySelectorAll("#findings li")].find((each) => each.querySelector("b").textContent === ${JSON.stringify(kind)}).innerText`);
        assert.match(line, where);
        assert.match(line, /since \d\d:\d\d:\d\d|all the window/);
        assert.match(line, /node \d/);
        if (share) {
          const [, rate, percent] = /([\d.k]+) ops\/s, (\d+)%/.exec(line);
          assert.ok(Number(percent) >= share[0] && Number(percent) <= share[1], line);
          assert.ok(parseFloat(rate) > 0);
        }
        await page.run(`[...document.querySelectorAll("#findings li")].find((each) => each.querySelector("b").textContent === ${JSON.stringify(kind)}).querySelector(".acts button").click()`);
        await page.until("!document.getElementById('drawer').hidden");
        assert.match(await page.run("document.getElementById('drawer').innerText"), /Why it is said[^]+What helps[^]+\S/);
        console.log(`${name}: named ${named} ms after the page was opened: ${line.replaceAll("\n", " ").slice(0, 160)}`);
        if (process.env.KEYVIZ_PICTURES) await page.screenshot(`${process.env.KEYVIZ_PICTURES}/${name.replace(" ", "-")}.png`);
        load.kill("SIGINT");
        await over;
      } finally {
        // A test that failed before leaves no load that waits for nodes that are gone.
        load?.kill("SIGKILL");
        await page?.close();
        await cluster.stop();
      }
    });
  }
});
