// Splits, merges, moves and changes of leaders in the window, as the matrix lists them.

import { compareBytes, keyBytes, showStart } from "./keys.js";

/** Marks of the changes that an answer lists; `row` says where in a matrix one stands. */
export function changes(events) {
  return events.map((event) => ({
    ms: event.time_ms,
    kind: event.kind,
    text: textOf(event),
    row: (matrix) => placeOf(matrix, event),
  }));
}

function textOf(event) {
  if (event.kind === "leader") {
    const term = event.term === null ? "" : ` in term ${event.term}`;
    return `group ${event.group} is led by node ${event.leader}${term}`;
  }
  if (event.kind === "move") {
    const route = event.retired.join(" and ");
    return `route ${route} moved from group ${event.fromGroup} to group ${event.group}`;
  }
  const [retired, created] = [event.retired.join(" and "), event.created.join(" and ")];
  return event.kind === "merge"
    ? `routes ${retired} merged into ${created} at ${showStart(event.key)}`
    : `route ${retired} split at ${showStart(event.key)} into ${created}`;
}

/** Where a key lies, in rows: on its boundary, else in the middle of the row that holds it. */
function placeOf(matrix, event) {
  matrix.bounds ??= matrix.rows.map((row) => keyBytes(row.start));
  event.bytes ??= keyBytes(event.key);
  const { bounds } = matrix;
  let [low, high] = [0, bounds.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (compareBytes(bounds[middle], event.bytes) <= 0) low = middle + 1;
    else high = middle;
  }
  const row = Math.max(0, low - 1);
  return bounds[row] && compareBytes(bounds[row], event.bytes) === 0 ? row : row + 0.5;
}

const SIZE = 5;

/** The shape of a mark: a split parts, a merge joins, a move points on, a leader is one point. */
function trace(context, kind, x, y) {
  context.beginPath();
  if (kind === "leader") {
    context.arc(x, y, SIZE - 1, 0, 2 * Math.PI);
  } else if (kind === "move") {
    context.moveTo(x - SIZE + 1, y - SIZE);
    context.lineTo(x + SIZE, y);
    context.lineTo(x - SIZE + 1, y + SIZE);
  } else if (kind === "merge") {
    context.rect(x - SIZE + 1, y - SIZE + 1, 2 * SIZE - 2, 2 * SIZE - 2);
  } else {
    context.moveTo(x, y - SIZE);
    context.lineTo(x + SIZE, y);
    context.lineTo(x, y + SIZE);
    context.lineTo(x - SIZE, y);
  }
  context.closePath();
}

/** A mark alone, for the legend. */
export function drawMark(context, kind, x, y, colours) {
  trace(context, kind, x, y);
  context.fillStyle = colours.accent;
  context.fill();
  context.lineWidth = 1;
  context.strokeStyle = colours.plot;
  context.stroke();
}

/** A line at the time of each change, and a mark at its key. */
export function drawEvents(context, plot) {
  const { top, height } = plot.area;
  const events = plot.shownEvents();
  context.strokeStyle = plot.colours.cursor;
  context.lineWidth = 1;
  context.globalAlpha = 0.35;
  context.beginPath();
  for (const x of new Set(events.map((event) => Math.round(event.x) + 0.5))) {
    context.moveTo(x, top);
    context.lineTo(x, top + height);
  }
  context.stroke();
  context.globalAlpha = 1;
  for (const event of events) {
    if (event.y !== null) drawMark(context, event.kind, event.x, event.y, plot.colours);
  }
}

/** The line of events above the cells: a mark each, and its kind where there is room. */
export function drawEventLine(context, plot) {
  const { left, width, events: high } = plot.area;
  const y = high / 2;
  context.fillStyle = plot.colours.grid;
  context.fillRect(left, Math.round(y), width, 1);
  context.textAlign = "left";
  context.textBaseline = "middle";
  let free = left;
  for (const event of plot.shownEvents()) {
    drawMark(context, event.kind, event.x, y, plot.colours);
    const wide = context.measureText(event.kind).width;
    if (event.x < free || event.x + wide + 14 > left + width) continue;
    context.fillStyle = plot.colours.plot;
    context.fillRect(event.x + 7, 1, wide + 4, high - 2);
    context.fillStyle = plot.colours.dim;
    context.fillText(event.kind, event.x + 9, y);
    free = event.x + wide + 22;
  }
}
