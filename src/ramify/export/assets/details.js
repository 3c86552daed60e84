// What the page says beside the rows: of the whole tree, and of the node that is picked.
const panel = document.getElementById("panel");
const ABOVE = 400; // characters of the path before a node

function bytes(number) {
  const mib = number / 1048576;
  return mib < 1 ? `${(number / 1024).toFixed(1)} KiB` : `${mib.toFixed(1)} MiB`;
}

function showNumbers() {
  const sum = (of) => doc.nodes.reduce((total, node) => total + of(node), 0);
  const stored = sum((node) => (node.forked_from === null ? node.token_ids.length : 0));
  const alone = sum((node) => node.token_ids.length * node.num_branches);
  const cut = sum((node) => Number(node.state === "pruned"));
  const box = document.getElementById("numbers");
  for (const [name, value] of [
    ["nodes" + (cut ? `, ${cut} cut` : ""), doc.nodes.length.toLocaleString("en")],
    ["branches", root.num_branches.toLocaleString("en")],
    ["tokens generated", doc.usage.generated_tokens.toLocaleString("en")],
    ["tokens computed", doc.usage.computed_tokens.toLocaleString("en")],
    ["KV stored once", bytes(stored * doc.kv_bytes_per_token)],
    ["branch by branch", bytes(alone * doc.kv_bytes_per_token)],
    ["KV shared", `${(alone / Math.max(stored, 1)).toFixed(1)}×`],
    ["seconds", doc.usage.total_s.toFixed(2)],
    ...Object.entries(doc.stats),
  ]) {
    const pair = make("div");
    pair.append(make("dt", "", name), make("dd", "", value));
    box.append(pair);
  }
}

function link(id) {
  if (id === null) return null;
  const to = make("a", "", `#${id}`);
  to.addEventListener("click", () => {
    reveal(byId.get(id));
    pick(byId.get(id), true);
  });
  return to;
}

// Names and what they are; null is left out.
function facts(pairs) {
  const found = make("dl", "facts");
  for (const [name, value] of pairs) {
    if (value === null) continue;
    const cell = make("dd");
    cell.append(value);
    found.append(make("dt", "", name), cell);
  }
  return found;
}

function tokenSpan(node, place) {
  const text = node.token_texts.length ? node.token_texts[place] : `${node.token_ids[place]} `;
  const span = make("span", "", text.replace(/\n/g, "⏎\n") || "·");
  const logprob = node.token_logprobs ? node.token_logprobs[place] : null;
  span.title = `token ${node.token_ids[place]}`;
  if (logprob !== null) {
    const p = Math.exp(logprob), digits = p < 0.001 ? p.toExponential(1) : p.toFixed(3);
    span.classList.add("known");
    span.style.setProperty("--p", p.toFixed(4));
    span.title += `\nlogprob ${logprob.toFixed(4)}\nprobability ${digits}`;
  }
  return span;
}

function makeTokens(node) {
  const tokens = make("div", "tokens");
  const above = pathOf(node).slice(0, -1).map((step) => step.text).join("");
  const cut = above.length > ABOVE ? "…" : "";
  if (above) tokens.append(make("span", "above", cut + above.slice(-ABOVE)));
  node.token_ids.forEach((_, place) => tokens.append(tokenSpan(node, place)));
  return tokens;
}

function describe(node) {
  const output = rank.has(node.id) ? ` · output ${rank.get(node.id)}` : "";
  const isRoot = node === root, logprob = isRoot ? null : node.cumulative_logprob;
  const scale = make("div", "scale");
  if (node.token_logprobs?.length) scale.append("probable", make("i"), "improbable");
  panel.replaceChildren(
    make("h2", "", `Node ${node.id}${output}`),
    facts([
      ["level", pathOf(node).length - 1],
      ["parent", link(node.parent)],
      ["state", node.state + (node.finish_reason ? `, ended by ${node.finish_reason}` : "")],
      ["stopped at", node.stop_reason === null ? null : JSON.stringify(node.stop_reason)],
      ["score", node.score],
      ["path logprob", logprob === null ? null : logprob.toFixed(4)],
      ["KV", sharing(node)[1]],
      ["forked from", link(node.forked_from)],
    ]),
    make("h3", "", isRoot ? "Prompt" : "Path, and the tokens of this node"),
    makeTokens(node),
    scale,
  );
}
