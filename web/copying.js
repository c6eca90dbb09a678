// Copying text, also where the page has no clipboard: browsers give one to HTTPS and localhost
// only.

/** Whether the text was copied. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copySelected(text);
  }
}

/** The way of before clipboards: select a field with the text, and ask the document to copy it. */
function copySelected(text) {
  const focused = document.activeElement;
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "spoken";
  field.setAttribute("aria-hidden", "true");
  // Within an open dialog, nothing outside of it can be selected.
  (document.querySelector("dialog[open]") ?? document.body).append(field);
  field.select();
  let done = false;
  try {
    done = document.execCommand("copy");
  } catch {
    // Then it was refused.
  }
  field.remove();
  focused?.focus?.({ preventScroll: true });
  return done;
}
