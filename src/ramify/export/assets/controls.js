// What a reader does: pick a node, walk by keys, search, open and close the whole tree.
let picked = null;
let hits = [], hit = -1; // nodes that were found, and the one that is shown

function pick(node, scroll) {
  const old = picked && rowOf.get(picked.id), row = rowOf.get(node.id);
  if (old) {
    old.setAttribute("aria-selected", "false");
    old.tabIndex = -1;
  }
  picked = node;
  row.setAttribute("aria-selected", "true");
  row.tabIndex = 0;
  row.focus({ preventScroll: true });
  if (scroll) row.scrollIntoView({ block: "nearest" });
  describe(node);
}

function onKey(event) {
  const shown = [...list.children].filter((row) => row.offsetParent !== null);
  const at = shown.indexOf(rowOf.get(picked.id)), parent = byId.get(picked.parent);
  const go = (row) => row && pick(byId.get(Number(row.id.slice("node-".length))), true);
  const act = {
    ArrowDown: () => go(shown[at + 1]),
    ArrowUp: () => go(shown[at - 1]),
    ArrowRight: () => (isOpen(picked) ? go(shown[at + 1]) : open(picked)),
    ArrowLeft: () => (isOpen(picked) ? close(picked) : parent && pick(parent, true)),
    Enter: () => toggle(picked),
    " ": () => toggle(picked),
  }[event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

function search(query) {
  const wanted = query.toLowerCase();
  const fits = (node) => node.text.toLowerCase().includes(wanted) || `#${node.id}` === wanted;
  hits = wanted ? doc.nodes.filter(fits) : [];
  hit = -1;
  const found = wanted ? count(hits.length, "node", "nodes") : "";
  document.getElementById("found").textContent = found;
}

function nextHit(back) {
  if (!hits.length) return;
  hit = (hit + (back ? hits.length - 1 : 1)) % hits.length;
  const box = document.activeElement;
  reveal(hits[hit]);
  pick(hits[hit], true);
  box.focus();
  document.getElementById("found").textContent = `${hit + 1} of ${hits.length}`;
}

// The root and the best path open, all else closed.
function openBest() {
  close(root);
  open(root);
  for (const id of [...best].reverse()) open(byId.get(id));
}

function on(id, event, act) {
  document.getElementById(id).addEventListener(event, act);
}

function start() {
  const first = byId.get(doc.outputs[0]) ?? root;
  showNumbers();
  list.append(makeRow(root));
  openBest();
  pick(first);
  on("best", "click", () => {
    openBest();
    pick(first, true);
  });
  on("expand", "click", () => doc.nodes.forEach(open));
  on("collapse", "click", () => {
    close(root);
    pick(root, true);
  });
  on("alive", "change", (event) => list.classList.toggle("alive", event.target.checked));
  on("search", "input", (event) => search(event.target.value));
  on("search", "keydown", (event) => {
    if (event.key === "Enter") nextHit(event.shiftKey);
  });
  list.addEventListener("keydown", onKey);
}

start();
