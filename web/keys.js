// Keys: as the API writes them ("text" or "hex:..."), as bytes, and as text that is safe to show.

const encoder = new TextEncoder();

/** The bytes of a key from the form of the API. */
export function keyBytes(text) {
  if (!text.startsWith("hex:")) return encoder.encode(text);
  const hex = text.slice(4);
  const bytes = new Uint8Array(hex.length >> 1);
  for (let at = 0; at < bytes.length; at += 1) {
    bytes[at] = Number.parseInt(hex.slice(2 * at, 2 * at + 2), 16) || 0;
  }
  return bytes;
}

/** The form of the API: the text of a key if all of it can be shown, else `hex:` and digits. */
export function keyText(bytes) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    if (!text.startsWith("hex:") && showKey(text) === text) return text;
  } catch {
    // Not text.
  }
  return `hex:${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

export function compareBytes(a, b) {
  const length = Math.min(a.length, b.length);
  for (let at = 0; at < length; at += 1) {
    if (a[at] !== b[at]) return a[at] - b[at];
  }
  return a.length - b.length;
}

// Characters that are invisible, or that change the direction or place of others.
const HIDDEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}\p{Cs}\u034f\u115f\u1160\u3164\uffa0]/gu;
// Marks that stack on the character before them: a run of them can paint over other rows.
const STACKED = /(\p{M}{2})\p{M}+/gu;

/**
 * The text of a key of bytes if most of them are text, with the others as `\\xff`; else the digits.
 */
function readable(text) {
  const bytes = keyBytes(text);
  let plain = 0;
  for (const byte of bytes) if (byte >= 0x20 && byte < 0x7f) plain += 1;
  if (plain * 4 < bytes.length * 3) return text;
  return Array.from(bytes, (byte) =>
    byte >= 0x20 && byte < 0x7f
      ? String.fromCharCode(byte)
      : `\\x${byte.toString(16).padStart(2, "0")}`,
  ).join("");
}

/** A key as shown: no invisible characters, and none that reorder the text around it. */
export function showKey(text) {
  if (text.startsWith("hex:")) return readable(text);
  return text
    .replace(HIDDEN, (char) => `\\u{${char.codePointAt(0).toString(16)}}`)
    .replace(STACKED, "$1…");
}

export const showStart = (text) => (text === "" ? "(first key)" : showKey(text));
export const showEnd = (text) => (text === null ? "(end)" : showKey(text));

/** Whether a range holds its first key alone. */
export const isOneKey = ({ start, end }) =>
  end !== null && compareBytes(keyBytes(end), [...keyBytes(start), 0]) === 0;

/** The end of a range, for people. */
export const endOf = (range) => (isOneKey(range) ? "(one key)" : showEnd(range.end));

/** At most `most` characters, with the middle left out: both ends distinguish keys. */
export function elide(text, most) {
  const chars = Array.from(text);
  if (chars.length <= most) return text;
  const tail = Math.floor((most - 1) * 0.45);
  const end = tail > 0 ? chars.slice(-tail).join("") : "";
  return `${chars.slice(0, most - 1 - tail).join("")}…${end}`;
}

const SEPARATOR = /[/:.|#_-]/;

/** The first level of a key: up to and with its first separator. */
export function folder(key) {
  const text = showKey(key);
  if (text.startsWith("hex:")) return text.slice(0, 6);
  const at = text.search(SEPARATOR);
  return at < 0 ? "" : text.slice(0, at + 1);
}
