// The node's HTTP API. The token lives here, in memory, and nowhere else.

/** An answer that is an error, with what the server said. */
export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** No answer at all. */
export class Unreachable extends Error {}

let token = "";
let clockOffsetMs = 0;

export function setToken(text) {
  token = text.trim();
}

/** The time by the node's clock, as far as its answers tell. */
export const serverNow = () => Date.now() + clockOffsetMs;

function learnClock(response, askedMs) {
  const date = Date.parse(response.headers.get("date") ?? "");
  if (Number.isNaN(date)) return;
  // The header counts whole seconds: half of one is the best guess of what it cut off.
  const offset = date + 500 - (askedMs + Date.now()) / 2;
  clockOffsetMs = Math.abs(offset) > 2_000 ? offset : 0;
}

function send(path, parameters, { accept = "application/json", headers = {}, ...options } = {}) {
  const query = new URLSearchParams(parameters).toString();
  const all = { accept, ...headers };
  if (token) all.authorization = `Bearer ${token}`;
  return fetch(`/api/v1/${path}${query ? `?${query}` : ""}`, {
    headers: all,
    cache: "no-store",
    ...options,
  });
}

export const ask = (path, parameters, signal) => answerOf(() => send(path, parameters, { signal }));

/** Asks for a change. */
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

/** A stream of events, from after `cursor` on where there is one. */
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
      `the node answered ${response.status} with something that is no JSON: ${body.slice(0, 300)}`,
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
