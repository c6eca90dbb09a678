// Saves the window as a file.

import { ask } from "./api.js";
import { combine } from "./combine.js";
import { SERIES_NAMES, stamp } from "./format.js";
import { elide, showEnd, showStart } from "./keys.js";
import { APPORTIONED, CONFLICT, PARTIAL, readMatrix } from "./matrix.js";
import { legendText, paintRamp, totalText } from "./notices.js";
import { partsOf, queryOf } from "./query.js";
import { listed } from "./rows.js";

/** Heights of the caption above a saved picture and of the legend below, in CSS pixels. */
const [HEAD, FOOT] = [26, 28];

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const nameOf = (matrix, ending) => {
  const from = matrix.columns[0]
    ? new Date(matrix.columns[0].start).toISOString().replaceAll(":", "")
    : "empty";
  return `keyviz-${matrix.series}-${from}.${ending}`;
};

/**
 * A field of a table. Spreadsheets execute text that starts like a formula, so such keys get a
 * quote.
 */
function field(text) {
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return `"${safe.replaceAll('"', '""')}"`;
}

/** One line per cell that is not empty, with keys as the API writes them. */
export function csvText(matrix) {
  const lines = ["bucket_id,start,end,start_ms,end_ms,open,value,apportioned,partial,conflict"];
  matrix.rows.forEach((row, y) => {
    const end = row.end === null ? "" : field(row.end);
    const keys = `${field(row.bucket)},${field(row.start)},${end}`;
    matrix.columns.forEach((column, x) => {
      const at = y * matrix.width + x;
      const flags = matrix.flags[at];
      if (matrix.values[at] === 0 && flags === 0) return;
      const marks = [APPORTIONED, PARTIAL, CONFLICT]
        .map((mark) => (flags & mark ? 1 : 0))
        .join(",");
      const time = `${column.start},${column.end},${column.open ? 1 : 0}`;
      lines.push(`${keys},${time},${matrix.values[at]},${marks}`);
    });
  });
  for (const block of matrix.blocks) {
    const from = matrix.columns[block.column];
    const to = matrix.columns[block.column + block.columns - 1];
    const name = field(block.straddling ? "straddling" : "block");
    const keys = `${name},${field(block.start)},${block.end === null ? "" : field(block.end)}`;
    const time = `${from.start},${to.end},${to.open ? 1 : 0}`;
    lines.push(`${keys},${time},${block.value},0,0,${block.conflict ? 1 : 0}`);
  }
  return `${lines.join("\n")}\n`;
}

const saveCsv = (matrix) =>
  save(new Blob([csvText(matrix)], { type: "text/csv" }), nameOf(matrix, "csv"));

const saveJson = (matrix, json) =>
  save(new Blob([JSON.stringify(json)], { type: "application/json" }), nameOf(matrix, "json"));

/** The heatmap with a caption above and its legend below. */
export function captioned(plot, state, theme) {
  const { base, matrix, ratio, width, height } = plot;
  const colours = plot.lookColours();
  const canvas = document.createElement("canvas");
  canvas.width = base.width;
  canvas.height = base.height + Math.round((HEAD + FOOT) * ratio);
  const context = canvas.getContext("2d");
  context.fillStyle = colours.panel;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(base, 0, Math.round(HEAD * ratio));
  context.scale(ratio, ratio);
  context.font = '12px system-ui, "DejaVu Sans", sans-serif';
  context.textBaseline = "middle";
  context.fillStyle = colours.text;
  const [first, last] = [matrix.columns[0], matrix.columns.at(-1)];
  const when = first
    ? `${stamp(first.start, state.zone)} to ${stamp(last.end, state.zone)}`
    : "no columns";
  const start = elide(showStart(matrix.rows[0]?.start ?? ""), 40);
  const end = elide(showEnd(matrix.rows.at(-1)?.end ?? null), 40);
  const nodes = `${matrix.responded} of ${matrix.expected} nodes`;
  const series = SERIES_NAMES[matrix.series] ?? matrix.series;
  const caption = `keyviz · ${series} · ${when} · ${start} → ${end} · ${nodes}`;
  context.fillText(caption, 8, HEAD / 2, width - 16);
  const middle = HEAD + height + FOOT / 2;
  const { scale } = plot;
  const look = { state, theme, scale, series: matrix.series, colour: colours.dim };
  paintRamp(context, 8, middle - 11, 200, 8, look);
  context.fillStyle = colours.dim;
  context.textAlign = "left";
  context.textBaseline = "middle";
  const text = `${legendText(matrix, scale)} · ${totalText(matrix)}`;
  context.fillText(text, 218, middle, width - 226);
  return canvas;
}

function savePng(plot, state, theme) {
  captioned(plot, state, theme).toBlob((blob) => {
    if (blob) save(blob, nameOf(plot.matrix, "png"));
  }, "image/png");
}

/** The plain answer of the API; of reads and writes both answers, on the same rows. */
async function exactOf(state) {
  const [first, second] = partsOf(state.series);
  const one = await ask("matrix", queryOf(state, first));
  if (!second) return one;
  const boundaries = one.rows.map((row) => listed(row.start)).join(",");
  return [one, await ask("matrix", { ...queryOf(state, second), boundaries })];
}

/** Reads and writes as one; where a column closed between both answers, the first alone. */
const joined = (answers) => {
  const parts = answers.map(readMatrix);
  return combine(parts, "operations") ?? parts[0];
};

/** Makes the buttons save what `plot` shows. `current` gives the state of the page. */
export function wireExports({ png, csv, json }, plot, current, failed) {
  // The heatmap may have rounded cells; the API returns exact ones.
  const exact = () =>
    exactOf(current()).catch((error) => {
      failed(error);
      return null;
    });
  png.addEventListener("click", () => {
    const state = current();
    if (plot.matrix) savePng(plot, state, state.theme);
  });
  csv.addEventListener("click", async () => {
    const answer = plot.matrix?.rounded ? await exact() : null;
    if (answer) saveCsv(Array.isArray(answer) ? joined(answer) : readMatrix(answer));
    else if (plot.matrix && !plot.matrix.rounded) saveCsv(plot.matrix);
  });
  json.addEventListener("click", async () => {
    const answer = plot.matrix && (await exact());
    if (answer) saveJson(plot.matrix, answer);
  });
}
