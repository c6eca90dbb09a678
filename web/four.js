// All four series of the same keys and time, as small multiples.

import { figure } from "./charts.js";
import { API_SERIES, SERIES_NAMES, rate } from "./format.js";
import { layoutOf } from "./layout.js";
import { askOn } from "./source.js";

export class Four {
  /** `does`: state(), look(). */
  constructor({ line, charts }, does) {
    this.line = line;
    this.charts = charts;
    this.does = does;
    this.controller = null;
  }

  async show(matrix) {
    if (matrix.width === 0 || matrix.height === 0) return;
    this.controller?.abort();
    const controller = new AbortController();
    this.controller = controller;
    const window_ = { from: matrix.columns[0].start, to: matrix.columns.at(-1).end };
    const state = this.does.state();
    try {
      const all = await Promise.all(API_SERIES.map((series) =>
        askOn({ ...state, series }, matrix, window_, controller.signal)));
      if (controller.signal.aborted) return;
      const look = this.does.look();
      // By the load of the picture, so that rows are at the same place in all.
      const layout = layoutOf(matrix.loads, look.height, 200);
      const own = { ...look, low: null, high: null };
      this.line.textContent = "The same keys at the same heights; each with a scale of its own.";
      this.charts.replaceChildren(...all.map((each) => {
        const seconds = (window_.to - window_.from) / 1_000;
        const more = `${rate(each.total / seconds, each.series)} on average`;
        return figure(SERIES_NAMES[each.series], each, own, { layout, more });
      }));
    } catch (error) {
      if (error.name !== "AbortError") this.line.textContent = `Not known: ${error.message}`;
    }
  }
}
