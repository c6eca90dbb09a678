// The one owner of how the page stands with its node: whether it answers, how old is what is shown,
// and what went wrong. Every tab shows the same, because the header and the banners show it.

import { ApiError, Unreachable, serverNow } from "./api.js";
import { at, element } from "./element.js";
import { clock, span } from "./format.js";
import { BadAnswer } from "./bad.js";

/** What is shown is told to be old from this age on, beyond the time between two answers. */
const OLD_MS = 12_000;

export class Connection {
  /** `does`: token(message) asks for one; `zone()` and `everyMs()` say what is usual. */
  constructor(does) {
    this.does = does;
    this.kind = "busy";
    /** `[kind, title, text, button]` over all other banners; `null`: the last answer was one. */
    this.fault = null;
    this.problems = [];
    this.answeredMs = null;
    this.nodes = null;
    // What is usual is known once the page is set up.
    setInterval(() => this.tellAge(), 1_000);
  }

  /** No node answers: what is shown is from before. */
  get lost() {
    return this.kind === "lost";
  }

  /** Something of what is shown may be out of date. */
  get stale() {
    return this.fault !== null;
  }

  asking() {
    if (this.kind !== "good") this.pill("busy", "asking…");
  }

  answered(what) {
    this.kind = "good";
    this.fault = null;
    this.answeredMs = serverNow();
    this.pill("good", "connected", what);
    this.tell();
  }

  /** A stream brought something: what is shown is of now. */
  heard() {
    this.answeredMs = serverNow();
    this.tellAge();
  }

  /** What the last answer said beside its cells. */
  say(matrix, problems) {
    this.nodes = { responded: matrix.responded, expected: matrix.expected };
    this.problems = problems;
    this.tell();
  }

  /** Returns the kind of failure: `lost`, `token`, `refused` or `failed`. */
  failed(error) {
    if (error instanceof Unreachable) {
      const text = "Trying again; what is shown is from before.";
      this.fall("lost", "connection lost", ["bad", "Connection lost", text]);
    } else if (error instanceof ApiError && isTokenWanted(error)) {
      const button = ["Enter a token", () => this.does.token(error.message)];
      this.fall("token", "token needed", ["bad", "Token needed", error.message, button]);
    } else if (error instanceof ApiError || error instanceof BadAnswer) {
      const code = error instanceof ApiError ? error.code : "BAD ANSWER";
      this.fall("refused", code, ["bad", code, error.message]);
    } else {
      this.fall("failed", "the page failed", ["bad", "The page failed", error.message]);
    }
    return this.kind;
  }

  fall(kind, pill, fault) {
    this.kind = kind;
    this.fault = fault;
    this.pill("bad", pill);
    this.tell();
  }

  pill(kind, text, title = text) {
    const pill = at("link-pill");
    pill.className = `pill ${kind}`;
    pill.title = title;
    if (pill.textContent !== text) pill.textContent = text;
  }

  tell() {
    this.tellNodes();
    this.tellAge();
    const list = this.fault ? [this.fault, ...this.problems] : this.problems;
    const seen = list.map((each) => each.slice(0, 3).join("\n")).join("\n\n");
    const box = at("banners");
    if (box.dataset.seen === seen) return;
    box.dataset.seen = seen;
    box.replaceChildren(...list.map(banner));
  }

  /** How many nodes answered; after a fault nobody knows how they are now. */
  tellNodes() {
    const pill = at("nodes-pill");
    pill.hidden = !this.nodes || this.nodes.expected === 0;
    if (pill.hidden) return;
    const { responded, expected } = this.nodes;
    pill.textContent = `${responded} of ${expected} nodes${this.fault ? " before" : ""}`;
    pill.className = this.fault ? "pill" : `pill ${responded === expected ? "good" : "bad"}`;
  }

  tellAge() {
    const age = at("age");
    if (this.answeredMs === null) {
      age.hidden = true;
      return;
    }
    const old = serverNow() - this.answeredMs;
    const usual = this.does.everyMs();
    age.hidden = this.fault === null && (usual === 0 || old < usual + OLD_MS);
    if (age.hidden) return;
    age.className = "pill busy";
    age.textContent = `as of ${clock(this.answeredMs, this.does.zone())}, ${ageText(old)} ago`;
  }
}

const isTokenWanted = (error) => error.status === 401 || error.code === "UNAUTHENTICATED";

const ageText = (ms) => span(Math.max(0, Math.floor(ms / 1_000) * 1_000));

function banner([kind, title, text, button]) {
  return element(
    "p",
    { class: `banner ${kind === "warn" ? "warn" : ""}` },
    element("b", {}, title),
    text,
    button ? element("button", { type: "button", onclick: button[1] }, button[0]) : null,
  );
}
