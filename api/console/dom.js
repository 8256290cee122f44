// Makes and changes elements. Text is always text: nothing here reads HTML.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
  return node;
}

// A node that says the same is left alone: screen readers and selections keep their place.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function mark(node, name, value) {
  if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

// Children by key: what stays is kept, so that focus in a row survives the next frame.
export function sync(parent, items, key, make, update) {
  const known = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  const wanted = new Set(items.map((item) => String(key(item))));
  for (const [name, node] of known) if (!wanted.has(name)) node.remove();
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let node = known.get(name);
    if (!node) {
      node = make(item);
      node.dataset.key = name;
    }
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
    update(node, item);
  }
}

// A table with a caption for those who cannot see its heading, or a sentence while it is empty.
// A column has `text(row)`, or `make(row)` once and `update(node, row)` at every frame.
export function table({ caption, columns, key, empty, opens }) {
  const body = h("tbody");
  const head = h("tr", {}, ...columns.map((one) => h("th", { scope: "col", class: one.class }, one.title)));
  const nothing = h("p", { class: "empty" }, ...empty);
  const whole = h("table", {}, h("caption", { class: "hidden" }, caption), h("thead", {}, head), body);
  const scroller = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, whole);
  const make = () => {
    const row = h("tr");
    row.append(...columns.map((one) => h(one.heads ? "th" : "td", { class: one.class, scope: one.heads ? "row" : null })));
    return row;
  };
  const update = (row, item) => {
    row.item = item;
    columns.forEach((one, index) => paint(row.children[index], one, row, item));
  };
  return {
    node: h("div", {}, nothing, scroller),
    show(items) {
      nothing.hidden = items.length > 0;
      scroller.hidden = items.length === 0;
      sync(body, items, key, make, update);
    },
  };
}

function paint(cell, column, row, item) {
  if (column.text) {
    say(cell, column.text(item));
    if (column.hint) mark(cell, "title", column.hint(item));
  } else {
    if (!cell.firstChild) cell.append(column.make(row, item));
    column.update(cell.firstChild, item);
  }
  if (column.state) mark(cell, "data-state", column.state(item));
}
