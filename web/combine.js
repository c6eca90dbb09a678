// Several series as one picture: the sum of matrices on the same axes, and the rows to ask all of
// them with.

import { compareBytes, keyBytes } from "./keys.js";
import { finish } from "./matrix.js";

const sameColumns = (a, b) =>
  a.width === b.width &&
  a.columns.every(({ start, end }, x) => b.columns[x].start === start && b.columns[x].end === end);

const sameRows = (a, b) =>
  a.height === b.height && a.rows.every(({ start, end }, y) =>
    b.rows[y].start === start && b.rows[y].end === end);

/** Blocks of the same place and keys, added up. */
function joinBlocks(parts) {
  const known = new Map();
  for (const block of parts.flatMap((part) => part.blocks)) {
    const { column, columns, row, rows, start, end, straddling } = block;
    const name = JSON.stringify([column, columns, row, rows, start, end, straddling]);
    const before = known.get(name);
    if (before) {
      before.value += block.value;
      before.conflict ||= block.conflict;
    } else {
      known.set(name, { ...block });
    }
  }
  return [...known.values()];
}

function joinRoles(parts, y) {
  const roles = {};
  for (const part of parts) {
    for (const [role, value] of Object.entries(part.rows[y].roles ?? {}))
      roles[role] = (roles[role] ?? 0) + Number(value);
  }
  return roles;
}

/** What all of the answers list, each once. */
const listed = (parts, name) => {
  const known = new Map();
  for (const each of parts.flatMap((part) => part[name])) known.set(JSON.stringify(each), each);
  return [...known.values()];
};

/** The sum of the parts under the name of `series`; `null`: their axes are not the same. */
export function combine(parts, series) {
  const [first, ...others] = parts;
  if (others.length === 0) return first;
  if (others.some((part) => !sameColumns(first, part) || !sameRows(first, part))) return null;
  const values = first.values.slice();
  const flags = first.flags.slice();
  for (const part of others) {
    for (let at = 0; at < values.length; at += 1) {
      values[at] += part.values[at];
      flags[at] |= part.flags[at];
    }
  }
  const missing = parts.find((part) => part.responded < part.expected) ?? first;
  const most = (name) => parts.reduce((sum, part) => sum + part[name], 0);
  const joined = finish({
    ...first,
    series,
    parts,
    rows: first.rows.map((row, y) => ({ ...row, roles: joinRoles(parts, y) })),
    values,
    flags,
    blocks: joinBlocks(parts),
    rounded: parts.some((part) => part.rounded),
    axisGain: Math.max(...parts.map((part) => part.axisGain)),
    unattributed: most("unattributed"),
    nodes: missing.nodes,
    responded: missing.responded,
    expected: missing.expected,
    saturated: parts.some((part) => part.saturated),
    conflicts: listed(parts, "conflicts"),
    eventsTruncated: parts.some((part) => part.eventsTruncated),
  });
  // Where cells are rounded, the sums of the node are exact.
  joined.total = most("total");
  joined.straddling = most("straddling");
  if (joined.rounded) {
    for (const name of ["rowSums", "columnSums"]) {
      joined[name] = Float64Array.from(first[name], (_, at) =>
        parts.reduce((sum, part) => sum + part[name][at], 0));
    }
  }
  return joined;
}

/**
 * The starts of rows that tell the load of all plans apart, at most `most`: the boundaries of each,
 * less those between the neighbours that have the least load together.
 */
export function jointRows(plans, most) {
  const starts = new Map();
  for (const { rows } of plans)
    for (const { start } of rows) starts.set(start, keyBytes(start));
  const all = [...starts].sort(([, a], [, b]) => compareBytes(a, b));
  const loads = new Float64Array(all.length);
  for (const { rows, rowSums } of plans) {
    let at = 0;
    rows.forEach(({ end }, y) => {
      const first = at;
      const last = end === null ? null : keyBytes(end);
      while (at < all.length && (last === null || compareBytes(all[at][1], last) < 0)) at += 1;
      for (let each = first; each < at; each += 1) loads[each] += rowSums[y] / (at - first);
    });
  }
  const kept = all.map(([start], at) => ({ start, load: loads[at] }));
  while (kept.length > most) {
    let least = 1;
    for (let at = 2; at < kept.length; at += 1) {
      if (kept[at].load + kept[at - 1].load < kept[least].load + kept[least - 1].load) least = at;
    }
    kept[least - 1].load += kept[least].load;
    kept.splice(least, 1);
  }
  return kept.map(({ start }) => start);
}
