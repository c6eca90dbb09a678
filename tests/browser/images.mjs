// Pictures of the main views of a running node: `node tests/browser/images.mjs URL FOLDER`, for
// example of a `keyviz demo` under load. They are what the README shows.

import { mkdirSync } from "node:fs";
import path from "node:path";
import { Chrome, findChrome } from "./chrome.mjs";

const [url, folder] = process.argv.slice(2);
const binary = findChrome();
if (!url || !folder || !binary) {
  process.stderr.write(binary ? "usage: images.mjs URL FOLDER\n" : "no Chromium is installed\n");
  process.exit(2);
}
mkdirSync(folder, { recursive: true });

const VIEWS = [
  { name: "heatmap-dark", hash: "#theme=dark&last=15m", pin: true },
  { name: "heatmap-light", hash: "#theme=light&last=15m&palette=sea" },
  { name: "heatmap-phone", hash: "#theme=dark&last=15m", size: { width: 390, height: 844, scale: 2 } },
  { name: "routes", hash: "#theme=dark&tab=routes&last=15m" },
  { name: "cluster", hash: "#theme=dark&tab=cluster&last=15m" },
];

/** The middle of the brightest cell of the picture, in page coordinates. */
const HOTTEST = `(() => {
  const base = document.getElementById("base");
  const box = base.getBoundingClientRect();
  const ratio = base.width / box.width;
  const { data, width } = base.getContext("2d").getImageData(0, 0, base.width, base.height);
  let best = [-1, box.width / 2, box.height / 2];
  for (let y = 44 * ratio; y < base.height - 28 * ratio; y += 3) {
    for (let x = 215 * ratio; x < base.width - 60 * ratio; x += 3) {
      const at = 4 * (Math.floor(y) * width + Math.floor(x));
      const bright = data[at] + data[at + 1] + data[at + 2];
      if (bright > best[0]) best = [bright, x / ratio, y / ratio];
    }
  }
  return [box.x + best[1], box.y + best[2]];
})()`;

const chrome = await Chrome.launch(binary);
try {
  for (const { name, hash, size, pin } of VIEWS) {
    const page = await chrome.page(new URL(hash, url).href, size);
    await page.until("document.getElementById('plot').getAttribute('aria-busy') === 'false'", 20_000);
    await new Promise((done) => setTimeout(done, 500));
    if (pin) {
      const [x, y] = await page.run(HOTTEST);
      await page.click(x, y);
      await new Promise((done) => setTimeout(done, 1_000));
    }
    const file = path.join(folder, `${name}.png`);
    await page.screenshot(file);
    process.stdout.write(`${file}\n`);
    await page.close();
  }
} finally {
  await chrome.close();
}
