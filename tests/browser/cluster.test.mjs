// The page of a real three-node cluster under a known load: what is drawn is what was done.
// `node --test tests/browser/`; needs the program (KEYVIZ_BIN, or what cargo built) and Chromium.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { Chrome, findChrome } from "./chrome.mjs";
import { Cluster, findKeyviz } from "./cluster.mjs";
import { STORY_SPLITS, playStory, takePictures } from "./images.mjs";

const browser = findChrome();
const binary = findKeyviz();
const skip = !browser ? "no Chromium is installed" : !binary ? "keyviz is not built: cargo build --release" : false;

const HOT = "order/7";
const SPLITS = ["order/", "order/5", "user/"];
const SECONDS = 6;
const HOSTILE = ["<img src=x onerror=\"window.broken=1\">", "\u202egnp.exe", `long/${"k".repeat(4_000)}`];

/** 600 writes in six seconds, two of three of them into one small range, and 90 reads of it. */
function knownLoad() {
  const operations = [];
  for (let at = 0; at < 600; at += 1) {
    const table = ["account", "order", "user"][at % 3];
    const key = at % 3 === 0 ? `${table}/${(at * 7) % 10}${at}` : `${HOT}${at % 10}${at % 7}`;
    operations.push([(at / 600) * SECONDS, "write", key]);
    if (at % 20 < 3) operations.push([(at / 600) * SECONDS, "read", `${HOT}11`]);
  }
  return operations;
}
const isHot = (key) => key.startsWith(HOT);

describe("the page of a real cluster", { skip, concurrency: false }, () => {
  let chrome;
  let cluster;
  let page;
  let began;
  let ended;
  let window_;

  const rest = (ms) => new Promise((done) => setTimeout(done, ms));
  const textOf = (selector) => page.run(`document.querySelector(${JSON.stringify(selector)}).innerText`);
  const loaded = () => page.until("document.getElementById('link-pill').textContent === 'connected' && document.getElementById('plot').getAttribute('aria-busy') === 'false' && document.getElementById('findings').dataset.state === 'known'", 20_000);
  const drawn = () => page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))");

  async function open(hash, id = 1, size) {
    await page?.close();
    page = await chrome.page(`${cluster.url(id)}${hash}`, size);
    await loaded();
    await drawn();
  }

  async function setField(name, value) {
    await page.run(`(() => {
      const field = document.getElementById("controls").elements[${JSON.stringify(name)}];
      if (field instanceof RadioNodeList) [...field].find((each) => each.value === ${JSON.stringify(value)}).click();
      else { field.value = ${JSON.stringify(value)}; field.dispatchEvent(new Event("input", { bubbles: true })); }
    })()`);
  }

  /** Where the cells lie in the page. */
  const area = () => page.run(`(() => {
    const base = document.getElementById("base");
    const box = base.getBoundingClientRect();
    const { left, top, width, height } = JSON.parse(base.dataset.area);
    return { x: box.x + left, y: box.y + top, width, height };
  })()`);

  /** Brightness read back from the canvas: one number a row of cells, the brightest of its columns. */
  async function brightness(rows) {
    const { x, y, width, height } = await area();
    return page.run(`(() => {
      const base = document.getElementById("base");
      const box = base.getBoundingClientRect();
      const ratio = base.width / box.width;
      const left = Math.round((${x} - box.x) * ratio);
      const wide = Math.round(${width} * ratio);
      const context = base.getContext("2d");
      return Array.from({ length: ${rows} }, (_, row) => {
        const down = Math.round((${y} - box.y + ${height} * (row + 0.5) / ${rows}) * ratio);
        const { data } = context.getImageData(left, down, wide, 1);
        let most = 0;
        for (let at = 0; at < data.length; at += 4) most = Math.max(most, data[at] + data[at + 1] + data[at + 2]);
        return most;
      });
    })()`);
  }

  const asPage = (more = {}) => ({ series: "writes", from_ms: began, to_ms: ended, max_rows: 256, max_columns: 480, ...more });

  before(async () => {
    chrome = await Chrome.launch(browser);
    cluster = await Cluster.start(binary, { splitAt: SPLITS });
    // One whole column without load first: what is before the nodes' start is not known.
    began = Math.ceil(Date.now() / 2_000) * 2_000 + 2_000;
    await rest(began + 2_500 - Date.now());
    const report = cluster.replay(knownLoad());
    assert.equal(report.writes_acked, 600, JSON.stringify(report));
    assert.equal(report.reads_ok, 90);
    ended = Math.ceil(Date.now() / 2_000) * 2_000;
    // Till the column in which the load ended is over.
    await rest(ended - Date.now() + 200);
    window_ = `from=${began}&to=${ended}&refresh=off&theme=dark&series=writes&height=equal`;
  });
  after(async () => {
    await page?.close();
    await chrome?.close();
    await cluster?.stop();
  });

  test("conservation the total on the page is the number of writes and reads that were acknowledged", async () => {
    await open(`#${window_}`);
    assert.equal(await textOf("#nodes-pill"), "3 of 3 nodes");
    assert.match(await textOf("#totals"), /^Total 600 ·\s*unattributed 0/);
    await setField("series", "reads");
    await page.until("document.getElementById('totals').textContent.startsWith('Total 90 ')");
    await setField("series", "write-bytes");
    const { total } = await cluster.ask(2, "matrix", asPage({ series: "write-bytes" }));
    await page.until(`document.getElementById('totals').textContent.includes('${total.toLocaleString("en-US")}')`);
  });

  test("the hot band is drawn where the load was, and nowhere else", async () => {
    await open(`#${window_}&scale=linear`);
    const { rows, columns, blocks } = await cluster.ask(1, "matrix", asPage());
    // What was counted for several rows together is painted as its mean a row.
    const painted = rows.map((row) => row.values.map(Number));
    for (const block of blocks.filter((each) => !each.straddling)) {
      for (let row = block.first_row; row < block.first_row + block.row_count; row += 1) {
        for (let column = block.column; column < block.column + block.column_count; column += 1) {
          painted[row][column] += block.value / (block.row_count * block.column_count);
        }
      }
    }
    const most = painted.map((row) => Math.max(...row));
    const bright = await brightness(rows.length);
    const brightest = bright.indexOf(Math.max(...bright));
    assert.ok(most[brightest] >= 0.95 * Math.max(...most), `row ${rows[brightest].start} has ${most[brightest]} of ${Math.max(...most)}`);
    // Rows are as fine as the load is dense, so a cold row may have more than each of the hot ones.
    const hot = rows.map((_, at) => at).filter((at) => rows[at].start < `${HOT}~` && (rows[at].end === null || rows[at].end > HOT));
    const hottest = hot.reduce((best, at) => (most[at] > most[best] ? at : best));
    assert.ok(bright[hottest] >= 120, `the hot row ${rows[hottest].start} is drawn ${bright[hottest]} bright`);
    rows.forEach((each, at) => {
      if (most[at] === 0) assert.ok(bright[at] < 120, `row ${each.start} counted nothing and is drawn ${bright[at]} bright`);
    });
    // In time too: nothing before the load began.
    const { x, y, width, height } = await area();
    const before = await page.run(`(() => {
      const base = document.getElementById("base");
      const box = base.getBoundingClientRect();
      const ratio = base.width / box.width;
      const { data } = base.getContext("2d").getImageData(Math.round((${x} - box.x + ${width} * 0.5 / ${columns.length}) * ratio),
        Math.round((${y} - box.y + ${height} * (${hottest} + 0.5) / ${rows.length}) * ratio), 1, 1);
      return data[0] + data[1] + data[2];
    })()`);
    assert.ok(before < 120, `before the load the hot row is ${before} bright`);
  });

  test("three clicks: the page, the brightest cell, and its route, group and leader", async () => {
    await open(`#${window_}`);
    const { rows, columns } = await cluster.ask(1, "matrix", asPage());
    const sums = rows.map((row) => row.values.reduce((sum, value) => sum + value, 0));
    const row = sums.indexOf(Math.max(...sums));
    const column = rows[row].values.indexOf(Math.max(...rows[row].values));
    const { x, y, width, height } = await area();
    await page.click(x + (width * (column + 0.5)) / columns.length, y + (height * (row + 0.5)) / rows.length);
    await page.until("!document.getElementById('drawer').hidden && !document.getElementById('drawer').innerText.includes('…')");
    const said = await textOf("#drawer");
    const { groups } = await cluster.ask(1, "cluster");
    const { leader } = groups.find((group) => group.group_id === rows[row].group_id);
    assert.match(said, new RegExp(`Routes\\s+route ${rows[row].route_ids[0]}\\b`));
    assert.match(said, new RegExp(`Group\\s+${rows[row].group_id}\\b`));
    assert.match(said, new RegExp(`Leader\\s+node ${leader}\\b`));
    const shares = await cluster.ask(1, "matrix", { ...asPage(), by_node: "true" });
    const most = shares.by_node.reduce((best, each) => (each.rows[row] > best.rows[row] ? each : best));
    assert.match(said, new RegExp(`Row counted by\\s+node ${most.id} \\d+ %`));
    assert.match(said, new RegExp(`Writes\\s+${rows[row].values[column]}\\b`));
  });

  test("ten seconds: the page, its brightest cell, and the name, the share and the beginning of its hottest key", async () => {
    const opened = Date.now();
    await open(`#${window_}`);
    const { rows, columns } = await cluster.ask(1, "matrix", asPage());
    const sums = rows.map((row) => row.values.reduce((sum, value) => sum + value, 0));
    const row = sums.indexOf(Math.max(...sums));
    const column = rows[row].values.indexOf(Math.max(...rows[row].values));
    const { x, y, width, height } = await area();
    await page.click(x + (width * (column + 0.5)) / columns.length, y + (height * (row + 0.5)) / rows.length);
    await page.until("document.querySelectorAll('#drawer .hot-keys li').length > 0");
    const took = Date.now() - opened;
    // What was written to that row in that column, by key.
    const cell = { start: rows[row].start, ...(rows[row].end === null ? {} : { end: rows[row].end }) };
    const [from_ms, to_ms] = [columns[column].start_ms, columns[column].end_ms];
    const { keys } = await cluster.ask(2, "hotkeys", { series: "writes", from_ms, to_ms, ...cell });
    const said = await textOf("#drawer .hot-keys li");
    assert.ok(keys.length > 0 && said.includes(keys[0].key), `${keys[0]?.key} in ${said}`);
    assert.match(said, new RegExp(`${keys[0].lower} writes, \\d+ %`));
    assert.match(said, /since \S+/);
    assert.ok(keys.reduce((sum, key) => sum + Number(key.lower), 0) <= rows[row].values[column]);
    assert.match(await textOf("#drawer"), /Every key with more than \d+ of \d+ writes is listed/);
    console.log(`from opening the page to the name of the hottest key: ${took} ms`);
    if (process.env.KEYVIZ_PICTURES) await page.screenshot(`${process.env.KEYVIZ_PICTURES}/hot-keys.png`);
  });

  test("a deep link restores the view on another node", async () => {
    const link = `#${window_.replace("series=writes", "series=reads")}&start=order%2F5&end=user%2F&rows=64&columns=240&scale=linear&palette=sea&zone=utc`;
    await open(link);
    const first = [await textOf("#totals"), await page.run("document.getElementById('base').toDataURL()")];
    const hash = await page.run("location.hash");
    await open(hash, 3);
    assert.deepEqual([await textOf("#totals"), await page.run("document.getElementById('base').toDataURL()")], first);
    assert.equal(await page.run("document.querySelector('[name=series]').value"), "reads");
  });

  test("the keyboard alone reaches the hottest cell, pins it, zooms in and comes back", async () => {
    await open(`#${window_}`);
    await page.run("document.activeElement.blur()");
    for (let at = 0; at < 60 && (await page.run("document.activeElement.id")) !== "overlay"; at += 1) await page.press("Tab");
    assert.equal(await page.run("document.activeElement.id"), "overlay");
    await page.press("ArrowDown");
    await page.until("document.getElementById('spoken').textContent.includes('Writes, from')");
    await page.press("Enter");
    await page.until("!document.getElementById('drawer').hidden");
    await page.press("Escape");
    await page.until("document.getElementById('drawer').hidden");
    const before = await page.run("location.hash");
    await page.press("+");
    await page.until(`location.hash !== ${JSON.stringify(before)}`);
    await loaded();
    await page.press("Backspace");
    await page.until(`location.hash === ${JSON.stringify(before)}`);
    await page.press("2");
    await page.until("document.getElementById('totals').textContent.startsWith('Total 90 ')");
  });

  test("a split is marked at its time and key, and the routes of then are shown on demand", async () => {
    const { routes } = await cluster.ask(1, "routes");
    const hot = routes.find((route) => route.start === "order/5");
    cluster.run("routes", "split", String(hot.route_id), "order/75");
    const now = Date.now() + 1_000;
    // A window that still fills would have other columns for the page than for the question below.
    await rest(4_000);
    await open(`#from=${began}&to=${now}&refresh=off&theme=dark&series=writes&height=equal`);
    const { rows, columns, events } = await cluster.ask(1, "matrix", asPage({ to_ms: now }));
    const split = events.find((event) => event.key === "order/75");
    assert.deepEqual([split.kind, split.retired], ["split", [hot.route_id]]);
    const at = rows.findIndex((row) => row.start === "order/75");
    assert.ok(at > 0, "the boundary is between two rows");
    const { x, y, width, height } = await area();
    const [from, to] = [columns[0].start_ms, columns.at(-1).end_ms];
    await page.mouse("mouseMoved", x + (width * (split.time_ms - from)) / (to - from), y + (height * at) / rows.length);
    await page.until("document.querySelector('#tooltip .event')");
    assert.match(await textOf("#tooltip .event"), new RegExp(`route ${hot.route_id} split at order/75`));
    await setField("axis", "then");
    await page.until("location.hash.includes('axis=then')");
    await loaded();
    const then = await cluster.ask(1, "matrix", asPage({ to_ms: now, axis: "then" }));
    assert.ok(!then.rows.some((row) => row.route_ids.some((id) => split.created.includes(id))), "then there were no children");
    await page.until(`document.getElementById('totals').textContent.includes('${then.rows.length} rows')`);
  });

  test("conservation the row of a moved route goes on under its id, and its move is marked", async () => {
    const { routes } = await cluster.ask(1, "routes");
    const route = routes.find((each) => each.start === "");
    const target = [1, 2, 3].find((group) => group !== Number(route.group_id));
    const start = Math.floor(Date.now() / 2_000) * 2_000;
    const writes = (seconds) => Array.from({ length: seconds * 50 }, (_, at) => [at / 50, "write", `account/${at % 10}`]);
    assert.equal(cluster.replay(writes(4)).writes_acked, 200);
    const moving = cluster.start("routes", "move", String(route.route_id), String(target));
    const ended_ = new Promise((done) => moving.once("exit", done));
    assert.equal(cluster.replay(writes(4)).writes_acked, 200);
    assert.equal(await ended_, 0);
    const now = Math.ceil(Date.now() / 2_000) * 2_000;
    await rest(now - Date.now() + 2_200);
    const asked = asPage({ from_ms: start, to_ms: now, end: "order/" });
    const { rows, columns, events, total, blocks } = await cluster.ask(2, "matrix", asked);
    const move = events.find((event) => event.kind === "move");
    assert.deepEqual([move.retired, Number(move.group_id)], [[route.route_id], target], JSON.stringify(move));
    assert.equal(Number(total), 400);
    for (const row of rows) assert.deepEqual(row.route_ids, [route.route_id], "one route, before and after");
    // No column between the first and the last with load is without: what was counted is in cells
    // or in blocks over them.
    const loads = columns.map((_, column) => rows.reduce((sum, row) => sum + Number(row.values[column]), 0)
      + blocks.filter((each) => column >= each.column && column < each.column + each.column_count).reduce((sum, each) => sum + Number(each.value), 0));
    const [first, last] = [loads.findIndex((load) => load > 0), loads.findLastIndex((load) => load > 0)];
    assert.ok(last - first >= 3 && loads.slice(first, last + 1).every((load) => load > 0), JSON.stringify(loads));

    await open(`#from=${start}&to=${now}&refresh=off&theme=dark&series=writes&height=equal&end=${encodeURIComponent("order/")}`);
    const { x, y, width } = await area();
    const [from, to] = [columns[0].start_ms, columns.at(-1).end_ms];
    await page.mouse("mouseMoved", x + (width * (move.time_ms - from)) / (to - from), y + 1);
    await page.until("document.querySelector('#tooltip .event')");
    assert.match(await textOf("#tooltip .event"), new RegExp(`route ${route.route_id} moved from group \\d to group ${target}`));
  });

  const images = process.env.KEYVIZ_IMAGES;
  test("pictures of the main views", { skip: images ? false : "KEYVIZ_IMAGES names no folder" }, async () => {
    const own = await Cluster.start(binary, { step: "1s", groups: 4, splitAt: STORY_SPLITS });
    try {
      await new Promise((done) => setTimeout(done, 3_000));
      const window_ = await playStory(own);
      const { routes } = await own.ask(1, "routes");
      const hot = routes.find((route) => route.start === "order/0450").route_id;
      await takePictures(chrome, own.url(1), window_, hot, images, Boolean(process.env.KEYVIZ_IMAGES_ALL));
    } finally {
      await own.stop();
    }
  });

  test("live: a new column slides in without another question, and the split button splits", async () => {
    await open("#last=15m&refresh=live&theme=dark&series=writes&height=equal");
    await page.run("window.asked = 0; performance.clearResourceTimings()");
    const columns = async () => Number(/× ([\d,]+) columns/.exec(await textOf("#totals"))[1].replace(",", ""));
    const before = await columns();
    const TOTAL = "((text) => Number((/Total [^(·]*\\(([\\d,]+)\\)/.exec(text) ?? /Total ([\\d,]+)/.exec(text))[1].replaceAll(',', '')))(document.getElementById('totals').textContent)";
    const counted = await page.run(TOTAL);
    cluster.replay(Array.from({ length: 50 }, (_, at) => [0, "write", `account/${at}`]), "max");
    await page.until(`${TOTAL} === ${counted + 50}`, 10_000);
    assert.ok(await columns() >= before);
    assert.ok(page.requests.some((each) => each.includes("/api/v1/stream")), "the columns came by the stream");

    await page.run("document.getElementById('tab-routes').click()");
    await page.until("document.querySelectorAll('#routes .acts button').length > 0");
    const { routes } = await cluster.ask(1, "routes");
    const hot = routes.find((route) => route.start === "order/75");
    await page.run(`document.querySelector('#routes tr[data-route="${hot.route_id}"] .acts button').click()`);
    await page.until("document.getElementById('change-dialog').open");
    await page.run("(() => { const k = document.getElementById('change-key'); k.value = 'order/77'; k.dispatchEvent(new Event('input', { bubbles: true })); })()");
    await page.until("/Left half[^]*order\\/77[^]*Right half/.test(document.getElementById('change-halves').innerText)");
    await page.run("document.getElementById('change-do').click()");
    await page.until("!document.getElementById('change-dialog').open");
    const after = await cluster.ask(1, "routes");
    assert.ok(after.routes.some((route) => route.start === "order/77" && route.parents.includes(hot.route_id)));
  });

  test("a token is asked for and lets in, and a wrong one is refused", async () => {
    const guarded = await Cluster.start(binary, { token: "correct-horse-battery-staple" });
    try {
      await page?.close();
      page = await chrome.page(guarded.url(1));
      const give = (token) => page.run(`document.getElementById("token").value = ${JSON.stringify(token)}; document.querySelector("#token-dialog button").click()`);
      await page.until("document.getElementById('token-dialog').open", 20_000);
      await give("wrong");
      await page.until("document.getElementById('token-dialog').open", 20_000);
      await give("correct-horse-battery-staple");
      await loaded();
      assert.equal(await textOf("#nodes-pill"), "3 of 3 nodes");
      assert.ok(!(await page.run("JSON.stringify({ ...localStorage, ...sessionStorage }) + document.cookie + location.href")).includes("horse"));
    } finally {
      await guarded.stop();
    }
  });

  test("hostile keys are inert on every page", async () => {
    const { routes } = await cluster.ask(1, "routes");
    for (const key of HOSTILE) {
      const bytes = Buffer.from(key);
      const { routes: all } = await cluster.ask(1, "routes");
      const holder = all.findLast((route) => Buffer.compare(Buffer.from(route.start.startsWith("hex:") ? route.start.slice(4) : route.start, route.start.startsWith("hex:") ? "hex" : "utf8"), bytes) <= 0);
      cluster.run("routes", "split", String(holder.route_id), `hex:${bytes.toString("hex")}`);
    }
    cluster.replay(HOSTILE.filter((key) => key.length < 100).map((key) => [0, "write", key]), "max");
    await open(`#last=15m&refresh=off&theme=dark&series=writes&height=equal`);
    const { x, y, width, height } = await area();
    for (let row = 0; row < 40; row += 1) await page.click(x + width * 0.4, y + height * ((row + 0.5) / 40));
    for (const tab of ["routes", "cluster", "heat"]) {
      await page.run(`document.getElementById("tab-${tab}").click()`);
      await page.until(`!document.getElementById("page-${tab}").hidden`);
      if (tab === "routes") await page.until(`document.querySelectorAll("#routes tr").length === ${routes.length + HOSTILE.length}`);
      assert.ok(await page.run("document.documentElement.scrollWidth <= innerWidth"), `a key widened the ${tab} page`);
    }
    assert.equal(await page.run("document.querySelectorAll('img').length"), 0);
    assert.equal(await page.run("typeof window.broken"), "undefined");
    assert.deepEqual(page.faults, []);
  });

  test("honest_partiality a killed node raises the banner, its past stays, and what came after is hatched", async () => {
    await open(`#${window_.replace(/to=\d+&refresh=off/, "refresh=5s")}`, 1);
    const hatched = () => page.run("!document.querySelector('[data-hatch=partial]').parentElement.hidden");
    assert.equal(await hatched(), false);
    const before = await cluster.ask(1, "matrix", asPage());
    await cluster.kill(3);
    await page.until("document.getElementById('nodes-pill').textContent === '2 of 3 nodes'", 20_000);
    await page.until("!document.querySelector('[data-hatch=partial]').parentElement.hidden", 20_000);
    await drawn();
    assert.match(await textOf("#banners"), new RegExp(`Node 3 is missing\\s*${cluster.grpc[3]}: \\S`));
    // Holders of copies answer for the time before.
    const after = await cluster.ask(1, "matrix", asPage());
    assert.deepEqual([after.total, after.rows.some((row) => row.partial?.length > 0)], [before.total, false]);
    await open(`#${window_}`, 1);
    assert.equal(await hatched(), false, "the window ended before the node was killed");
    await open(`#${window_.replace(/to=\d+&refresh=off/, "refresh=5s")}`, 1);
    cluster.boot(3);
    await cluster.ready(3);
    await page.until("document.getElementById('nodes-pill').textContent === '3 of 3 nodes'", 30_000);
    assert.equal(await textOf("#banners"), "");
  });

  test("a lost connection says so and comes back without a reload", async () => {
    await open(`#${window_.replace("off", "5s")}`, 2);
    await page.run("window.same = true");
    await cluster.kill(2);
    await page.until("document.getElementById('banners').innerText.includes('Connection lost')", 20_000);
    cluster.boot(2);
    await cluster.ready(2);
    await page.until("document.getElementById('banners').innerText === '' && document.getElementById('link-pill').textContent === 'connected'", 30_000);
    assert.equal(await page.run("window.same"), true);
  });
});
