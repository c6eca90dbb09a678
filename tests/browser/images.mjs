// Pictures of the main views of a running cluster, as README shows them. The suite against a real
// cluster makes them (`KEYVIZ_IMAGES=docs/images node --test tests/browser/`).

import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";

const TABLES = ["account", "order", "session", "user"];
const KEYS = 1_000;
const SECONDS = 100;
const RATE = 500;

/** Where the routes of the story begin: four a table. */
export const STORY_SPLITS = TABLES.flatMap((table) => [`${table}/`, ...[250, 500, 750].map((at) => `${table}/0${at}`)]);

/**
 * A load that makes a picture: all tables a little, orders 420 to 480 hot all the time, and a hot spot
 * that wanders through the sessions. Lines of a trace.
 */
function story() {
  let seed = 7;
  const random = (below) => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed % below;
  };
  const name = (table, at) => `${table}/${String(at % KEYS).padStart(4, "0")}`;
  const lines = ["t_s,op,key,value_bytes"];
  for (let at = 0; at < SECONDS * RATE; at += 1) {
    const time = at / RATE;
    const dice = random(100);
    const wander = Math.round((time / SECONDS) * KEYS * 0.9);
    const key = dice < 35 ? name("order", 420 + random(60))
      : dice < 60 ? name("session", wander + random(40))
      : name(TABLES[random(4)], random(KEYS));
    lines.push(`${time.toFixed(3)},${random(4) === 0 ? "read" : "write"},${key},${64 + random(64)}`);
  }
  return `${lines.join("\n")}\n`;
}

/** Plays the story on a cluster, with two splits of the hot route in it. Its window in Unix ms. */
export async function playStory(cluster) {
  const file = path.join(cluster.folder, "story.csv");
  writeFileSync(file, story());
  const rest = (ms) => new Promise((done) => setTimeout(done, ms));
  const from = Date.now();
  const load = cluster.start("load", "--trace", file, "--speed", "1", "--clients", "16");
  const over = new Promise((done) => load.once("exit", done));
  for (const [wait, key] of [[45_000, "order/0450"], [25_000, "order/0470"]]) {
    await rest(wait);
    const { routes } = await cluster.ask(1, "routes");
    cluster.run("routes", "split", String(routes.findLast((route) => route.start <= key).route_id), key);
  }
  await over;
  return { from, to: Date.now() };
}

/** Opens the split dialog of the hot route, and types a key. */
const SPLIT = `
  document.querySelector('#routes tr[data-route="$HOT"] .acts button').click();
  document.getElementById("change-key").value = "order/0460";
  document.getElementById("change-key").dispatchEvent(new Event("input", { bubbles: true }));
`;

/** Selects the first finding, where there is one. */
const SHOW = "(document.querySelector('#findings li .acts button') ?? document.getElementById('hot')).click()";

const VIEWS = [
  { name: "heatmap-dark", hash: "#theme=dark", act: SHOW, wait: "!document.getElementById('drawer').hidden" },
  { name: "heatmap-light", hash: "#theme=light&palette=sea&beside=routes&series=reads", size: { width: 1280, height: 700 } },
  { name: "heatmap-phone", hash: "#theme=dark", size: { width: 390, height: 844, scale: 1.5 } },
  { name: "routes", hash: "#theme=dark&tab=routes", size: { width: 1100, height: 620 }, act: "document.querySelector('#route-tools [name=sort]').value = 'load'; document.querySelector('#route-tools [name=sort]').dispatchEvent(new Event('input', { bubbles: true }))" },
  { name: "split", hash: "#theme=light&tab=routes", size: { width: 1000, height: 520 }, extra: true, act: SPLIT, wait: "document.getElementById('change-halves').innerText.includes('Right half')" },
  { name: "cluster", hash: "#theme=dark&tab=cluster", size: { width: 1100, height: 520 } },
  ...["top", "compare", "four", "nodes", "journal"].flatMap((tab) => [["dark", 1280, 800], ["light", 1920, 1080], ["dark", 390, 844]].map(([theme, width, height]) => ({
    name: `${tab}-${width}-${theme}`, hash: `#theme=${theme}&tab=${tab}&versus=before`, size: { width, height }, extra: true,
  }))),
  { name: "heatmap-1920-light", hash: "#theme=light", size: { width: 1920, height: 1080 }, extra: true },
  { name: "heatmap-4k", hash: "#theme=dark", size: { width: 3840, height: 2160 }, extra: true },
];

/** The middle of the brightest cell of the picture, in page coordinates. */
export const HOTTEST = `(() => {
  const base = document.getElementById("base");
  const box = base.getBoundingClientRect();
  const ratio = base.width / box.width;
  const { data, width } = base.getContext("2d").getImageData(0, 0, base.width, base.height);
  let best = [-1, box.width / 2, box.height / 2];
  const { left, top, width: wide, height: high } = JSON.parse(base.dataset.area);
  for (let y = (top + 2) * ratio; y < (top + high) * ratio; y += 3) {
    for (let x = (left + 2) * ratio; x < (left + wide) * ratio; x += 3) {
      const at = 4 * (Math.floor(y) * width + Math.floor(x));
      const bright = data[at] + data[at + 1] + data[at + 2];
      if (bright > best[0]) best = [bright, x / ratio, y / ratio];
    }
  }
  return [box.x + best[1], box.y + best[2]];
})()`;

export const LOADED = "document.getElementById('link-pill').textContent === 'connected' && document.getElementById('plot').getAttribute('aria-busy') === 'false' && document.getElementById('findings').dataset.state === 'known'";

/** Takes them all, into `folder`; those that README does not show only where `all` is set. */
export async function takePictures(chrome, url, { from, to }, hot, folder, all = false) {
  mkdirSync(folder, { recursive: true });
  for (const { name, hash, size, pin, act, wait, extra } of VIEWS) {
    if (extra && !all) continue;
    const page = await chrome.page(new URL(`${hash}&from=${from}&to=${to}&rows=128&zone=utc&refresh=off`, url).href, size);
    await page.until(LOADED, 20_000);
    // Until the strips of nodes are known too.
    await new Promise((done) => setTimeout(done, 2_500));
    if (pin) {
      const [x, y] = await page.run(HOTTEST);
      await page.click(x, y);
      await page.until("!document.getElementById('drawer').hidden && !document.getElementById('drawer').innerText.includes('…')");
    }
    if (act) await page.run(act.replace("$HOT", String(hot)));
    if (wait) await page.until(wait, 20_000);
    await page.screenshot(path.join(folder, `${name}.png`));
    await page.close();
  }
}
