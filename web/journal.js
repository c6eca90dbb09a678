// What happened in the window, the newest first: changes of routes and leaders, findings that began
// and ended, and what the autopilot or an operator did with its outcome.

import { button, element } from "./element.js";
import { kindText, whereText } from "./findings.js";
import { rate, stamp } from "./format.js";

const MOST = 400;

/** An entry of the cluster's own journal in words. */
function outcomeText(entry) {
  if (entry.state === "failed") return `failed: ${entry.failure}`;
  if (entry.state !== "done") return "under way";
  const { outcome } = entry;
  if (!outcome) return "done, not measured yet";
  const [before, after] = [outcome.hottest_before, outcome.hottest_after].map(Number);
  const worse = outcome.worse ? ", worse than before" : "";
  return `hottest node ${rate(before)} → ${rate(after)}${worse}`;
}

/** Lines `{ms, what, by, outcome, kind}` of all sources, the newest first. */
export function journalOf(events, findings, entries) {
  const lines = events.map((event) => ({
    ms: event.ms, what: event.text, by: "", outcome: "", kind: event.kind,
  }));
  for (const finding of findings) {
    const where = whereText(finding, 60);
    const what = kindText(finding) + (where ? `: ${where}` : "");
    const much = finding.rate > 0 ? rate(finding.rate) : "";
    lines.push({
      ms: finding.since, what: `began: ${what}`, by: "", outcome: much, kind: "began",
    });
    if (finding.resolved !== null)
      lines.push({ ms: finding.resolved, what: `ended: ${what}`, by: "", outcome: "",
        kind: "ended" });
  }
  for (const entry of entries) {
    const undone = entry.undone_by ? ", undone since" : "";
    lines.push({
      ms: Number(entry.started_ms),
      what: String(entry.words ?? entry.act?.act ?? ""),
      by: String(entry.by ?? ""),
      outcome: outcomeText(entry) + undone,
      kind: "act",
    });
  }
  return lines.filter((line) => Number.isFinite(line.ms)).sort((a, b) => b.ms - a.ms);
}

export class Journal {
  /** `does`: zone(), pilot, findings(), compare(ms). */
  constructor({ line, body }, does) {
    this.line = line;
    this.body = body;
    this.does = does;
    this.shown = 0;
  }

  async show(matrix, events) {
    this.shown += 1;
    const mine = this.shown;
    const { pilot } = this.does;
    this.draw(matrix, events, []);
    if (!(await pilot.follow())) return;
    const entries = await pilot.entries();
    if (mine !== this.shown) return;
    pilot.draw();
    this.draw(matrix, events, entries);
  }

  draw(matrix, events, entries) {
    const all = journalOf(events, this.does.findings(), entries);
    const lines = all.slice(0, MOST);
    const more = all.length > MOST ? `, the newest ${MOST} shown` : "";
    const cut = matrix.eventsTruncated ? " Earlier changes of the window are not listed." : "";
    this.line.textContent = all.length === 0
      ? "Nothing happened in this window: no split, merge, move or new leader, and no finding."
      : `${all.length} entries${more}.${cut}`;
    this.body.replaceChildren(...lines.map((line) => element(
      "tr",
      { class: `kind-${line.kind}` },
      element("td", { class: "time" }, stamp(line.ms, this.does.zone())),
      element("td", { class: "key" }, line.what),
      element("td", { class: "wide" }, line.by),
      element("td", {}, line.outcome),
      element("td", { class: "acts" },
        button("Before and after", () => this.does.compare(line.ms))),
    )));
  }
}
