// The routes and the cluster as tables.

import { element, keyElement } from "./element.js";
import { exact, short, span, stamp } from "./format.js";
import { compareBytes, keyBytes, showEnd, showStart } from "./keys.js";

/** A table of 100,000 rows would stop the browser; the search narrows it down. */
const MOST_ROWS = 500;

/** Routes in key order, with the bytes of their start keys. */
export function readRoutes(json) {
  const routes = (Array.isArray(json?.routes) ? json.routes : []).map((route) => ({
    id: Number(route.route_id),
    start: String(route.start ?? ""),
    end: typeof route.end === "string" ? route.end : null,
    group: Number(route.group_id),
    leader: route.leader ?? null,
    parents: Array.isArray(route.parents) ? route.parents : [],
    version: Number(route.created_version),
    ms: Number(route.created_ms),
  }));
  routes.forEach((route, at) => Object.assign(route, { at, bytes: keyBytes(route.start) }));
  return {
    cluster: String(json?.cluster_id ?? ""),
    version: Number(json?.catalog_version ?? 0),
    routes,
  };
}

/** The position of the route that holds a key. */
export function routeOf(routes, bytes) {
  let low = 0;
  let high = routes.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (compareBytes(routes[middle].bytes, bytes) <= 0) low = middle + 1;
    else high = middle;
  }
  return Math.max(0, low - 1);
}

/** Whether two key ranges overlap. */
export function overlaps(a, b) {
  const before = (end, start) => end !== null && compareBytes(keyBytes(end), keyBytes(start)) <= 0;
  return !before(a.end, b.start) && !before(b.end, a.start);
}

/**
 * The load of each route in the window, by its index in `routes`: exact if its rows have no other
 * route, else with an equal share of the sum of a row of several routes, and `about` is set.
 */
export function loads(routes, matrix) {
  const known = new Map();
  if (routes.length === 0) return known;
  matrix?.rows.forEach((row, y) => {
    const first = routeOf(routes, keyBytes(row.start));
    let last = routes.length - 1;
    if (row.end !== null) {
      const end = keyBytes(row.end);
      last = routeOf(routes, end);
      if (compareBytes(routes[last].bytes, end) === 0) last -= 1;
    }
    const count = Math.max(1, last - first + 1);
    for (let at = first; at <= last; at += 1) {
      const { sum, about } = known.get(at) ?? { sum: 0, about: false };
      known.set(at, { sum: sum + matrix.rowSums[y] / count, about: about || count > 1 });
    }
  });
  return known;
}

const ORDERS = {
  key: () => 0,
  load: (a, b) => (b.load?.sum ?? -1) - (a.load?.sum ?? -1),
  age: (a, b) => b.ms - a.ms || b.id - a.id,
  group: (a, b) => a.group - b.group,
};

/**
 * Routes that match a search: for `#id` the route with this id only; else the route with this id,
 * the one that contains the key, and those that start with it.
 */
function found(routes, find) {
  if (find === "") return routes;
  if (/^#\d+$/.test(find)) return routes.filter((route) => `#${route.id}` === find);
  const bytes = keyBytes(find);
  const holder = routes[routeOf(routes, bytes)];
  const starts = (route) => route.bytes.length >= bytes.length
    && compareBytes(route.bytes.subarray(0, bytes.length), bytes) === 0;
  return routes.filter((route) => route === holder || String(route.id) === find || starts(route));
}

export function showRoutes(
  body,
  counter,
  catalog,
  matrix,
  { find, sort, zone, linked, cluster, series },
  does,
) {
  const known = loads(catalog.routes, matrix);
  const all = catalog.routes.map((route) => ({ ...route, load: known.get(route.at) }));
  const matching = found(all, find).sort(ORDERS[sort] ?? ORDERS.key);
  const shown = matching.slice(0, MOST_ROWS);
  const many = matching.length === 1 ? "1 route" : `${exact(matching.length)} routes`;
  const cut = matching.length > shown.length ? `, the first ${exact(shown.length)} shown` : "";
  counter.textContent = `${many} of catalog version ${exact(catalog.version)}${cut}`;
  const made = shown.map((route) => {
    const open = () => does.open(route);
    const load = route.load
      ? `${route.load.about ? "about " : ""}${short(route.load.sum, series)}`
      : "";
    const dark = () => does.light(null);
    const line = element(
      "tr",
      {
        tabindex: "0",
        "data-route": String(route.id),
        title: "Show it in the heatmap",
        onclick: open,
        onkeydown: (event) => {
          if (event.key === "Enter") open();
        },
        onpointerenter: () => does.light(route),
        onpointerleave: dark,
        onfocus: () => does.light(route),
        onblur: dark,
      },
      element("td", {}, String(route.id)),
      keyElement(showStart(route.start), "td"),
      keyElement(showEnd(route.end), "td"),
      element("td", {}, String(route.group)),
      element("td", {}, leaderOf(route, cluster)),
      element(
        "td",
        { class: "wide" },
        route.parents.length > 0 ? route.parents.join(" + ") : "bootstrap",
      ),
      element("td", { class: "wide" }, route.ms > 0 ? stamp(route.ms, zone) : ""),
      element("td", { class: "number" }, load),
      element(
        "td",
        { class: "acts" },
        act("Split", `Split route ${route.id}`, () => does.split(route)),
        mergeable(catalog.routes, route)
          ? act("Merge", `Merge route ${route.id} with the next`, () => does.merge(route))
          : null,
      ),
    );
    lines.set(line, route);
    return line;
  });
  const kept = focusIn(body);
  body.replaceChildren(...made);
  linkRoutes(body, linked, false);
  kept?.();
}

/**
 * The leader of a route's group. The cluster status knows it better, because leaders change without
 * the routes.
 */
function leaderOf(route, cluster) {
  const group = cluster?.groups?.find((each) => each.group_id === route.group);
  const leader = group ? group.leader : route.leader;
  return leader == null ? "none known" : `node ${leader}`;
}

/** The route or group of each line of a table. */
const lines = new WeakMap();

/** Remembers which line and button of a table has the focus. The returned function restores it. */
function focusIn(body) {
  const line = document.activeElement?.closest?.("tr");
  if (!line || !body.contains(line)) return null;
  const { route } = line.dataset;
  const buttons = [...line.querySelectorAll("button")];
  const button = buttons.findIndex((each) => each === document.activeElement);
  return () => {
    const again = body.querySelector(`tr[data-route="${route}"]`);
    (button < 0 ? again : again?.querySelectorAll("button")[button])?.focus({
      preventScroll: true,
    });
  };
}

/** Highlights the routes of a row of the heatmap; with `scroll`, scrolls to the first. */
function linkRoutes(body, row, scroll) {
  let first = null;
  for (const line of body.children) {
    const is = row !== null && overlaps(lines.get(line), row);
    line.classList.toggle("linked", is);
    if (is) first ??= line;
  }
  const box = body.closest(".scroll");
  if (!scroll || !first || !box || box.clientHeight === 0) return;
  const [above, below] = [first.offsetTop - 30, first.offsetTop + first.offsetHeight];
  if (above < box.scrollTop || below > box.scrollTop + box.clientHeight)
    box.scrollTop = above - box.clientHeight / 3;
}

/** Highlights the routes and the group of a row of the heatmap in both tables. */
export function linkTables({ routes, groups }, row) {
  linkRoutes(routes, row, true);
  for (const line of groups.children)
    line.classList.toggle("linked", lines.get(line) === row.group);
}

/** A button in a line that can itself be clicked. */
function act(text, label, run) {
  const stop = (event) => event.stopPropagation();
  return element(
    "button",
    {
      type: "button",
      "aria-label": label,
      onkeydown: stop,
      onclick: (event) => {
        stop(event);
        run();
      },
    },
    text,
  );
}

/** The next route if it is in the same group and can be merged; else `null`. */
export function mergeable(routes, route) {
  const next = routes[route.at + 1];
  return next && next.group === route.group ? next : null;
}

/** `lost`: no node answers, and `cluster` is the last known state. */
export function showCluster(cluster, lost, { line, members, groups }, linked, does) {
  const list = (value) => (Array.isArray(value) ? value : []);
  line.textContent = [
    `Cluster ${cluster.cluster_id}, catalog version ${exact(Number(cluster.catalog_version))}`,
    movesText(cluster),
    cluster.removed ?? "",
  ]
    .filter((part) => part !== "")
    .join("; ");
  members.replaceChildren(...list(cluster.members).map((member) => element("tr", {},
    element("td", {}, `${member.id}${member.voter ? "" : " (learner)"}`),
    element("td", {}, String(member.address)),
    element("td", { class: lost ? "dim" : stateClass(member) }, stateText(member, lost)),
    element("td", {}, String(member.catalog_version)),
    element("td", {}, String(member.version ?? "")),
    element("td", { class: "number" }, member.ok ? span(Number(member.uptime_ms)) : ""),
    element("td", { class: "number" }, member.ok ? `${member.latency_ms} ms` : ""))));
  groups.replaceChildren(...list(cluster.groups).map((group) => {
    const made = groupLine(group, list(group.replicas), does);
    made.classList.toggle("linked", linked !== null && linked.group === group.group_id);
    lines.set(made, group.group_id);
    return made;
  }));
}

/** The state of a member: ready, read-only because its disk is full, leaving, and so on. */
function stateText(member, lost) {
  if (lost) return `not known now; before: ${stateText(member, false)}`;
  if (!member.ok) return `does not answer: ${member.error}`;
  const states = [
    member.read_only ? `read-only: ${member.read_only}` : "",
    member.leaving ? "leaving" : "",
    member.not_ready ? `not ready: ${member.not_ready}` : "",
  ];
  return states.filter((state) => state !== "").join("; ") || "answers";
}

const stateClass = (member) =>
  !member.ok || member.read_only || member.not_ready ? "bad" : "good";

/** The moves of replicas that remain; `null`: the node does not know. */
function movesText({ moves_left: left, moves_waiting: waiting }) {
  if (left === undefined || left === 0) return "";
  if (left === null) return "this node does not know what is left to move";
  const wait = waiting > 0 ? `, ${exact(waiting)} of them wait for members that do not answer` : "";
  return `${exact(left)} replicas left to move${wait}`;
}

function groupLine(group, replicas, does) {
  return element(
    "tr",
    { onpointerenter: () => does.light(group.group_id), onpointerleave: () => does.light(null) },
    element("td", {}, group.group_id === 0 ? "0 (catalog)" : String(group.group_id)),
    element(
      "td",
      { class: group.leader == null ? "bad" : "" },
      group.leader == null ? "none known" : `node ${group.leader}`,
    ),
    element("td", { class: "number" }, String(group.term)),
    element("td", { class: "number" }, String(group.routes)),
    element("td", {}, replicas.map(replicaText).join(" · ")),
  );
}

function replicaText(replica) {
  const role = replica.role || "no answer";
  const lag = replica.lag == null ? "" : `, ${exact(Number(replica.lag))} behind`;
  return `node ${replica.node_id}: ${role}${replica.voter ? "" : " (learner)"}${lag}`;
}
