// What is pointed at: the cell under the cursor with its tooltip; what is selected (a cell, the
// view or a finding) with its drawer; and what the tables show of both. After a refresh each says
// what is there now. What is selected stands in the link.

import { copyText } from "./copying.js";
import { Drawer, columnText, keysText, movedText } from "./details.js";
import { showTooltip, spokenCell } from "./details.js";
import { at, element } from "./element.js";
import { cellHolding } from "./matrix.js";
import { after } from "./range.js";
import { linkTables, overlaps } from "./tables.js";

/** The range that holds a key and no other. */
const oneKey = (key) => ({ start: key, end: after(key) });

export class Pointing {
  /**
   * `look`: zone, palette, theme, cluster and role of now; `does`: zoom(row), route(id),
   * hotKeys(place, matrix, row, column, signal), lines(place, row, window, role, signal),
   * acts(finding), the buttons of a finding, and selected(text), what the link has of it.
   */
  constructor(plot, look, does) {
    this.plot = plot;
    this.look = look;
    this.does = does;
    /** The finding that is selected. */
    this.finding = null;
    this.drawer = new Drawer(at("drawer"), { close: () => this.unpin(), ...does });
    /** The drawer has the hot keys of the view. */
    this.wholeView = false;
    /** The row that the tables highlight: the pinned one, else the one under the pointer. */
    this.linked = null;
    /** Where the cursor is: under the pointer, which stays, or on a cell, which moves. */
    this.place = null;
  }

  cursor(cell, x, y, spoken = false) {
    const { plot } = this;
    const { zone, cluster } = this.look();
    plot.cursor = cell;
    plot.drawPointer();
    const tooltip = at("tooltip");
    if (!cell) {
      tooltip.hidden = true;
      this.place = null;
      return;
    }
    const { rows, columns } = plot.matrix;
    const chosen = { start: rows[cell.row].start, ms: columns[cell.column].start };
    this.place = spoken ? chosen : { x, y };
    if (!plot.pinned) this.link(rows[cell.row]);
    showTooltip(tooltip, plot, cell, x, y, { zone, cluster });
    const event = plot.eventAt(x, y);
    if (event) tooltip.append(element("div", { class: "event" }, `◆ ${event.text}`));
    if (spoken) at("spoken").textContent = spokenCell(plot.matrix, cell, zone);
  }

  /** Another matrix is shown. */
  follow() {
    this.followCursor();
    this.followPin();
  }

  followCursor() {
    if (!this.place) return;
    const { plot, place } = this;
    const byKeys = place.ms !== undefined;
    const cell = byKeys
      ? cellHolding(plot.matrix, place.start, place.ms)
      : plot.cellAt(place.x, place.y);
    if (!cell || at("tooltip").hidden) {
      plot.cursor = cell;
      at("tooltip").hidden = true;
      plot.drawPointer();
    } else if (byKeys) {
      const box = plot.cellBox(cell);
      this.cursor(cell, box.x + box.width / 2, box.y + box.height / 2);
      this.place = place;
    } else {
      this.cursor(cell, place.x, place.y);
    }
  }

  pin(cell) {
    const { plot } = this;
    const [row, column] = [plot.matrix.rows[cell.row], plot.matrix.columns[cell.column]];
    plot.pinned = { start: row.start, end: row.end, t0: column.start, t1: column.end };
    plot.cursor = cell;
    this.wholeView = false;
    this.finding = null;
    plot.marked = null;
    this.link(row);
    this.drawer.show(plot.matrix, cell, this.look());
    at("tooltip").hidden = true;
    plot.drawPointer();
    const { start, end, t0, t1 } = plot.pinned;
    this.does.selected(JSON.stringify(["cell", t0, t1, start, end]));
  }

  /** Shows a finding, and which rows it is about. */
  showFinding(finding, note = "") {
    const { plot } = this;
    plot.pinned = null;
    this.wholeView = false;
    this.finding = finding;
    const range = finding.key === null ? finding : oneKey(finding.key);
    const whole = finding.start === "" && finding.end === null && finding.key === null;
    plot.marked = whole ? null : (row) => overlaps(range, row);
    this.drawer.showFinding(finding, plot.matrix, this.look(), note);
    plot.drawPointer();
    this.does.selected(JSON.stringify(["finding", finding.id]));
  }

  /** Selects what a link says, as far as it is there. `findings` has those that are known. */
  restore(text, findings) {
    const { plot } = this;
    if (text === "" || !plot.matrix) return;
    let told;
    try {
      told = JSON.parse(text);
    } catch {
      return;
    }
    if (!Array.isArray(told)) return;
    if (told[0] === "view") {
      if (!this.wholeView) this.showHotKeys();
    } else if (told[0] === "finding" && this.finding === null) {
      const finding = findings.find(String(told[1]));
      if (finding) this.showFinding(finding);
    } else if (told[0] === "cell" && !plot.pinned) {
      const [, t0, t1, start, end] = told;
      if (typeof start !== "string" || !(Number(t0) < Number(t1))) return;
      plot.pinned = { start, end: typeof end === "string" ? end : null, t0, t1 };
      if (plot.pinnedCell()) {
        at("drawer").hidden = false;
        this.followPin();
      } else {
        plot.pinned = null;
      }
      plot.drawPointer();
    }
  }

  /** Shows the hot keys of all that is shown. */
  showHotKeys() {
    const { plot } = this;
    if (!plot.matrix || plot.matrix.width === 0 || plot.matrix.height === 0) return;
    plot.pinned = null;
    this.wholeView = true;
    this.finding = null;
    plot.marked = null;
    this.drawer.showView(plot.matrix, this.look());
    plot.drawPointer();
    this.does.selected('["view"]');
  }

  /** Findings were asked for again: the selected one is told as it is now. */
  followFinding(findings) {
    if (!this.finding || at("drawer").hidden) return;
    const again = findings.find(this.finding.id);
    if (again) this.showFinding(again);
    else this.drawer.leaveFinding();
  }

  /** The pinned cell in the matrix of now, with its new counts. */
  followPin() {
    const { plot } = this;
    if (at("drawer").hidden) return;
    if (this.wholeView) this.showHotKeys();
    if (!plot.pinned) return;
    const cell = plot.pinnedCell();
    if (!cell) {
      this.drawer.leave();
      return;
    }
    const [row, column] = [plot.matrix.rows[cell.row], plot.matrix.columns[cell.column]];
    this.link(row);
    const note = movedText(plot.pinned, row, column);
    this.drawer.show(plot.matrix, cell, { ...this.look(), note });
  }

  unpin() {
    this.plot.pinned = null;
    this.plot.marked = null;
    this.wholeView = false;
    this.finding = null;
    this.drawer.hide();
    this.plot.drawPointer();
    this.does.selected("");
    this.plot.overlay.focus();
  }

  /** Points out in the tables what a row of the heatmap holds. */
  link(row) {
    if (this.linked?.start === row.start && this.linked?.end === row.end) return;
    this.linked = row;
    linkTables({ routes: at("routes"), groups: at("groups") }, row);
  }

  /** Points out in the heatmap what a line of a table stands for. */
  light(test) {
    this.plot.lit = test;
    this.plot.drawPointer();
  }

  /** Copies what the cell under the cursor, or the pinned one, is. */
  async copy(what) {
    const { plot } = this;
    const cell = plot.pinnedCell() ?? plot.cursor;
    if (!cell) return;
    const row = plot.matrix.rows[cell.row];
    const column = plot.matrix.columns[cell.column];
    const time = new Date(column.start).toISOString();
    const text = { key: row.start, range: keysText(row), time }[what];
    const said = (await copyText(text)) ? `copied the ${what}` : "the browser refused to copy";
    at("spoken").textContent = `${said}, ${columnText(column, this.look().zone)}`;
  }
}
