// Builds elements. Text always becomes a text node, so nothing that a peer sent is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

export const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// Changes the text of an element only if it differs, so that a screen reader does not say it again.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Our own sentences, with what is between backticks as code.
export const prose = (text) => text.split("`").map((part, k) => (k % 2 ? h("code", null, part) : part));

// A table: `columns` are {name, number}, each row a list of texts or nodes. On a phone every cell shows its column.
export function table(columns, rows, caption) {
  const cell = (value, k) =>
    h(k ? "td" : "th", { scope: k ? null : "row", class: columns[k].number ? "number" : null, "data-column": columns[k].name }, value);
  return h(
    "table",
    null,
    caption && h("caption", { class: "hidden" }, caption),
    h("thead", null, h("tr", null, columns.map((c) => h("th", { scope: "col", class: c.number ? "number" : null }, c.name)))),
    h("tbody", null, rows.map((row) => h("tr", null, row.map(cell)))),
  );
}
