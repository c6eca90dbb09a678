// What stands out, as the cluster found it: asked beside the picture, shown as a strip above every
// other answer. Where a node knows no findings, the strip is not there.

import { ApiError, ask } from "./api.js";
import { bars, button, element } from "./element.js";
import { clock, percent, rate, span } from "./format.js";
import { elide, endOf, isOneKey, plainBound, showKey, showStart } from "./keys.js";

const KINDS = {
  "one-key": "one key",
  "hot-range": "hot range",
  "sequential-append": "sequential writes",
  "moving-spot": "moving spot",
  "scan": "scan",
  "uneven-leaders": "uneven leaders",
  "uneven-groups": "uneven groups",
  "read-heavy": "reads of few keys",
  "large-values": "large values",
  "conflicts": "conflicts",
  "periodic-burst": "burst at intervals",
  "sudden-change": "sudden change",
  "cold-splits": "cold routes",
};
/** Findings that are not about the keys that they name. */
const OF_NODES = new Set(["uneven-leaders"]);
/** Findings are asked for at most so often: one question is answered at a time on a node. */
const EVERY_MS = 10_000;
const SHOWN = 3;
const MOST = 32;

const list = (value) => (Array.isArray(value) ? value : []);
const number = (value) => (Number.isFinite(Number(value)) ? Number(value) : 0);
const text = (value) => (typeof value === "string" ? value : "");

/** A finding of an answer, whatever is missing in it. */
export function readFinding(json) {
  return {
    id: text(json?.id),
    kind: text(json?.kind),
    start: text(json?.start),
    end: typeof json?.end === "string" ? json.end : null,
    key: typeof json?.key === "string" ? json.key : null,
    groups: list(json?.groups),
    nodes: list(json?.nodes).map(String),
    share: number(json?.share),
    rate: number(json?.rate),
    since: number(json?.since_ms),
    earliest: json?.since_earliest_ms == null ? null : number(json.since_earliest_ms),
    resolved: json?.resolved_ms == null ? null : number(json.resolved_ms),
    confidence: number(json?.confidence),
    summary: text(json?.summary),
    advice: text(json?.advice),
    facts: list(json?.facts),
    sparkline: list(json?.sparkline).map(number),
    remedies: list(json?.remedies),
  };
}

export const kindText = (finding) => KINDS[finding.kind] ?? finding.kind;

/** What a finding is about, in few words. */
export function whereText(finding, most = 44) {
  if (finding.key !== null) return elide(showKey(finding.key), most);
  if (OF_NODES.has(finding.kind)) return "";
  if (isOneKey(finding)) return elide(showStart(finding.start), most);
  const half = Math.floor(most / 2) - 2;
  if (finding.start === "" && finding.end === null) return "all keys";
  const start = plainBound(showStart(finding.start), ">");
  return `${elide(start, half)} – ${elide(plainBound(endOf(finding), "≤"), half)}`;
}

/** Since when: "since 14:41:48", or that it may be older than the window. */
export function sinceText(finding, zone) {
  if (finding.resolved !== null)
    return `${clock(finding.since, zone)} to ${clock(finding.resolved, zone)}`;
  return finding.earliest === null ? `all the window` : `since ${clock(finding.since, zone)}`;
}

/** Who serves it. */
export function whoText({ nodes, groups }) {
  const told = [];
  if (nodes.length > 0) told.push(`node ${nodes.slice(0, 3).join(", ")}`);
  if (groups.length > 0) told.push(`group ${groups.slice(0, 3).join(", ")}`);
  return told.join(" · ");
}

/** What helps, in few words. */
export function helpText(finding) {
  if (finding.remedies.length > 0) {
    const forecast = finding.remedies[0].forecast ?? {};
    const [before, after] = [number(forecast.hottest_before), number(forecast.hottest_after)];
    const cooler = before > after ? `: hottest node ${rate(before)} → ${rate(after)}` : "";
    return `${text(finding.remedies[0].words)}${cooler}`;
  }
  return finding.advice;
}

export class Findings {
  /**
   * `does`: window(matrix) what to ask for, zone(), show(finding), preview(finding, remedy),
   * changed() after an answer.
   */
  constructor(place, does) {
    this.place = place;
    this.does = does;
    this.name = "";
    this.askedMs = -Infinity;
    this.all = [];
    this.resolved = [];
    this.omitted = 0;
    this.silent = 0;
    /** `null`: not asked yet; `false`: no node of this cluster knows them. */
    this.able = null;
    this.said = "";
    this.selected = "";
    this.more = false;
    this.controller = null;
    this.draw();
  }

  find(id) {
    return [...this.all, ...this.resolved].find((each) => each.id === id) ?? null;
  }

  /** Asks again where the window or the keys are others, or where some time has passed. */
  async follow(parameters, name) {
    if (this.able === false) return;
    const now = performance.now();
    if (this.controller && name === this.name) return;
    if (name === this.name && now - this.askedMs < EVERY_MS) return;
    this.controller?.abort();
    const controller = new AbortController();
    Object.assign(this, { name, askedMs: now, controller });
    try {
      const asked = { ...parameters, max_findings: MOST };
      this.read(await ask("findings", asked, controller.signal));
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error instanceof ApiError && error.status === 404) this.able = false;
      // A busy node says so; the next refresh asks again.
      this.said = error instanceof ApiError ? error.message : "The node does not answer.";
    } finally {
      if (this.controller === controller) this.controller = null;
    }
    if (!controller.signal.aborted) {
      this.draw();
      this.does.changed();
    }
  }

  read(json) {
    this.able = true;
    this.said = "";
    this.all = list(json?.findings).map(readFinding);
    this.resolved = list(json?.resolved).map(readFinding);
    this.omitted = number(json?.omitted);
    this.silent = list(json?.silent).length;
    this.partial = number(json?.partial_columns);
    this.rate = number(json?.rate);
  }

  draw() {
    const { place } = this;
    if (this.able === false) {
      place.dataset.state = "known";
      place.hidden = true;
      return;
    }
    const kept = place.contains(document.activeElement)
      ? [...place.querySelectorAll("button")].indexOf(document.activeElement) : -1;
    const shown = this.more ? this.all : this.all.slice(0, SHOWN);
    const rows = shown.map((finding, at) => this.line(finding, at + 1));
    const rest = this.all.length - shown.length + this.omitted;
    const foot = [];
    if (rest > 0 && !this.more) foot.push(button(`${rest} more`, () => this.open(true)));
    if (this.more) foot.push(button("Fewer", () => this.open(false)));
    if (this.more && this.omitted > 0)
      foot.push(element("span", { class: "dim" }, `${this.omitted} more are not listed`));
    for (const finding of this.resolved.slice(0, 2)) foot.push(this.ended(finding));
    if (this.silent > 0)
      foot.push(element("span", { class: "dim" },
        `without ${this.silent} silent ${this.silent === 1 ? "node" : "nodes"}`));
    if (this.said !== "") foot.push(element("span", { class: "dim" }, `Findings: ${this.said}`));
    if (this.all.length === 0 && this.able) {
      foot.unshift(element("span", { class: "calm" }, `Nothing stands out at ${rate(this.rate)}.`));
    }
    place.dataset.state = this.able === null && this.said === "" ? "asking" : "known";
    if (place.dataset.state === "asking")
      foot.push(element("span", { class: "dim" }, "Looking for what stands out…"));
    place.hidden = false;
    place.replaceChildren(
      element("h2", {}, "Findings"),
      rows.length > 0 ? element("ol", {}, ...rows) : "",
      foot.length > 0 ? element("p", { class: "foot" }, ...foot) : "",
    );
    if (kept >= 0) place.querySelectorAll("button")[kept]?.focus({ preventScroll: true });
  }

  open(more) {
    this.more = more;
    this.draw();
  }

  line(finding, rank) {
    const zone = this.does.zone();
    const remedy = finding.remedies[0];
    return element(
      "li",
      { "data-finding": finding.id, class: finding.id === this.selected ? "linked" : "" },
      element("span", { class: "rank", "aria-hidden": "true" }, String(rank)),
      element(
        "span",
        { class: "what" },
        element("b", {}, kindText(finding)),
        element("span", { class: "key", title: finding.summary }, whereText(finding)),
      ),
      element(
        "span",
        { class: "much" },
        finding.rate > 0
          ? `${rate(finding.rate)}, ${percent(finding.share, 1).replace(" ", "")}` : "",
      ),
      element("span", { class: "since" }, sinceText(finding, zone)),
      element("span", { class: "who" }, whoText(finding)),
      element("span", { class: "help dim", title: finding.advice }, helpText(finding)),
      element(
        "span",
        { class: "acts" },
        button("Show", () => this.does.show(finding)),
        remedy ? button("Preview", () => this.does.preview(finding, remedy), {
          title: text(remedy.words),
        }) : null,
      ),
    );
  }

  ended(finding) {
    const words = `ended: ${kindText(finding)} ${whereText(finding, 30)}, `;
    const when = sinceText(finding, this.does.zone());
    return button(words + when, () => this.does.show(finding), { class: "quiet" });
  }

  mark(id) {
    this.selected = id;
    for (const line of this.place.querySelectorAll("li"))
      line.classList.toggle("linked", line.dataset.finding === id);
  }
}

/** What a finding says, for the panel of what is selected. */
export function findingParts(finding, zone) {
  const fact = ({ name, value, level }) => {
    const said = Number(number(value).toPrecision(3));
    const from = level == null ? "" : ` (from ${Number(number(level).toPrecision(3))} on)`;
    return element("li", {}, `${name}: ${said}${from}`);
  };
  const most = Math.max(0, ...finding.sparkline);
  const age = finding.resolved === null ? Date.now() - finding.since : 0;
  return [
    element("p", {}, finding.summary),
    bars(finding.sparkline, most, `${kindText(finding)} over the window, up to ${rate(most)}`),
    element(
      "dl",
      {},
      element("dt", {}, "Rate"), element("dd", {}, rate(finding.rate)),
      element("dt", {}, "Share"), element("dd", {}, percent(finding.share, 1)),
      element("dt", {}, "When"),
      element("dd", {}, sinceText(finding, zone) + (age > 0 && finding.earliest !== null
        ? ` (${span(Math.floor(age / 1_000) * 1_000)})` : "")),
      element("dt", {}, "Served by"), element("dd", {}, whoText(finding) || "not known"),
      element("dt", {}, "Certainty"), element("dd", {}, percent(finding.confidence, 1)),
    ),
    element("h3", {}, "Why it is said"),
    element("ul", { class: "facts" }, ...finding.facts.map(fact)),
    element("h3", {}, "What helps"),
    element("p", {}, finding.advice),
  ];
}
