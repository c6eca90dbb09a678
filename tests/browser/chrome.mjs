// Drives a headless Chromium through its debugging pipe: no driver package, nothing to download.

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

const CANDIDATES = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/** The browser's path, or `undefined` where none is installed. */
export const findChrome = () => CANDIDATES.find((each) => each && existsSync(each));

export class Chrome {
  static async launch(binary) {
    const profile = mkdtempSync(path.join(tmpdir(), "keyviz-browser-"));
    const child = spawn(binary, [
      "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--mute-audio",
      "--no-first-run", "--remote-debugging-pipe", "--js-flags=--expose-gc", `--user-data-dir=${profile}`, "about:blank",
    ], { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
    const chrome = new Chrome(child, profile);
    await chrome.send("Target.setDiscoverTargets", { discover: false });
    return chrome;
  }

  constructor(child, profile) {
    this.child = child;
    this.profile = profile;
    this.next = 1;
    this.waiting = new Map();
    this.listeners = new Map();
    let rest = "";
    child.stdio[4].setEncoding("utf8");
    child.stdio[4].on("data", (chunk) => {
      const parts = (rest + chunk).split("\0");
      rest = parts.pop();
      for (const part of parts) this.receive(JSON.parse(part));
    });
  }

  receive(message) {
    if (message.id) {
      const { done, fail } = this.waiting.get(message.id);
      this.waiting.delete(message.id);
      if (message.error) fail(new Error(message.error.message));
      else done(message.result);
    } else {
      this.listeners.get(message.sessionId)?.(message.method, message.params);
    }
  }

  send(method, params = {}, sessionId) {
    const id = this.next;
    this.next += 1;
    return new Promise((done, fail) => {
      this.waiting.set(id, { done, fail });
      this.child.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    });
  }

  async page(url, { width = 1280, height = 800, scale = 1 } = {}) {
    const { browserContextId } = await this.send("Target.createBrowserContext");
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank", browserContextId });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const page = new Page(this, sessionId, targetId);
    await page.start(width, height, scale);
    if (url) await page.open(url);
    return page;
  }

  async close() {
    const gone = new Promise((done) => this.child.once("exit", done));
    await Promise.race([this.send("Browser.close").catch(() => {}), gone]);
    await gone;
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

const KEY_CODES = { Enter: 13, Escape: 27, Backspace: 8, Home: 36, Tab: 9, ArrowLeft: 37, ArrowUp: 38, ArrowRight: 39, ArrowDown: 40, PageUp: 33, PageDown: 34 };

class Page {
  constructor(chrome, session, target) {
    this.chrome = chrome;
    this.session = session;
    this.target = target;
    this.faults = [];
    this.requests = [];
    this.received = 0;
    chrome.listeners.set(session, (method, params) => this.hear(method, params));
  }

  send(method, params) {
    return this.chrome.send(method, params, this.session);
  }

  hear(method, params) {
    if (method === "Runtime.exceptionThrown") this.faults.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    if (method === "Log.entryAdded" && params.entry.source === "security") this.faults.push(params.entry.text);
    if (method === "Network.requestWillBeSent") this.requests.push(params.request.url);
    if (method === "Network.loadingFinished") this.received += params.encodedDataLength;
  }

  async start(width, height, deviceScaleFactor) {
    for (const domain of ["Page", "Runtime", "Log", "Network", "Performance"]) await this.send(`${domain}.enable`);
    await this.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor, mobile: false });
  }

  async open(url) {
    await this.send("Page.navigate", { url });
    await this.until("document.readyState === 'complete'");
  }

  async run(expression) {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  async until(expression, ms = 8_000) {
    const end = Date.now() + ms;
    for (;;) {
      const value = await this.run(expression).catch(() => false);
      if (value) return value;
      if (Date.now() > end) throw new Error(`waited ${ms} ms for: ${expression}`);
      await new Promise((done) => setTimeout(done, 20));
    }
  }

  mouse(type, x, y, more = {}) {
    return this.send("Input.dispatchMouseEvent", { type, x, y, button: "none", ...more });
  }

  async click(x, y) {
    await this.mouse("mouseMoved", x, y);
    await this.mouse("mousePressed", x, y, { button: "left", clickCount: 1 });
    await this.mouse("mouseReleased", x, y, { button: "left", clickCount: 1 });
  }

  async drag(x0, y0, x1, y1, modifiers = 0) {
    await this.mouse("mouseMoved", x0, y0, { modifiers });
    await this.mouse("mousePressed", x0, y0, { button: "left", clickCount: 1, modifiers });
    for (let step = 1; step <= 5; step += 1) {
      await this.mouse("mouseMoved", x0 + ((x1 - x0) * step) / 5, y0 + ((y1 - y0) * step) / 5, { button: "left", modifiers });
    }
    await this.mouse("mouseReleased", x1, y1, { button: "left", clickCount: 1, modifiers });
  }

  async press(key, modifiers = 0) {
    const text = key.length === 1 ? key : undefined;
    const common = { key, modifiers, windowsVirtualKeyCode: KEY_CODES[key] ?? key.toUpperCase().charCodeAt(0) };
    await this.send("Input.dispatchKeyEvent", { type: "keyDown", text, ...common });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", ...common });
  }

  async screenshot(file) {
    const { data } = await this.send("Page.captureScreenshot", { format: "png" });
    writeFileSync(file, Buffer.from(data, "base64"));
  }

  async heapBytes() {
    await this.send("HeapProfiler.collectGarbage");
    const { metrics } = await this.send("Performance.getMetrics");
    return metrics.find((each) => each.name === "JSHeapUsedSize").value;
  }

  async close() {
    this.chrome.listeners.delete(this.session);
    await this.chrome.send("Target.closeTarget", { targetId: this.target });
  }
}
