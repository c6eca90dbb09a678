// Formats numbers, sizes and times.

const SI = ["", "k", "M", "G", "T", "P", "E"];
const BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

function scaled(value, base, units) {
  let step = 0;
  let rest = value;
  while (rest >= base && step < units.length - 1) {
    rest /= base;
    step += 1;
  }
  const digits = step === 0 || rest >= 100 ? 0 : rest >= 10 ? 1 : 2;
  return { text: rest.toFixed(digits), unit: units[step] };
}

export const isBytes = (series) => series.endsWith("-bytes");

export const SERIES_NAMES = {
  "operations": "Reads and writes", "writes": "Writes", "reads": "Reads",
  "write-bytes": "Write bytes", "read-bytes": "Read bytes",
};

/** The series of the API, of which the page adds reads and writes up. */
export const API_SERIES = ["writes", "reads", "write-bytes", "read-bytes"];

/** Short: "12.3k", "4.00 MiB". */
export function short(value, series) {
  if (isBytes(series)) {
    const { text, unit } = scaled(value, 1024, BINARY);
    return `${text} ${unit}`;
  }
  const { text, unit } = scaled(value, 1000, SI);
  return text + unit;
}

/** What a rate is counted in. */
export const rateUnit = (series) => (isBytes(series) ? "B/s" : "ops/s");

/** A rate with its unit: "450 ops/s", "4.00 MiB/s", and "0.25 ops/s" below one. */
export function rate(value, series = "operations") {
  if (isBytes(series)) return `${short(value, series)}/s`;
  return `${rateNumber(value)} ops/s`;
}

/** A rate of operations without its unit. */
export function rateNumber(value) {
  if (value > 0 && value < 10) return String(Number(value.toPrecision(2)));
  return short(value, "operations");
}

const GROUPED = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** All digits, grouped. Above 2^53 a double does not hold them all, and the text says so. */
export function exact(value) {
  const text = GROUPED.format(value);
  return value > Number.MAX_SAFE_INTEGER ? `about ${text}` : text;
}

export function percent(part, whole) {
  if (whole === 0) return "0 %";
  const share = (100 * part) / whole;
  if (share > 0 && share < 0.01) return "< 0.01 %";
  return `${share >= 10 ? share.toFixed(0) : share >= 1 ? share.toFixed(1) : share.toFixed(2)} %`;
}

const pad = (number, width = 2) => String(number).padStart(width, "0");

function parts(ms, zone) {
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return null;
  const utc = zone === "utc";
  return {
    year: utc ? date.getUTCFullYear() : date.getFullYear(),
    month: (utc ? date.getUTCMonth() : date.getMonth()) + 1,
    day: utc ? date.getUTCDate() : date.getDate(),
    hour: utc ? date.getUTCHours() : date.getHours(),
    minute: utc ? date.getUTCMinutes() : date.getMinutes(),
    second: utc ? date.getUTCSeconds() : date.getSeconds(),
  };
}

/** "14:41:48", the clock of a time. */
export const clock = (ms, zone) => stamp(ms, zone).slice(11, 19);

/** The name of the zone that times are in. */
export const zoneName = (zone) =>
  zone === "utc" ? "UTC" : Intl.DateTimeFormat().resolvedOptions().timeZone || "local";

/** The day of a time: "Mon 2026-11-30". */
export function day(ms, zone) {
  const names = new Intl.DateTimeFormat("en-US", {
    weekday: "short",
    ...(zone === "utc" ? { timeZone: "UTC" } : {}),
  });
  return `${names.format(new Date(ms))} ${stamp(ms, zone).slice(0, 10)}`;
}

/** "2026-01-31 12:00:05", with "Z" in UTC. */
export function stamp(ms, zone) {
  const p = parts(ms, zone);
  if (!p) return `${ms} ms`;
  const day = `${p.year}-${pad(p.month)}-${pad(p.day)}`;
  const time = `${pad(p.hour)}:${pad(p.minute)}:${pad(p.second)}`;
  return `${day} ${time}${zone === "utc" ? "Z" : ""}`;
}

/** The value for a datetime-local field. */
export function fieldTime(ms, zone) {
  return stamp(ms, zone).replace(" ", "T").replace("Z", "");
}

export function parseFieldTime(text, zone) {
  const ms = Date.parse(zone === "utc" ? `${text}Z` : text);
  return Number.isNaN(ms) ? null : ms;
}

/** The text of a mark on the time axis, as coarse as the distance between marks allows. */
export function tick(ms, stepMs, zone) {
  const p = parts(ms, zone);
  if (!p) return "";
  if (stepMs >= 86_400_000 || (p.hour === 0 && p.minute === 0 && p.second === 0)) {
    return `${pad(p.month)}-${pad(p.day)}`;
  }
  const minutes = `${pad(p.hour)}:${pad(p.minute)}`;
  return stepMs >= 60_000 ? minutes : `${minutes}:${pad(p.second)}`;
}

export function span(ms) {
  /** @type {[number, string][]} */
  const units = [[86_400_000, "d"], [3_600_000, "h"], [60_000, "min"], [1_000, "s"]];
  for (const [size, name] of units) {
    if (ms >= size) return `${Number((ms / size).toFixed(ms % size === 0 ? 0 : 1))} ${name}`;
  }
  return `${Math.round(ms)} ms`;
}

/** The offset of the zone, so that marks fall on its whole hours and days. */
export function zoneOffset(ms, zone) {
  return zone === "utc" ? 0 : new Date(ms).getTimezoneOffset() * 60_000;
}
