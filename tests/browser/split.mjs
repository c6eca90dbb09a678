// The picture of a hot range that is split in two while a load runs: three real nodes, and a page that shows
// the time before and after with the change marked.
//
//   KEYVIZ_BIN=target/release/keyviz node tests/browser/split.mjs docs/images/split-under-load.png

import process from "node:process";

import { Chrome, findChrome } from "./chrome.mjs";
import { Cluster, findKeyviz } from "./cluster.mjs";

const [, , file] = process.argv;
const [binary, browser] = [findKeyviz(), findChrome()];
if (!file || !binary || !browser) {
  console.error("usage: node tests/browser/split.mjs FILE.png; needs a built keyviz and Chromium");
  process.exit(2);
}

const seconds = (count) => new Promise((done) => setTimeout(done, count * 1_000));
const key = (number) => `key/${String(number).padStart(8, "0")}`;

// The hot spot is keys 6,000 to 6,099, which is one route. As many slots as routes: no route is
// resolved finer, so what the picture shows of its halves before the split is an estimate.
const splitAt = [1_500, 3_000, 4_500, 6_000, 6_100, 7_500, 9_000].map(key);
const cluster = await Cluster.start(binary, { splitAt, groups: 3, more: ["--keyviz-resolution-slots", "9"] });
try {
  const load = cluster.start("load", "--pattern", "hotspot", "--keys", "10000", "--clients", "8", "--read-ratio", "0.5",
    "--duration", "92s", "--seed", "3");
  await seconds(45);
  const { routes } = await cluster.ask(1, "routes");
  const hot = routes.find((route) => route.start === key(6_000));
  console.log(cluster.run("routes", "split", String(hot.route_id), key(6_025)));
  await new Promise((done) => load.once("exit", done));
  const chrome = await Chrome.launch(browser);
  const page = await chrome.page(`${cluster.url(1)}#theme=dark&last=5m&refresh=off`, { width: 1280, height: 720, scale: 1 });
  await page.until("document.getElementById('link-pill').textContent === 'connected' && document.getElementById('plot').getAttribute('aria-busy') === 'false'", 20_000);
  await seconds(1);
  await page.screenshot(file);
  await chrome.close();
  console.log(cluster.run("heat", "--last", "2m", "--columns", "60", "--rows", "16"));
} finally {
  await cluster.stop();
}
