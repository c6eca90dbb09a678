// Elements of the page. Whatever comes from a cluster is text and never markup.

import { elide } from "./keys.js";

/**
 * The element of an id. It is in the page, and of a kind that is known by its id.
 * @type {(id: string) => any}
 */
export const at = (id) => document.getElementById(id);

/**
 * All elements of a selector.
 * @type {(selector: string) => any[]}
 */
export const all = (selector) => [...document.querySelectorAll(selector)];

/**
 * An element with text or children; `on...` are its listeners.
 * @returns {any}
 */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const LONGEST_KEY = 160;

export function keyElement(shown, name = "span", most = LONGEST_KEY) {
  const attributes = { class: "key" };
  if (shown.length > most) attributes.title = shown.slice(0, 4_200);
  return element(name, attributes, elide(shown, most));
}

/** A term and what is said of it, for a `dl`. */
export const pair = (name, value) => [element("dt", {}, name), element("dd", {}, value)];

export const button = (label, onclick, more = {}) =>
  element("button", { type: "button", onclick, ...more }, label);

const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** Bars, one a value, the highest as high as `most`. */
export function bars(values, most, label) {
  const viewBox = `0 0 ${Math.max(1, values.length)} 10`;
  const looks = { class: "hot-bars", viewBox, preserveAspectRatio: "none" };
  const drawing = svg("svg", { ...looks, role: "img", "aria-label": label });
  values.forEach((value, x) => {
    const height = most > 0 ? (value / most) * 10 : 0;
    if (height > 0) drawing.append(svg("rect", { x, y: 10 - height, width: 0.9, height }));
  });
  return drawing;
}
