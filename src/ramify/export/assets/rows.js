"use strict";
// The tree as a flat list of rows: a node's row is on the page while all above it are open.
// Everything that comes from the document enters the page as text, never as markup.
const doc = JSON.parse(document.getElementById("document").textContent);
const root = doc.nodes[0];
const list = document.getElementById("rows");
const PREVIEW = 160; // characters of a row
const STEP = 18, SHORT_STEP = 6; // pixels to the right, below a fork and along a line

const byId = new Map(doc.nodes.map((node) => [node.id, node]));
const children = new Map(doc.nodes.map((node) => [node.id, []]));
const indent = new Map(); // pixels
const rank = new Map(); // id of an output -> 1 for the best, and so on
const best = new Set(); // ids on the path to the best output, from there upwards
const rowOf = new Map(); // id -> its row, while it is on the page

for (const node of doc.nodes.slice(1)) children.get(node.parent).push(node);
indent.set(root.id, 0);
for (const node of doc.nodes.slice(1)) {
  // a line without forks hardly moves to the right, however long it is
  const step = children.get(node.parent).length > 1 ? STEP : SHORT_STEP;
  indent.set(node.id, indent.get(node.parent) + step);
}
for (const id of doc.outputs) if (!rank.has(id)) rank.set(id, rank.size + 1);
for (let at = byId.get(doc.outputs[0]); at && at !== root; at = byId.get(at.parent)) {
  best.add(at.id);
}

const scores = doc.nodes.map((node) => node.score).filter((score) => score !== null);
const lowest = scores.reduce((a, b) => Math.min(a, b), 0);
const highest = scores.reduce((a, b) => Math.max(a, b), lowest);

function make(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

function count(number, one, many) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

function preview(node) {
  const text = node.text.trim().replace(/\n/g, " ⏎ ");
  if (!text) return node.token_ids.length ? "(no text)" : "(no tokens)";
  return text.length > PREVIEW ? text.slice(0, PREVIEW) + "…" : text;
}

// How a node's KV is shared: in a word, and in a sentence.
function sharing(node) {
  const from = node.forked_from;
  if (from !== null) return [`in #${from}`, `stored in node ${from}, whose first tokens these are`];
  const tokens = count(node.token_ids.length, "token", "tokens");
  const branches = count(node.num_branches, "branch", "branches");
  return [`×${node.num_branches}`, `${tokens}, stored once for ${branches}`];
}

function makeLabel(node) {
  const label = make("div", "label"), place = rank.get(node.id);
  label.style.paddingLeft = `min(${indent.get(node.id)}px, 45%)`; // deep nodes keep their text
  label.append(make("span", "toggle"));
  const output = place === 1 ? "★ best" : place ? `○ ${place}` : best.has(node.id) ? "★" : "";
  const fate = { pruned: "✗", growing: "…" }[node.state] ?? "";
  if (output || fate) label.append(make("span", "mark", `${output} ${fate}`.trim()));
  label.append(make("span", "text", preview(node)));
  const below = children.get(node.id).length;
  if (below > 1) label.append(make("span", "count", `${below} below`));
  return label;
}

function makeScore(node) {
  const cell = make("div", "num score");
  if (node.score === null) return cell;
  const bar = make("i"), share = (node.score - lowest) / (highest - lowest || 1);
  bar.style.width = `calc(${share.toFixed(4)} * (100% - 50px))`;
  const digits = Math.abs(node.score) < 1000 ? node.score.toFixed(3) : node.score.toPrecision(4);
  cell.append(bar, make("span", "", digits));
  return cell;
}

function makeRow(node) {
  const row = make("div", "row"), [word, sentence] = sharing(node);
  row.id = `node-${node.id}`;
  row.tabIndex = -1;
  row.setAttribute("role", "treeitem");
  row.setAttribute("aria-level", pathOf(node).length);
  row.setAttribute("aria-selected", "false");
  row.classList.toggle("pruned", node.state === "pruned");
  row.classList.toggle("best", best.has(node.id));
  if (children.get(node.id).length) row.setAttribute("aria-expanded", "false");
  else row.classList.add("leaf");
  const shared = make("div", "num kv"), isShared = node.num_branches > 1 || word[0] !== "×";
  shared.append(make(isShared ? "b" : "span", "", word));
  shared.title = sentence;
  row.append(makeLabel(node), makeScore(node), make("div", "num", node.token_ids.length), shared);
  row.addEventListener("click", (event) => {
    pick(node);
    if (event.target.className === "toggle") toggle(node);
  });
  row.addEventListener("dblclick", () => toggle(node));
  rowOf.set(node.id, row);
  return row;
}

function isOpen(node) {
  return rowOf.get(node.id)?.getAttribute("aria-expanded") === "true";
}

function open(node) {
  if (!children.get(node.id).length || isOpen(node)) return;
  const rows = document.createDocumentFragment();
  for (const child of children.get(node.id)) rows.append(makeRow(child));
  rowOf.get(node.id).after(rows);
  rowOf.get(node.id).setAttribute("aria-expanded", "true");
}

function close(node) {
  if (!isOpen(node)) return;
  const below = [...children.get(node.id)];
  while (below.length) {
    const gone = below.pop(), row = rowOf.get(gone.id);
    if (isOpen(gone)) below.push(...children.get(gone.id));
    row.remove();
    rowOf.delete(gone.id);
  }
  rowOf.get(node.id).setAttribute("aria-expanded", "false");
}

function toggle(node) {
  if (isOpen(node)) close(node);
  else open(node);
}

// Nodes from the root down to this one.
function pathOf(node) {
  const path = [];
  for (let at = node; at; at = byId.get(at.parent)) path.push(at);
  return path.reverse();
}

function reveal(node) {
  for (const above of pathOf(node).slice(0, -1)) open(above);
}
