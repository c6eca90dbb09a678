// The page's types, its size, and what axe finds on every tab. `npm ci --prefix tests/browser` brings
// axe and the compiler; without them this is skipped and says so.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { Chrome, findChrome } from "./chrome.mjs";
import { Mock, finding } from "./mock.mjs";

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const WEB = here("../../web/");
const TSC = here("node_modules/typescript/bin/tsc");
const AXE = here("node_modules/axe-core/axe.min.js");
const missing = "npm ci --prefix tests/browser was not run";
const TABS = ["heat", "top", "compare", "four", "nodes", "routes", "cluster", "journal"];

test("the types of the page fit", { skip: existsSync(TSC) ? false : missing }, () => {
  const done = spawnSync(process.execPath, [TSC, "-p", here(".")], { encoding: "utf8" });
  assert.equal(done.stdout, "");
  assert.equal(done.status, 0);
});

test("the page has at most 180 KiB compressed", () => {
  const kib = readdirSync(WEB).reduce((sum, name) => sum + gzipSync(readFileSync(WEB + name)).length, 0) / 1_024;
  console.log(`the page is ${kib.toFixed(1)} KiB compressed`);
  assert.ok(kib <= 180);
});

describe("axe", { skip: !findChrome() ? "no Chromium is installed" : existsSync(AXE) ? false : missing, concurrency: false }, () => {
  let chrome;
  let mock;
  let url;
  before(async () => {
    chrome = await Chrome.launch(findChrome());
    mock = new Mock();
    mock.mood.findings = [finding()];
    mock.mood.pilot = { mode: "advise", reasons: ["group 1 is hot"], revision: 1 };
    mock.mood.split = { at: 128, ms: 1_700_001_800_000 };
    mock.mood.oldest = 1_600_000_000_000;
    url = await mock.listen();
  });
  after(async () => {
    await chrome?.close();
    await mock?.close();
  });

  for (const theme of ["dark", "light"]) {
    test(`no violation on any tab, with a selection and a dialog, in ${theme}`, async () => {
      const page = await chrome.page(`${url}#from=1700000040000&to=1700003640000&refresh=off&zone=utc&versus=before&theme=${theme}&sel=${encodeURIComponent('["finding","06b7fbcc8e169b85"]')}`);
      await page.until("document.getElementById('findings').dataset.state === 'known' && document.getElementById('link-pill').textContent === 'connected'");
      await page.run(readFileSync(AXE, "utf8"));
      const check = async (what) => {
        await new Promise((done) => setTimeout(done, 400));
        const found = await page.run("axe.run().then(({ violations }) => violations.map((each) => `${each.id}: ${each.nodes.slice(0, 4).map((node) => node.target).join(' ')}`))");
        assert.deepEqual(found, [], what);
      };
      for (const tab of TABS) {
        await page.run(`document.getElementById("tab-${tab}").click()`);
        await check(tab);
      }
      await page.run("document.getElementById('tab-heat').click(); [...document.querySelectorAll('#findings button')].find((each) => each.textContent === 'Preview').click()");
      await check("remedy");
      await page.run("document.getElementById('remedy-dialog').close(); document.querySelector('.more').open = true");
      await check("settings");
      await page.close();
    });
  }
});
