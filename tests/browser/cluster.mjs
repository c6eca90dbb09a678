// A real cluster of three processes on this machine, for the browser suite.

import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const TARGET = process.env.CARGO_TARGET_DIR ?? path.join(ROOT, "target");

/** The program under test: KEYVIZ_BIN, else the newest kind that was built; `undefined` without one. */
export const findKeyviz = () => [process.env.KEYVIZ_BIN, path.join(TARGET, "release/keyviz"), path.join(TARGET, "debug/keyviz")]
  .find((each) => each && existsSync(each));

/** Ports that were free a moment ago, all different. */
async function freePorts(count) {
  const servers = await Promise.all(Array.from({ length: count }, () => new Promise((done, fail) => {
    const server = createServer().once("error", fail).listen(0, "127.0.0.1", () => done(server));
  })));
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((done) => server.close(done))));
  return ports;
}

/** A port from which the nodes of a demo find theirs free: gRPC there, HTTP a hundred above. */
export async function freeBase(nodes = 3) {
  for (let tries = 0; tries < 200; tries += 1) {
    const base = 20_000 + Math.floor(Math.random() * 20_000);
    const ports = Array.from({ length: nodes }, (_, at) => [base + at, base + 100 + at]).flat();
    const free = await Promise.all(ports.map((port) => new Promise((done) => {
      const server = createServer().once("error", () => done(false)).listen(port, "127.0.0.1", () => server.close(() => done(true)));
    })));
    if (free.every(Boolean)) return base;
  }
  throw new Error("no free ports for a demo");
}

export class Cluster {
  /** Starts three nodes and waits until each says that it is ready. */
  static async start(binary, { step = "2s", splitAt = [], groups = 3, token = "", more = [] } = {}) {
    const cluster = new Cluster(binary, await freePorts(6), ["--keyviz-step", step, "--groups", String(groups), ...(splitAt.length > 0 ? ["--split-at", splitAt.join(",")] : []), ...more]);
    if (token) {
      const file = path.join(cluster.folder, "token");
      writeFileSync(file, `${token}\n`, { mode: 0o600 });
      cluster.flags.push("--admin-token-file", file);
    }
    for (const id of [1, 2, 3]) cluster.boot(id);
    try {
      for (const id of [1, 2, 3]) await cluster.ready(id);
    } catch (error) {
      await cluster.stop();
      throw error;
    }
    return cluster;
  }

  constructor(binary, ports, flags) {
    this.binary = binary;
    this.flags = flags;
    this.folder = mkdtempSync(path.join(tmpdir(), "keyviz-cluster-"));
    this.grpc = Object.fromEntries([1, 2, 3].map((id) => [id, `127.0.0.1:${ports[id - 1]}`]));
    this.http = Object.fromEntries([1, 2, 3].map((id) => [id, `127.0.0.1:${ports[id + 2]}`]));
    this.nodes = {};
    this.said = { 1: "", 2: "", 3: "" };
  }

  url(id) {
    return `http://${this.http[id]}/`;
  }

  boot(id) {
    const members = Object.entries(this.grpc).map(([member, address]) => `${member}=${address}`).join(",");
    const child = spawn(this.binary, [
      "serve", "--id", String(id), "--listen", this.grpc[id], "--http", this.http[id],
      "--data", path.join(this.folder, String(id)), "--bootstrap", members, "--log", "warn", ...this.flags,
    ], { stdio: ["ignore", "ignore", "pipe"] });
    child.stderr.on("data", (chunk) => { this.said[id] = (this.said[id] + chunk).slice(-4_000); });
    this.nodes[id] = child;
  }

  async ready(id) {
    const end = Date.now() + 60_000;
    for (;;) {
      const ready = await fetch(`${this.url(id)}readyz`).then((answer) => answer.ok, () => false);
      if (ready) return;
      if (Date.now() > end) throw new Error(`node ${id} is not ready: ${this.said[id]}`);
      await new Promise((done) => setTimeout(done, 50));
    }
  }

  /** Kills a node as a power cut would, and waits until it is gone. */
  kill(id) {
    return this.end(id, "SIGKILL");
  }

  async end(id, signal) {
    const child = this.nodes[id];
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((done) => child.once("exit", done));
    child.kill(signal);
    await gone;
  }

  /** Runs a command against the cluster; what it printed. Fails with what it said. */
  run(...args) {
    const done = spawnSync(this.binary, [...args, "--node", Object.values(this.grpc).join(",")], { encoding: "utf8" });
    if (done.status !== 0) throw new Error(`keyviz ${args.join(" ")}: ${done.stderr}`);
    return done.stdout;
  }

  /** The same in the background. */
  start(...args) {
    return spawn(this.binary, [...args, "--node", Object.values(this.grpc).join(",")], { stdio: "ignore" });
  }

  /** Replays operations `[t_s, op, key]` through the `load` command, and checks that all were done. */
  replay(operations, speed = "1") {
    const file = path.join(this.folder, "trace.csv");
    const quoted = (key) => (/[",\n]/.test(key) ? `"${key.replaceAll('"', '""')}"` : key);
    const lines = operations.map(([at, op, key]) => `${at.toFixed(3)},${op},${quoted(key)},32`);
    writeFileSync(file, `t_s,op,key,value_bytes\n${lines.join("\n")}\n`);
    return JSON.parse(this.run("load", "--trace", file, "--speed", speed, "--format", "json"));
  }

  async ask(id, call, parameters = {}) {
    const answer = await fetch(`${this.url(id)}api/v1/${call}?${new URLSearchParams(parameters)}`);
    if (!answer.ok) throw new Error(`${call}: ${answer.status} ${await answer.text()}`);
    return answer.json();
  }

  async stop() {
    await Promise.all([1, 2, 3].map((id) => this.end(id, "SIGKILL")));
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }
}
