// Pointer, wheel, touch and keyboard on the heatmap. Gestures move the view at once. When input
// rests, the view is committed and requested from the node at full resolution.

const REST_MS = 280;
const DRAG_PIXELS = 4;

export class Interact {
  /**
   * `does`: cursor(cell, x, y), pin(cell), unpin(), event(event), commit(view, box), back(),
   * reset(), key(name).
   */
  constructor(plot, does) {
    this.plot = plot;
    this.does = does;
    this.boxMode = false;
    this.pointers = new Map();
    /** @type {any} */
    this.start = null;
    this.restTimer = 0;
    /** The cell at which a rectangle that is drawn with the keyboard began. */
    this.anchor = null;
    const canvas = plot.overlay;
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.up(event));
    canvas.addEventListener("pointercancel", (event) => this.cancel(event));
    canvas.addEventListener("pointerleave", () => this.leave());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  /** Whether a gesture is under way: no new matrix may replace the heatmap before it ends. */
  get busy() {
    return this.start !== null || this.restTimer !== 0;
  }

  point(event) {
    const box = this.plot.overlay.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  down(event) {
    if (event.button !== 0 || !this.plot.view) return;
    const point = this.point(event);
    this.pointers.set(event.pointerId, point);
    this.plot.overlay.setPointerCapture(event.pointerId);
    if (this.pointers.size === 2) {
      this.plot.box = null;
      this.start = { pinch: this.spread(), view: this.plot.view, moved: true };
      return;
    }
    const box = event.shiftKey || this.boxMode;
    this.start = { ...point, view: this.plot.view, moved: false, box };
  }

  move(event) {
    const point = this.point(event);
    if (this.pointers.has(event.pointerId)) this.pointers.set(event.pointerId, point);
    if (!this.start) {
      this.does.cursor(this.plot.cellAt(point.x, point.y), point.x, point.y);
      return;
    }
    if (this.start.pinch) {
      this.pinch();
      return;
    }
    const { x, y } = this.start;
    if (!this.start.moved && Math.hypot(point.x - x, point.y - y) < DRAG_PIXELS) return;
    this.start.moved = true;
    if (this.start.box) {
      this.plot.box = { x0: x, y0: y, x1: point.x, y1: point.y };
      this.plot.drawPointer();
      return;
    }
    this.plot.overlay.classList.add("moving");
    this.shift(this.start.view, point.x - x, point.y - y);
  }

  shift(view, dx, dy) {
    const { width, height } = this.plot.area;
    const dt = (-dx / width) * (view.t1 - view.t0);
    const dr = (-dy / height) * (view.r1 - view.r0);
    this.plot.moving = true;
    this.plot.setView({ t0: view.t0 + dt, t1: view.t1 + dt, r0: view.r0 + dr, r1: view.r1 + dr });
  }

  spread() {
    const [a, b] = this.pointers.values();
    return {
      x: (a.x + b.x) / 2,
      y: (a.y + b.y) / 2,
      size: Math.max(20, Math.hypot(a.x - b.x, a.y - b.y)),
    };
  }

  pinch() {
    const now = this.spread();
    const { pinch, view } = this.start;
    this.plot.setView(view);
    this.zoomView(pinch.x, pinch.y, pinch.size / now.size, true, true);
    this.shift(this.plot.view, now.x - pinch.x, now.y - pinch.y);
  }

  up(event) {
    const point = this.point(event);
    this.pointers.delete(event.pointerId);
    const start = this.start;
    if (!start || (start.pinch && this.pointers.size > 0)) return;
    this.start = null;
    this.plot.overlay.classList.remove("moving");
    if (!start.moved) {
      const cell = this.plot.cellAt(point.x, point.y);
      const event = this.plot.eventAt(point.x, point.y);
      if (event && point.y < this.plot.area.events) this.does.event(event);
      else if (cell) this.does.pin(cell);
      return;
    }
    if (start.box) this.zoomBox();
    else this.commit();
  }

  cancel(event) {
    this.pointers.delete(event.pointerId);
    if (this.start) this.plot.setView(this.start.view);
    this.start = null;
    this.plot.box = null;
    this.plot.overlay.classList.remove("moving");
    this.plot.drawPointer();
    if (this.plot.view) this.rest();
  }

  leave() {
    if (!this.start) this.does.cursor(null);
  }

  zoomBox() {
    const { plot } = this;
    const { x0, y0, x1, y1 } = plot.box;
    plot.box = null;
    plot.drawPointer();
    const { left, top, width, height } = plot.area;
    const clip = (value, low, size) => Math.min(low + size, Math.max(low, value));
    const [xa, xb] = [clip(Math.min(x0, x1), left, width), clip(Math.max(x0, x1), left, width)];
    const [ya, yb] = [clip(Math.min(y0, y1), top, height), clip(Math.max(y0, y1), top, height)];
    if (xb - xa < DRAG_PIXELS || yb - ya < DRAG_PIXELS) return;
    const [t0, t1] = [plot.timeAt(xa), plot.timeAt(xb)];
    const [r0, r1] = [plot.unitAt(ya), plot.unitAt(yb)];
    plot.setView({ t0, t1, r0, r1 });
    this.commit(true);
  }

  /** Zooms around (x, y). */
  zoomView(x, y, factor, time, keys) {
    const { plot } = this;
    const { t0, t1, r0, r1 } = plot.view;
    const t = plot.timeAt(x);
    const r = plot.unitAt(y);
    const view = { ...plot.view };
    const fits = factor > 1 || t1 - t0 > 2_000;
    if (time && fits) Object.assign(view, { t0: t - (t - t0) * factor, t1: t + (t1 - t) * factor });
    if (keys && (factor > 1 || r1 - r0 > 1)) {
      Object.assign(view, { r0: r - (r - r0) * factor, r1: r + (r1 - r) * factor });
    }
    plot.moving = true;
    plot.setView(view);
  }

  wheel(event) {
    if (!this.plot.view) return;
    const { x, y } = this.point(event);
    if (!this.plot.inside(x, y)) return;
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 33 : 1;
    // Shift turns the wheel sideways in most browsers.
    const delta = (event.deltaY || event.deltaX) * lines;
    const sideways = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
    if (sideways) {
      const by = Math.max(-400, Math.min(400, delta)) * -0.6;
      this.shift(this.plot.view, event.altKey ? 0 : by, event.altKey ? by : 0);
    } else {
      const factor = Math.exp(Math.max(-240, Math.min(240, delta)) * 0.0022);
      this.zoomView(x, y, factor, !event.altKey, true);
    }
    this.rest();
  }

  /** Commits when no further gesture follows for a while. */
  rest() {
    clearTimeout(this.restTimer);
    this.restTimer = setTimeout(() => {
      this.restTimer = 0;
      this.commit();
    }, REST_MS);
  }

  /** Input rests: the view is drawn at its best, and requested; `box`: it was a rectangle. */
  commit(box = false) {
    this.plot.moving = false;
    this.plot.draw();
    const { view, matrix } = this.plot;
    // Moved, not zoomed: by this share of what is shown.
    const moved = Math.abs(view.r1 - view.r0 - matrix.height) < 0.02 * matrix.height;
    const by = moved ? view.r0 / matrix.height : null;
    this.does.commit({ ...this.plot.rowsOf(view), by }, box);
  }

  /** Discards a view that was not committed yet. */
  forget() {
    clearTimeout(this.restTimer);
    this.restTimer = 0;
    this.plot.moving = false;
  }

  /** Begins a rectangle at the cursor; the arrows stretch it, Enter zooms into it. */
  anchorBox() {
    if (!this.plot.cursor) this.step(0, 0);
    this.anchor = this.plot.cursor && { ...this.plot.cursor };
    this.stretchBox();
  }

  dropBox() {
    this.anchor = null;
    this.plot.box = null;
    this.plot.drawPointer();
  }

  stretchBox() {
    const { plot, anchor } = this;
    if (!anchor) return;
    const [a, b] = [plot.cellBox(anchor), plot.cellBox(plot.cursor)];
    plot.box = {
      x0: Math.min(a.x, b.x), y0: Math.min(a.y, b.y),
      x1: Math.max(a.x + a.width, b.x + b.width), y1: Math.max(a.y + a.height, b.y + b.height),
    };
    plot.drawPointer();
  }

  /** Zooms into the cells from the anchor to the cursor. */
  zoomCells() {
    const { plot, anchor } = this;
    const { columns } = plot.matrix;
    const [first, last] = [anchor.column, plot.cursor.column].sort((a, b) => a - b);
    const [top, bottom] = [anchor.row, plot.cursor.row].sort((a, b) => a - b);
    this.dropBox();
    const [r0, r1] = [top, bottom + 1].map((row) => plot.edges[row]);
    plot.setView({ t0: columns[first].start, t1: columns[last].end, r0, r1 });
    this.commit(true);
  }

  zoomCentre(factor, time, keys) {
    const { left, top, width, height } = this.plot.area;
    const cell = this.plot.cursor && this.plot.cellBox(this.plot.cursor);
    const x = cell ? cell.x + cell.width / 2 : left + width / 2;
    const y = cell ? cell.y + cell.height / 2 : top + height / 2;
    this.zoomView(x, y, factor, time, keys);
    this.rest();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey) return;
    const { plot } = this;
    const move = { w: [0, -1], a: [-1, 0], s: [0, 1], d: [1, 0] }[event.key.toLowerCase()];
    if (move && plot.view && !this.anchor) {
      event.preventDefault();
      this.shift(plot.view, -move[0] * 60, -move[1] * 40);
      this.rest();
      return;
    }
    const step = {
      ArrowLeft: [-1, 0],
      ArrowRight: [1, 0],
      ArrowUp: [0, -1],
      ArrowDown: [0, 1],
      PageUp: [0, -10],
      PageDown: [0, 10],
    }[event.key];
    if (step && plot.view) {
      event.preventDefault();
      if (event.shiftKey) {
        this.shift(plot.view, -step[0] * 60, -step[1] * 40);
        this.rest();
      } else {
        this.step(...step);
      }
      return;
    }
    const run = {
      "+": () => this.zoomCentre(0.6, true, true),
      "=": () => this.zoomCentre(0.6, true, true),
      "-": () => this.zoomCentre(1 / 0.6, true, true),
      "]": () => this.zoomCentre(0.6, true, false),
      "[": () => this.zoomCentre(1 / 0.6, true, false),
      "}": () => this.zoomCentre(0.6, false, true),
      "{": () => this.zoomCentre(1 / 0.6, false, true),
      b: () => this.anchorBox(),
      B: () => this.anchorBox(),
      Enter: () => (this.anchor ? this.zoomCells() : plot.cursor && this.does.pin(plot.cursor)),
      Escape: () => (this.anchor ? this.dropBox() : this.does.unpin()),
      Backspace: () => this.does.back(),
      Home: () => this.does.reset(),
    }[event.key];
    if (run && plot.view) {
      event.preventDefault();
      run();
    } else if (run && (event.key === "Backspace" || event.key === "Home")) {
      event.preventDefault();
      run();
    } else {
      this.does.key(event.key);
    }
  }

  step(dx, dy) {
    const { plot } = this;
    const { width, height } = plot.matrix;
    if (width === 0 || height === 0) return;
    const shown = plot.visible();
    const at = plot.cursor ?? { row: shown.firstRow, column: shown.lastColumn - 1 - dx };
    const clip = (value, most) => Math.min(most - 1, Math.max(0, value));
    const cell = { row: clip(at.row + dy, height), column: clip(at.column + dx, width) };
    const box = plot.cellBox(cell);
    this.does.cursor(cell, box.x + box.width / 2, box.y + box.height / 2, true);
    this.stretchBox();
  }
}
