// Acts on the cluster: what a remedy would change, doing it, and what came of it; and the
// autopilot. A node of an earlier version has none of these calls. Then a remedy is shown with its
// forecast and the command that does it.

import { ApiError, ask, change } from "./api.js";
import { button, element } from "./element.js";
import { rate } from "./format.js";
import { showStart } from "./keys.js";

const POLL_MS = 1_000;
const list = (value) => (Array.isArray(value) ? value : []);
const number = (value) => (Number.isFinite(Number(value)) ? Number(value) : 0);

/** The fields of a remedy that the act is made of. */
export function actOf(remedy, finding = "") {
  const act = { finding };
  for (const name of ["act", "at", "start", "end", "group", "node"])
    if (remedy[name] !== undefined && remedy[name] !== null) act[name] = remedy[name];
  return act;
}

/** What a forecast or an outcome says of every node and group. */
export function forecastTable(forecast, [before, after]) {
  if (!forecast) return element("p", { class: "dim" }, "No forecast is known.");
  const line = (name, each) => {
    const [was, is] = [number(each.before), number(each.after)];
    const kind = is > was * 1.02 ? "bad" : is < was * 0.98 ? "good" : "";
    return element(
      "tr",
      {},
      element("td", {}, `${name} ${each.id}`),
      element("td", { class: "number" }, rate(was)),
      element("td", { class: `number ${kind}` }, rate(is)),
    );
  };
  const hottest = { id: "", before: forecast.hottest_before, after: forecast.hottest_after };
  return element(
    "table",
    { class: "forecast" },
    element("thead", {}, element("tr", {}, element("td", {}, ""),
      element("th", { class: "number" }, before), element("th", { class: "number" }, after))),
    element("tbody", {}, line("Hottest node", hottest),
      ...list(forecast.nodes).map((each) => line("Node", each))),
  );
}

/** The command that does what a remedy says, where there is one. */
export function commandOf(remedy) {
  const quoted = (key) => (/^[\w/.:-]+$/.test(key) ? key : `'${key.replaceAll("'", "'\\''")}'`);
  if (remedy.act === "transfer-leader")
    return `keyviz cluster transfer-leader ${remedy.group} ${remedy.node}`;
  if (remedy.act === "split-and-move")
    return `keyviz routes split ROUTE ${quoted(showStart(remedy.at ?? ""))}`;
  return "";
}

export class Pilot {
  /** `does`: done() after an act, catalog(), zone(). */
  constructor(dialog, panel, does) {
    this.dialog = dialog;
    this.panel = panel;
    this.does = does;
    /** `null`: not asked yet; `false`: the node does not know acts. */
    this.able = null;
    this.state = null;
    this.part = (name) => dialog.querySelector(`#remedy-${name}`);
    this.part("do").addEventListener("click", () => this.act());
    this.busy = false;
    this.opened = 0;
  }

  /** Asks for the autopilot's state; whether the node knows it. */
  async follow() {
    if (this.able === false) return false;
    try {
      this.state = await ask("autopilot");
      this.able = true;
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) this.able = false;
    }
    return this.able === true;
  }

  async preview(finding, remedy) {
    this.opened += 1;
    const opened = this.opened;
    this.act_ = actOf(remedy, finding.id);
    // A repeated click sends the same id, so the act is done once.
    this.act_.request_id = `page-${crypto.getRandomValues(new Uint32Array(4)).join("-")}`;
    this.version = 0;
    this.part("title").textContent = String(remedy.words ?? remedy.act);
    this.tell(finding, remedy.forecast, "Forecast from the last columns, on the changed layout:");
    this.part("said").textContent = "";
    this.part("do").hidden = true;
    if (!this.dialog.open) this.dialog.showModal();
    if (this.able === null) await this.follow();
    if (opened !== this.opened) return;
    if (this.able === false) {
      const command = commandOf(remedy);
      this.part("said").textContent = command
        ? `This node cannot act from the page. The command is: ${command}`
        : "This node cannot act from the page.";
      return;
    }
    try {
      const { request_id: _, ...asked } = this.act_;
      const told = await change("acts/preview", asked);
      if (opened !== this.opened) return;
      this.version = number(told.catalog_version);
      if (told.refused) {
        this.part("said").textContent = `It cannot be done now: ${told.refused}`;
        return;
      }
      if (told.words) this.part("title").textContent = told.words;
      if (told.forecast) this.tell(finding, told.forecast, told.why ?? "");
      this.part("do").hidden = false;
    } catch (error) {
      if (opened === this.opened) this.part("said").textContent = error.message;
    }
  }

  tell(finding, forecast, why) {
    this.part("what").replaceChildren(
      element("p", {}, finding.summary),
      why ? element("p", { class: "dim" }, why) : "",
      forecastTable(forecast, ["now", "then"]),
    );
  }

  async act() {
    if (this.busy) return;
    const opened = this.opened;
    this.busy = true;
    const said = this.part("said");
    const doing = this.part("do");
    doing.disabled = true;
    said.textContent = "asking…";
    try {
      const entry = await change("acts", { ...this.act_, expected_version: this.version });
      if (opened !== this.opened) return;
      doing.hidden = true;
      said.textContent = "Under way.";
      await this.await_(String(entry.id), opened);
    } catch (error) {
      if (opened === this.opened) said.textContent = error.message;
    } finally {
      this.busy = false;
      doing.disabled = false;
    }
  }

  /** Follows an act until what came of it is measured, or the dialog is closed. */
  async await_(id, opened) {
    const said = this.part("said");
    let told = false;
    while (this.dialog.open && opened === this.opened) {
      const { entries } = await ask("autopilot/log", { limit: 64 });
      const entry = list(entries).find((each) => String(each.id) === id);
      if (entry?.state === "failed") {
        said.textContent = `It failed: ${entry.failure}`;
        return;
      }
      if (entry?.state === "done" && !told) {
        told = true;
        said.textContent = "Done. Measuring what came of it…";
        this.does.done();
      }
      if (entry?.outcome) {
        said.textContent = entry.outcome.worse ? "Done, and it is worse than before."
          : "Done. Measured:";
        this.part("what").append(forecastTable(entry.outcome, ["before", "measured"]));
        return;
      }
      await new Promise((done) => setTimeout(done, POLL_MS));
    }
  }

  /** The autopilot's mode, and buttons to change it. */
  draw() {
    const { panel, state } = this;
    panel.hidden = this.able !== true || !state;
    if (panel.hidden) return;
    const mode = String(state.mode ?? "off");
    const reasons = list(state.reasons).map(String).slice(0, 8);
    const set = (wanted) => button(wanted, () => this.set(wanted), {
      "aria-pressed": String(wanted === mode),
    });
    panel.replaceChildren(
      element("div", { class: "row" }, element("b", {}, "Autopilot "),
        ...["off", "advise", "act"].map(set),
        element("span", { class: "dim", id: "pilot-said", role: "status" }, "")),
      ...(reasons.length > 0
        ? [element("ul", { class: "facts" }, ...reasons.map((why) => element("li", {}, why)))]
        : []),
    );
  }

  async set(mode) {
    const revision = number(this.state?.revision);
    try {
      this.state = await change("autopilot", { mode, expected_revision: revision });
      this.draw();
    } catch (error) {
      await this.follow();
      this.draw();
      const said = this.panel.querySelector("#pilot-said");
      if (said) said.textContent = error.message;
    }
  }

  /** The newest entries of the journal; empty where there is none. */
  async entries(limit = 64) {
    if (this.able === null) await this.follow();
    if (this.able !== true) return [];
    const { entries } = await ask("autopilot/log", { limit }).catch(() => ({ entries: [] }));
    return list(entries);
  }
}
