// The node's HTTP API. The token is kept in memory and nowhere else.

/** An error answer, with the message of the server. */
export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** The node did not answer. */
export class Unreachable extends Error {}

let token = "";
let clockOffsetMs = 0;

export function setToken(text) {
  token = text.trim();
}

/** The time by the node's clock, estimated from its answers. */
export const serverNow = () => Date.now() + clockOffsetMs;

function learnClock(response, askedMs) {
  const date = Date.parse(response.headers.get("date") ?? "");
  if (Number.isNaN(date)) return;
  // The header has whole seconds: half a second is the best estimate of the rest.
  const offset = date + 500 - (askedMs + Date.now()) / 2;
  clockOffsetMs = Math.abs(offset) > 2_000 ? offset : 0;
}

/**
 * @param {string} path
 * @param {any} parameters
 * @param {{accept?: string, headers?: object} & RequestInit} options
 */
function send(path, parameters, { accept = "application/json", headers = {}, ...options } = {}) {
  const query = new URLSearchParams(parameters).toString();
  /** @type {Record<string, string>} */
  const all = { accept, ...headers };
  if (token) all.authorization = `Bearer ${token}`;
  // Paths are relative, because a proxy may serve the page under a path of its own. The boundaries
  // of rows are too long for a URL and are sent in the body.
  if (parameters.boundaries) {
    all["content-type"] = "application/x-www-form-urlencoded";
    /** @type {RequestInit} */
    const posted = { method: "POST", body: query, headers: all, cache: "no-store" };
    return fetch(`api/v1/${path}`, { ...posted, ...options });
  }
  return fetch(`api/v1/${path}${query ? `?${query}` : ""}`, {
    headers: all,
    cache: "no-store",
    ...options,
  });
}

export const ask = (path, parameters = {}, signal = undefined) =>
  answerOf(() => send(path, parameters, { signal }));

/** Requests a change. */
export const change = (path, body) =>
  answerOf(() =>
    send(
      path,
      {},
      {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      },
    ),
  );

/** A stream of events, from after `cursor` if there is one. */
export async function openStream(path, parameters, cursor, signal) {
  const headers = cursor ? { "last-event-id": cursor } : {};
  let response;
  try {
    response = await send(path, parameters, { accept: "text/event-stream", headers, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable("the node does not answer");
  }
  if (!response.ok) await answerOf(async () => response);
  return response;
}

async function answerOf(send) {
  const askedMs = Date.now();
  let response;
  let body;
  try {
    response = await send();
    body = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable("the node does not answer");
  }
  learnClock(response, askedMs);
  let json;
  try {
    json = JSON.parse(body);
  } catch {
    throw new ApiError(
      response.status,
      "GARBAGE",
      `the node answered ${response.status} with something that is not JSON: ${body.slice(0, 300)}`,
    );
  }
  if (!response.ok) {
    throw new ApiError(
      response.status,
      String(json?.code ?? response.status),
      String(json?.message ?? body.slice(0, 300)),
    );
  }
  return json;
}
