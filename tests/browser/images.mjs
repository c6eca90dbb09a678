// Pictures of the main views of a running node, as README shows them. The suite against a real cluster
// makes them (`KEYVIZ_IMAGES=docs/images node --test tests/browser/`).

import { mkdirSync } from "node:fs";
import path from "node:path";

const VIEWS = [
  { name: "heatmap-dark", hash: "#theme=dark&last=15m", pin: true },
  { name: "heatmap-light", hash: "#theme=light&last=15m&palette=sea" },
  { name: "heatmap-phone", hash: "#theme=dark&last=15m", size: { width: 390, height: 844, scale: 2 } },
  { name: "routes", hash: "#theme=dark&tab=routes&last=15m" },
  { name: "split", hash: "#theme=light&tab=routes&last=15m", act: "document.querySelector('#routes .acts button').click()" },
  { name: "heatmap-4k", hash: "#theme=dark&last=15m", size: { width: 3840, height: 2160 } },
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

/** Takes them all, into `folder`. */
export async function takePictures(chrome, url, folder) {
  mkdirSync(folder, { recursive: true });
  for (const { name, hash, size, pin, act } of VIEWS) {
    const page = await chrome.page(new URL(`${hash}&refresh=off`, url).href, size);
    await page.until("document.getElementById('link-pill').textContent === 'connected' && document.getElementById('plot').getAttribute('aria-busy') === 'false'", 20_000);
    await new Promise((done) => setTimeout(done, 500));
    if (pin) {
      const [x, y] = await page.run(HOTTEST);
      await page.click(x, y);
      await page.until("!document.getElementById('drawer').hidden && !document.getElementById('drawer').innerText.includes('…')");
    }
    if (act) {
      await page.run(act);
      await page.until("document.getElementById('change-dialog').open && document.getElementById('change-halves').innerText.includes('half')");
    }
    await page.screenshot(path.join(folder, `${name}.png`));
    await page.close();
  }
}
