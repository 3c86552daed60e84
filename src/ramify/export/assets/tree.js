"use strict";
// Everything that comes from the document enters the page as text, never as markup.
const doc = JSON.parse(document.getElementById("document").textContent);
const PREVIEW = 160, ABOVE = 400; // characters of a row; of the path shown above a node
const byId = new Map(), children = new Map(), indent = new Map(), best = new Set(), rank = new Map();
const rowOf = new Map(); // id -> its row, while it is on the page
const list = document.getElementById("rows"), panel = document.getElementById("panel");
let picked = null, lowest = 0, highest = 0;

function make(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}
const count = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
const short = (x) => Math.abs(x) >= 1000 ? x.toPrecision(4) : x.toFixed(3);
const bytes = (n) => n < 1048576 ? `${(n / 1024).toFixed(1)} KiB` : `${(n / 1048576).toFixed(1)} MiB`;

function prepare() {
  for (const node of doc.nodes) { byId.set(node.id, node); children.set(node.id, []); }
  for (const node of doc.nodes) if (node.parent !== null) children.get(node.parent).push(node);
  for (const node of doc.nodes) {
    // a line without forks hardly moves to the right, however long it is
    const step = node.parent === null ? 0 : children.get(node.parent).length > 1 ? 18 : 6;
    indent.set(node.id, node.parent === null ? 0 : indent.get(node.parent) + step);
  }
  doc.outputs.forEach((id, place) => { if (!rank.has(id)) rank.set(id, place + 1); });
  for (let at = byId.get(doc.outputs[0]); at && at.parent !== null; at = byId.get(at.parent)) best.add(at.id);
  const scores = doc.nodes.map((n) => n.score).filter((s) => s !== null);
  lowest = scores.reduce((a, b) => Math.min(a, b), 0);
  highest = scores.reduce((a, b) => Math.max(a, b), lowest);
}

function preview(node) {
  const text = node.text.trim().replace(/\n/g, " ⏎ ");
  return text.length > PREVIEW ? text.slice(0, PREVIEW) + "…" : text || (node.token_ids.length ? "(no text)" : "(no tokens)");
}
function kvOf(node) {
  if (node.forked_from !== null) return [`in #${node.forked_from}`, `stored in node ${node.forked_from}, of which it is a part`];
  const tokens = count(node.token_ids.length, "token", "tokens");
  return [`×${node.num_branches}`, `${tokens}, stored once for ${count(node.num_branches, "branch", "branches")}`];
}

function makeRow(node) {
  const kids = children.get(node.id), row = make("div", "row");
  row.id = `node-${node.id}`;
  row.tabIndex = -1;
  row.setAttribute("role", "treeitem");
  row.setAttribute("aria-selected", String(node === picked));
  row.classList.toggle("pruned", node.state === "pruned");
  row.classList.toggle("best", best.has(node.id));
  if (kids.length) row.setAttribute("aria-expanded", "false"); else row.classList.add("leaf");
  const label = make("div", "label"), place = rank.get(node.id);
  label.style.paddingLeft = `min(${indent.get(node.id)}px, 45%)`; // deep nodes keep their text
  label.append(make("span", "toggle"));
  const marks = [
    place === 1 ? "★ best" : place ? `○ ${place}` : best.has(node.id) ? "★" : "",
    { pruned: "✗", growing: "…" }[node.state] ?? "",
  ].filter(Boolean);
  if (marks.length) label.append(make("span", "mark", marks.join(" ")));
  label.append(make("span", "text", preview(node)));
  if (kids.length > 1) label.append(make("span", "count", `${kids.length} below`));
  const score = make("div", "num score");
  if (node.score !== null) {
    const bar = make("i");
    const share = highest > lowest ? (node.score - lowest) / (highest - lowest) : 0;
    bar.style.width = `calc(${share.toFixed(4)} * (100% - 50px))`;
    score.append(bar, make("span", "", short(node.score)));
  }
  const [kv, why] = kvOf(node), shared = make("div", "num kv");
  shared.append(make(node.num_branches > 1 || node.forked_from !== null ? "b" : "span", "", kv));
  shared.title = why;
  row.append(label, score, make("div", "num", node.token_ids.length), shared);
  row.addEventListener("click", (event) => {
    pick(node);
    if (event.target.className === "toggle") toggle(node);
  });
  row.addEventListener("dblclick", () => toggle(node));
  rowOf.set(node.id, row);
  return row;
}

const isOpen = (node) => rowOf.get(node.id)?.getAttribute("aria-expanded") === "true";
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
const toggle = (node) => (isOpen(node) ? close(node) : open(node));
function pathOf(node) {
  const path = [];
  for (let at = node; at; at = byId.get(at.parent)) path.unshift(at);
  return path;
}
function reveal(node) { for (const above of pathOf(node).slice(0, -1)) open(above); }

function pick(node, scroll) {
  if (picked && rowOf.has(picked.id)) rowOf.get(picked.id).setAttribute("aria-selected", "false");
  picked = node;
  const row = rowOf.get(node.id);
  row.setAttribute("aria-selected", "true");
  row.focus({ preventScroll: true });
  if (scroll) row.scrollIntoView({ block: "nearest" });
  describe(node);
}
function link(id) {
  const to = make("a", "", `#${id}`);
  to.addEventListener("click", () => { reveal(byId.get(id)); pick(byId.get(id), true); });
  return to;
}
function facts(pairs) {
  const found = make("dl", "facts");
  for (const [name, value] of pairs) {
    if (value === null || value === undefined) continue;
    const cell = make("dd");
    cell.append(value instanceof Node ? value : String(value));
    found.append(make("dt", "", name), cell);
  }
  return found;
}
function tokenSpan(node, place) {
  const text = node.token_texts.length ? node.token_texts[place] : `${node.token_ids[place]} `;
  const span = make("span", "", text.replace(/\n/g, "⏎\n") || "·");
  const logprob = node.token_logprobs ? node.token_logprobs[place] : null;
  let tip = `token ${node.token_ids[place]}`;
  if (logprob !== null) {
    const p = Math.exp(logprob);
    span.classList.add("known");
    span.style.setProperty("--p", p.toFixed(4));
    tip += `\nlogprob ${logprob.toFixed(4)}\nprobability ${p < 0.001 ? p.toExponential(1) : p.toFixed(3)}`;
  }
  span.title = tip;
  return span;
}
function describe(node) {
  const tokens = make("div", "tokens"), above = pathOf(node).slice(0, -1).map((n) => n.text).join("");
  if (above) tokens.append(make("span", "above", (above.length > ABOVE ? "…" : "") + above.slice(-ABOVE)));
  node.token_ids.forEach((_, place) => tokens.append(tokenSpan(node, place)));
  const scale = make("div", "scale");
  if (node.token_logprobs && node.token_logprobs.length) scale.append("probable", make("i"), "improbable");
  panel.replaceChildren(
    make("h2", "", `Node ${node.id}${rank.has(node.id) ? ` · output ${rank.get(node.id)}` : ""}`),
    facts([
      ["level", pathOf(node).length - 1],
      ["parent", node.parent === null ? null : link(node.parent)],
      ["state", node.state + (node.finish_reason ? `, ended by ${node.finish_reason}` : "")],
      ["stopped at", node.stop_reason === null ? null : JSON.stringify(node.stop_reason)],
      ["score", node.score],
      ["path logprob", node.parent === null || node.cumulative_logprob === null ? null : node.cumulative_logprob.toFixed(4)],
      ["KV", kvOf(node)[1]],
      ["forked from", node.forked_from === null ? null : link(node.forked_from)],
    ]),
    make("h3", "", node.parent === null ? "Prompt" : "Path, and the tokens of this node"), tokens, scale);
}

function numbers() {
  const stored = doc.nodes.reduce((sum, n) => sum + (n.forked_from === null ? n.token_ids.length : 0), 0);
  const alone = doc.nodes.reduce((sum, n) => sum + n.token_ids.length * n.num_branches, 0);
  const cut = doc.nodes.filter((n) => n.state === "pruned").length, usage = doc.usage;
  const box = document.getElementById("numbers");
  for (const [name, value] of [
    ["nodes" + (cut ? `, ${cut} cut` : ""), doc.nodes.length.toLocaleString("en")],
    ["branches", doc.nodes[0].num_branches.toLocaleString("en")],
    ["tokens generated", usage.generated_tokens.toLocaleString("en")],
    ["tokens computed", usage.computed_tokens.toLocaleString("en")],
    ["KV stored once", bytes(stored * doc.kv_bytes_per_token)],
    ["branch by branch", bytes(alone * doc.kv_bytes_per_token)],
    ["KV shared", `${(alone / Math.max(stored, 1)).toFixed(1)}×`],
    ["seconds", usage.total_s.toFixed(2)],
    ...Object.entries(doc.stats),
  ]) {
    const pair = make("div");
    pair.append(make("dt", "", name), make("dd", "", value));
    box.append(pair);
  }
}

let hits = [], hit = -1;
function search(query) {
  const wanted = query.toLowerCase();
  hits = wanted ? doc.nodes.filter((n) => n.text.toLowerCase().includes(wanted) || `#${n.id}` === wanted) : [];
  hit = -1;
  document.getElementById("found").textContent = wanted ? count(hits.length, "node", "nodes") : "";
}
function nextHit(back) {
  if (!hits.length) return;
  hit = (hit + (back ? hits.length - 1 : 1)) % hits.length;
  reveal(hits[hit]);
  const box = document.activeElement;
  pick(hits[hit], true);
  box.focus();
  document.getElementById("found").textContent = `${hit + 1} of ${hits.length}`;
}
function onKey(event) {
  const shown = [...list.children].filter((row) => row.offsetParent !== null);
  const at = shown.indexOf(rowOf.get(picked.id));
  const go = (row) => row && pick(byId.get(Number(row.id.slice(5))), true);
  const act = {
    ArrowDown: () => go(shown[at + 1]),
    ArrowUp: () => go(shown[at - 1]),
    ArrowRight: () => (isOpen(picked) ? go(shown[at + 1]) : open(picked)),
    ArrowLeft: () => (isOpen(picked) ? close(picked) : picked.parent !== null && pick(byId.get(picked.parent), true)),
    Enter: () => toggle(picked),
    " ": () => toggle(picked),
  }[event.key];
  if (act) { event.preventDefault(); act(); }
}

function start() {
  prepare();
  numbers();
  const root = doc.nodes[0];
  list.append(makeRow(root));
  const home = () => { close(root); open(root); for (const id of [...best].reverse()) open(byId.get(id)); };
  home();
  document.getElementById("expand").addEventListener("click", () => doc.nodes.forEach(open));
  document.getElementById("collapse").addEventListener("click", () => { close(root); pick(root, true); });
  document.getElementById("best").addEventListener("click", () => { home(); pick(byId.get(doc.outputs[0] ?? root.id), true); });
  document.getElementById("alive").addEventListener("change", (e) => list.classList.toggle("alive", e.target.checked));
  const box = document.getElementById("search");
  box.addEventListener("input", () => search(box.value));
  box.addEventListener("keydown", (e) => { if (e.key === "Enter") nextHit(e.shiftKey); });
  list.addEventListener("keydown", onKey);
  pick(byId.get(doc.outputs[0] ?? root.id));
}
start();
