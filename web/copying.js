// Copies text, even if the page has no clipboard: browsers offer one only to HTTPS and localhost.

import { element } from "./element.js";

/** Returns whether the text was copied. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copySelected(text);
  }
}

/** The older way: selects a field with the text, and has the document copy it. */
function copySelected(text) {
  /** @type {any} */
  const focused = document.activeElement;
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "spoken";
  field.setAttribute("aria-hidden", "true");
  // While a dialog is open, nothing outside of it can be selected.
  (document.querySelector("dialog[open]") ?? document.body).append(field);
  field.select();
  let done = false;
  try {
    done = document.execCommand("copy");
  } catch {
    // The browser refused.
  }
  field.remove();
  focused?.focus?.({ preventScroll: true });
  return done;
}

/** A button that copies, and says so. */
export function copyButton(label, text) {
  const button = element("button", { type: "button" }, label);
  button.addEventListener("click", async () => {
    button.textContent = (await copyText(text)) ? "Copied" : "The browser refused";
    setTimeout(() => { button.textContent = label; }, 1_500);
  });
  return button;
}
