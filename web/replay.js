// Plays the shown window again, column by column: what comes later is covered, and the hottest row
// of the column is named.

import { clock, percent, rate } from "./format.js";
import { rangeText } from "./charts.js";
import { secondsOf } from "./scale.js";

export class Replay {
  /** `does`: zone(), ended(). */
  constructor(box, plot, does) {
    this.box = box;
    this.plot = plot;
    this.does = does;
    this.column = 0;
    this.timer = 0;
    box.addEventListener("click", (event) => this.act(event.target.dataset.play));
    this.speed().addEventListener("change", () => {
      if (this.timer) this.play();
    });
  }

  speed() {
    return this.box.querySelector("[data-play=speed]");
  }

  get isOn() {
    return !this.box.hidden;
  }

  act(what) {
    if (what === "toggle" && this.timer) this.pause();
    else if (what === "toggle") this.play();
    else if (what === "back" || what === "step") {
      this.pause();
      this.go(this.column + (what === "back" ? -1 : 1));
    } else if (what === "end") this.end();
  }

  start() {
    const { matrix } = this.plot;
    if (!matrix || matrix.width === 0) return;
    this.box.hidden = false;
    this.go(0);
    this.play();
    this.box.querySelector("[data-play=toggle]").focus();
  }

  play() {
    clearInterval(this.timer);
    if (this.column >= this.plot.matrix.width - 1) this.go(0);
    this.timer = setInterval(() => {
      if (this.column >= this.plot.matrix.width - 1) this.pause();
      else this.go(this.column + 1);
    }, 1_000 / Number(this.speed().value));
    this.box.querySelector("[data-play=toggle]").textContent = "Pause";
  }

  pause() {
    clearInterval(this.timer);
    this.timer = 0;
    this.box.querySelector("[data-play=toggle]").textContent = "Play";
  }

  end() {
    if (!this.isOn) return;
    this.pause();
    this.box.hidden = true;
    this.plot.until = null;
    this.plot.drawPointer();
    this.does.ended();
  }

  go(column) {
    const { matrix } = this.plot;
    this.column = Math.max(0, Math.min(matrix.width - 1, column));
    const { start, end } = matrix.columns[this.column];
    this.plot.until = end;
    this.plot.drawPointer();
    let hottest = 0;
    for (let row = 0; row < matrix.height; row += 1)
      if (this.value(row) > this.value(hottest)) hottest = row;
    const value = this.value(hottest);
    const sum = matrix.columnSums[this.column];
    const seconds = secondsOf(matrix.columns[this.column], this.plot.drawnMs);
    const said = value > 0
      ? `${rangeText(matrix.rows[hottest], 50)}: ${rate(value / seconds, matrix.series)}, ` +
        `${percent(value, sum)} of ${rate(sum / seconds, matrix.series)}`
      : "nothing counted";
    const at = this.box.querySelector("#played");
    at.textContent = `${clock(start, this.does.zone())}  ${said}`;
  }

  value(row) {
    return this.plot.matrix.painted[row * this.plot.matrix.width + this.column];
  }
}
