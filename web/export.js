// The window as a file.

import { APPORTIONED, CONFLICT, PARTIAL } from "./matrix.js";

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const nameOf = (matrix, ending) => {
  const from = matrix.columns[0] ? new Date(matrix.columns[0].start).toISOString().replaceAll(":", "") : "empty";
  return `keyviz-${matrix.series}-${from}.${ending}`;
};

/** A field of a table. Spreadsheets run what starts like a formula, so such keys get a quote. */
function field(text) {
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return `"${safe.replaceAll('"', '""')}"`;
}

/** One line a cell that is not empty, keys as the API writes them. */
export function csvText(matrix) {
  const lines = ["bucket_id,start,end,start_ms,end_ms,open,value,apportioned,partial,conflict"];
  matrix.rows.forEach((row, y) => {
    const keys = `${field(row.bucket)},${field(row.start)},${row.end === null ? "" : field(row.end)}`;
    matrix.columns.forEach((column, x) => {
      const at = y * matrix.width + x;
      const flags = matrix.flags[at];
      if (matrix.values[at] === 0 && flags === 0) return;
      const marks = [APPORTIONED, PARTIAL, CONFLICT].map((mark) => (flags & mark ? 1 : 0)).join(",");
      lines.push(`${keys},${column.start},${column.end},${column.open ? 1 : 0},${matrix.values[at]},${marks}`);
    });
  });
  return `${lines.join("\n")}\n`;
}

export const saveCsv = (matrix) => save(new Blob([csvText(matrix)], { type: "text/csv" }), nameOf(matrix, "csv"));

export const saveJson = (matrix, json) =>
  save(new Blob([JSON.stringify(json)], { type: "application/json" }), nameOf(matrix, "json"));

export function savePng(plot) {
  plot.base.toBlob((blob) => { if (blob) save(blob, nameOf(plot.matrix, "png")); }, "image/png");
}
