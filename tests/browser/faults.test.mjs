// What the page once got wrong, in a real browser: each test is a fault that somebody met.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { Chrome, findChrome } from "./chrome.mjs";
import { Mock, makeKeys } from "./mock.mjs";

const binary = findChrome();
const skip = binary ? false : "no Chromium is installed";
const HOUR = "from=1700000040000&to=1700003640000&refresh=off&series=writes&height=equal";

let chrome;
let mock;
let url;
let page;

const textOf = (selector) => page.run(`document.querySelector(${JSON.stringify(selector)}).innerText`);
const loaded = () => page.until("document.getElementById('link-pill').textContent === 'connected' && document.getElementById('plot').getAttribute('aria-busy') === 'false' && document.getElementById('findings').dataset.state === 'known'");
const drawn = () => page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))");
/** Has the rows planned anew: until then they stay, whatever the keys are. */
async function replan() {
  mock.mood.gain = 2;
  await refresh();
  await page.until("!document.getElementById('detail').hidden");
  await page.run("document.getElementById('detail').click()");
}
const refresh = () => page.run("dispatchEvent(new Event('online'))");

async function open(hash, size) {
  page = await chrome.page(`${url}${hash}`, size);
  await loaded();
  await drawn();
}

/** Where the plot lies on the page. */
const area = () => page.run(`(() => {
  const base = document.getElementById("base");
  const box = base.getBoundingClientRect();
  const { left, top, width, height } = JSON.parse(base.dataset.area);
  return { x: box.x + left, y: box.y + top, width, height };
})()`);

/** The same, once it has stayed where it is for some frames: a tab that is opened is laid out anew. */
async function settled() {
  await loaded();
  for (let before = ""; ;) {
    await drawn();
    const now = await area();
    if (now.width > 0 && JSON.stringify(now) === before) return now;
    before = JSON.stringify(now);
    await new Promise((done) => setTimeout(done, 200));
  }
}

describe("faults of the page", { skip, concurrency: false }, () => {
  before(async () => { chrome = await Chrome.launch(binary); });
  after(async () => { await chrome.close(); });
  beforeEach(async () => {
    mock = new Mock();
    url = await mock.listen();
  });
  afterEach(async () => {
    const { faults } = page;
    await page.close();
    await mock.close();
    assert.deepEqual(faults, []);
  });

  test("with all nodes gone the banner stands over every tab, and nobody is said to answer", async () => {
    await open("#refresh=live");
    mock.mood.mode = "cut";
    await page.until("document.getElementById('banners').innerText.includes('Connection lost')");
    for (const tab of ["cluster", "routes", "heat", "cluster"]) {
      await page.run(`document.getElementById('tab-${tab}').click()`);
      await drawn();
      assert.match(await textOf("#banners"), /Connection lost/, tab);
      assert.equal(await page.run("document.querySelectorAll('.pill.good').length"), 0, tab);
    }
    assert.equal(await page.run("document.querySelectorAll('#members td.good').length"), 0);
    assert.match(await textOf("#members"), /not known now; before: answers/);
    mock.mood.mode = "ok";
    await refresh();
    await loaded();
    assert.equal(await textOf("#banners"), "");
    assert.equal(await page.run("document.querySelectorAll('#members td.good').length"), 3);
  });

  test("the tooltip says what is under the pointer after rows moved", async () => {
    mock.mood.keys = makeKeys(32);
    await open(`#${HOUR}`);
    const { x, y, width, height } = await area();
    const [px, py] = [x + width * 0.41, y + height * 0.71];
    await page.mouse("mouseMoved", px, py);
    await page.until("!document.getElementById('tooltip').hidden");
    const before_ = await textOf("#tooltip");
    mock.mood.keys = makeKeys(20);
    await replan();
    await page.until("document.getElementById('totals').textContent.includes('20 rows')");
    await drawn();
    const followed = await textOf("#tooltip");
    assert.notEqual(followed, before_);
    await page.mouse("mouseMoved", px + 1, py);
    await drawn();
    assert.equal(await textOf("#tooltip"), followed, "as if the pointer had come there now");
  });

  test("a cell that the keys chose is followed to where it is", async () => {
    mock.mood.keys = makeKeys(32);
    await open(`#${HOUR}`);
    await page.run("document.getElementById('overlay').focus()");
    for (const key of ["ArrowLeft", "PageDown", "ArrowDown"]) await page.press(key);
    const key = /(\w+\/\d+) →/.exec(await textOf("#tooltip"))[1];
    mock.mood.keys = ["", ...mock.mood.keys.slice(5)];
    await replan();
    await page.until("document.getElementById('totals').textContent.includes('28 rows')");
    await drawn();
    assert.match(await textOf("#tooltip"), new RegExp(`${key} →`));
  });

  test("the drawer says that a pinned cell is divided otherwise, or gone", async () => {
    mock.mood.keys = makeKeys(32);
    await open(`#${HOUR}`);
    const { x, y, width, height } = await area();
    await page.click(x + width * 0.4, y + height * (9.5 / 32));
    await page.until("!document.getElementById('drawer').hidden");
    const [start] = mock.mood.keys.slice(9);
    assert.ok((await textOf("#drawer")).includes(start));
    assert.equal(await textOf("#drawer .note"), "");
    mock.mood.keys = mock.mood.keys.filter((_, at) => at !== 9);
    const asked = mock.asked.length;
    await refresh();
    await page.until("document.getElementById('plot').getAttribute('aria-busy') === 'true'");
    await loaded();
    assert.ok(mock.asked.slice(asked).some((each) => each.parameters.boundaries?.split(",").includes(start)));
    assert.equal(await textOf("#drawer .note"), "", "the rows stay while somebody looks");
    await replan();
    await page.until("document.querySelector('#drawer .note').innerText.includes('row is divided otherwise')");
    assert.ok((await textOf("#drawer")).includes(mock.mood.keys[8]), "the row that holds its first key");
    await page.run("location.hash = location.hash.replace('from=1700000040000', 'from=1700002800000')");
    await page.until("document.querySelector('#drawer .note').innerText.includes('no longer has this cell')");
  });

  test("a drag along the keys moves the range and keeps its size", async () => {
    mock.mood.fewRoutes = true;
    await open(`#${HOUR}&start=order/000080&end=order/000112`, { width: 1200, height: 900 });
    const { x, y, width, height } = await area();
    await page.drag(x + width * 0.5, y + height * 0.4, x + width * 0.5, y + height * 0.4 + 100, 0);
    await page.until("!location.hash.includes('start=order%2F000080')");
    await loaded();
    const said = new URLSearchParams((await page.run("location.hash")).slice(1));
    const [start, end] = [said.get("start"), said.get("end")];
    const moved = 32 * (100 / height);
    const number = (text) => Number(`0.${text.slice("order/".length)}`) * 1e6;
    assert.ok(Math.abs(number(start) - (80 - moved)) < 1.5, `${start}, moved by ${moved}`);
    assert.ok(Math.abs(number(end) - (112 - moved)) < 1.5, end);
  });

  test("a drag beyond the first key changes nothing", async () => {
    await open(`#${HOUR}`, { width: 1200, height: 900 });
    const { x, y, width, height } = await area();
    await page.drag(x + width * 0.5, y + height * 0.4, x + width * 0.5, y + height * 0.4 + 100, 0);
    await new Promise((done) => setTimeout(done, 500));
    assert.doesNotMatch(await page.run("location.hash"), /start=|end=/);
  });

  test("without a sampler routes and members are listed", async () => {
    mock.mood.mode = "off";
    page = await chrome.page(`${url}#tab=routes`);
    await page.until("document.querySelectorAll('#routes tr').length === 256");
    assert.match(await textOf("#banners"), /keyviz is disabled on this node/);
    await page.run("document.getElementById('tab-cluster').click()");
    await page.until("document.querySelectorAll('#members tr').length === 3");
  });

  test("the route of a cell is shown alone, whatever the keys look like", async () => {
    mock.mood.keys = ["", ...Array.from({ length: 31 }, (_, at) => String(at + 1))].sort();
    await open(`#${HOUR}`);
    const { x, y, width, height } = await area();
    await page.click(x + width * 0.4, y + height * (2.5 / 32));
    await page.until("!document.getElementById('drawer').hidden");
    await page.run("[...document.querySelectorAll('#drawer button')].find((b) => b.textContent === 'Show the route').click()");
    await page.until("!document.getElementById('page-routes').hidden");
    assert.deepEqual(await page.run("[...document.querySelectorAll('#routes tr')].map((each) => each.dataset.route)"), ["3"]);
  });

  test("a phone shows every member and every group", async () => {
    await open("#tab=cluster", { width: 360, height: 740 });
    await page.until("document.querySelectorAll('#members tr').length === 3");
    const cut = await page.run("[...document.querySelectorAll('#page-cluster .scroll')].map((box) => box.scrollHeight - box.clientHeight)");
    assert.ok(cut.every((hidden) => hidden <= 16), `no more than a scroll bar: ${cut}`);
    await page.run("document.querySelector('#groups tr:last-child').scrollIntoView()");
    assert.ok(await page.run("document.querySelector('#groups tr:last-child').getBoundingClientRect().bottom <= innerHeight"));
  });

  test("ids of nodes beyond 2^53 are shown with all their digits", async () => {
    mock.mood.largeIds = true;
    await open(`#${HOUR}&tab=cluster`);
    await page.until("document.querySelectorAll('#members tr').length === 3");
    assert.match(await textOf("#members"), /9007199254740993/);
    assert.match(await textOf("#groups"), /node 9007199254740991/);
    await page.run("document.getElementById('tab-heat').click()");
    const { x, y, width, height } = await settled();
    await page.click(x + width * 0.4, y + height * 0.3);
    await page.until("/Row counted by\\s+node 9007199254740991 75/.test(document.getElementById('drawer').innerText)");
  });

  test("copying works where the browser gives the page no clipboard", async () => {
    await open(`#${HOUR}`);
    await page.run("Object.defineProperty(navigator, 'clipboard', { value: undefined })");
    await page.run("document.getElementById('overlay').focus()");
    await page.run("document.addEventListener('copy', () => { window.copied = String(document.activeElement.value); })");
    await page.press("ArrowLeft");
    await page.press("PageDown");
    await page.press("c");
    await page.until("document.getElementById('spoken').textContent.startsWith('copied the key')");
    assert.match(await page.run("window.copied"), /^\w+\/\d{6}$/);
    assert.equal(await page.run("document.activeElement.id"), "overlay", "the focus is where it was");
  });

  test("served under a path of its own the page asks there", async () => {
    mock.mood.prefix = "/tools/keyviz";
    page = await chrome.page(`${url}tools/keyviz/#${HOUR}`);
    await loaded();
    assert.equal(await textOf("#nodes-pill"), "3 of 3 nodes");
  });
});
