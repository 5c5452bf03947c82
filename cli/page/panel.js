// The list, the panel of a node, and the tables.
const kMostListed = 150;
const kViews = ["graph", "casts", "weights", "doctor", "totals"];

function fill_filters() {
  const tally = (key) => {
    const counts = new Map();
    for (const node of everything) counts.set(key(node), (counts.get(key(node)) || 0) + 1);
    return [...counts].sort((a, b) => b[1] - a[1]).map(([value, count]) => [value, `${value} (${count})`]);
  };
  const kinds = {low: data.low || "low", full: "f32", other: "integers, booleans", gone: "computes nothing"};
  select_of("by_type", [["", "any type"], ...tally((node) => node.kind).map(([value, text]) => [value, text.replace(value, kinds[value])])]);
  select_of("by_operator", [["", "any operator"], ...tally((node) => node.operator)]);
  select_of("by_reason", [["", "any reason"], ...tally(reason_group)]);
  select_of("colour", Object.entries(modes).filter(([, mode]) => !mode.evidence || data.evidence.length).map(([value, mode]) => [value, mode.label]));
}

function filter() {
  const words = at("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const type = at("by_type").value, operator = at("by_operator").value, reason = at("by_reason").value;
  const found = everything.filter((node) => (!type || node.kind === type) && (!operator || node.operator === operator) &&
                                            (!reason || reason_group(node) === reason) && words.every((word) => node.text.includes(word)));
  matching = words.length || type || operator || reason ? new Set(found.map((node) => node.id)) : null;
  at("count").textContent = matching ? `${count_text(found.length)} of ${count_text(everything.length)} nodes` : `${count_text(everything.length)} nodes`;
  const listed = [...found.filter((node) => node.kind !== "gone"), ...found.filter((node) => node.kind === "gone")];
  const rows = listed.slice(0, kMostListed).map((node) => element("li", {}, element("button", {
    type: "button", "data-node": node.id, "aria-current": node === chosen ? "true" : undefined, title: node.name,
    onclick: () => choose(node, true)},
    element("i", {class: "dot " + node.kind}), element("span", {class: "name"}, "\u200e" + node.name + "\u200e"),
    element("span", {class: "operator"}, node.operator), element("span", {class: "type"}, node.types[2] || "–"))));
  if (found.length > kMostListed) rows.push(element("li", {class: "soft"}, `and ${count_text(found.length - kMostListed)} more: search for them`));
  at("list").replaceChildren(...rows);
  paint();
}

function link_to(name, most = Infinity) {
  const node = by_name.get(name), text = shortened(name, most);
  if (!node) return text === name ? name : element("span", {title: name}, text);
  return element("a", {class: "link", href: "#", title: text === name ? undefined : name, onclick: (event) => (event.preventDefault(), choose(node, true))}, text);
}

const value_type = (value) => `${value[2]}[${value[3].join(",")}]` + (value[4] ? ` ← ${value[4]}` : "");

function chip(label, type) {
  return element("span", {class: "chip " + kind_of(type, "computed")}, label + " ", element("b", {}, type || "–"));
}

function sections_of(node) {
  const parts = [element("div", {class: "chips"}, chip("reads", node.types[0]), chip("sums", node.types[1]), chip("writes", node.types[2]))];
  if (node.operands.length) parts.push(element("h3", {}, "Reads"), table_of(["!", "from", ":type"], node.operands.map((v) => [v[0], link_to(v[1]), value_type(v)])));
  const named = node.results.some((v) => v[1]);
  if (node.results.length)
    parts.push(element("h3", {}, "Writes"), table_of(named ? ["to", ":type"] : [":type"], node.results.map((v) => (named ? [v[1] ? link_to(v[1]) : "", value_type(v)] : [value_type(v)]))));
  const [flops, low, bytes, time, kept] = node.cost;
  if (time > 0)
    parts.push(element("h3", {}, "Costs a step"), table_of(["", "#"], [
      ["operations", flops_text(flops)], [`of these in ${data.low || "low types"}`, flops > 0 ? percent(low / flops) : "–"],
      ["traffic", bytes_text(bytes)], ["time, estimated", time_text(time)], ...(kept ? [["kept for the backward", bytes_text(kept)]] : [])]));
  return parts;
}

const places = {alone: "own kernel", beside: "both stored", in_kernel: "in a kernel", optimizer: "optimizer", none: "gone"};

function path_of(node) {
  const path = [];
  for (let from = node.from; from >= 0 && path.length < 200; from = nodes[from].from) path.push(nodes[from]);
  return path;
}

function histogram({first, width, counts}, shift) {
  const most = Math.max(1, ...counts), range = data.low === "bf16" ? [-126, 127] : [-24, 15], bar = 300 / counts.length;
  const svg = drawn("svg", {class: "histogram", viewBox: "0 0 300 74", role: "img", "aria-label": "exponents of its values"});
  counts.forEach((count, i) => {
    const height = 56 * Math.sqrt(count / most), exponent = first + i * width + shift;
    svg.append(drawn("rect", {x: i * bar, y: 58 - height, width: Math.max(0.5, bar - 0.5), height, class: exponent < range[0] || exponent > range[1] ? "out" : "in"}));
  });
  svg.append(drawn("text", {x: 0, y: 71}, "2^" + first), drawn("text", {x: 300, y: 71, "text-anchor": "end"}, "2^" + (first + counts.length * width)));
  return svg;
}

function evidence_parts(node) {
  const parts = [];
  for (const direction of ["forward", "backward", "update"])
    for (const item of evidence_of.get(node.name + " " + direction) || []) {
      parts.push(element("h3", {}, `Measured, ${direction}` + (item.value ? `: ${item.value}` : "")));
      const rows = Object.entries(item.shares).filter(([name, share]) => share > 0 || name === "underflow" || name === "overflow")
        .map(([name, share]) => [name.replaceAll("_", " "), percent(share)]);
      if (item.largest !== undefined) rows.push(["largest", typeof item.largest === "number" ? item.largest.toPrecision(4) : String(item.largest)]);
      const apart = item.difference && item.difference.relative_l2;
      if (apart !== undefined) rows.push(["apart from fp32", typeof apart === "number" ? percent(apart) : String(apart)]);
      if (rows.length) parts.push(table_of(["", "#"], rows));
      if (item.exponents && item.exponents.counts.length) parts.push(histogram(item.exponents, item.shift));
    }
  return parts;
}

function show_panel(node) {
  const parts = [element("h2", {}, node.name), element("p", {class: "soft"}, node.operator + (node.scope ? " in " + node.scope : ""))];
  parts.push(node.into >= 0 ? element("p", {}, node.reason.slice(0, node.reason.indexOf("'")), link_to(nodes[node.into].name)) : element("p", {}, node.reason));
  if (node.rule) parts.push(element("p", {class: "soft"}, `rule: ${node.rule}`));
  const path = path_of(node);
  if (path.length)
    parts.push(element("h3", {}, "Its type comes from"), element("ol", {class: "path"}, ...path.map((next, i) =>
      element("li", {}, link_to(next.name), i === path.length - 1 ? element("span", {class: "soft"}, " " + next.reason) : ""))));
  parts.push(...sections_of(node));
  const casts = casts_of.get(node.name) || [];
  if (casts.length)
    parts.push(element("h3", {}, "Casts before it"), table_of(["of", ":types", "#moved"], casts.map((cast) =>
      [element("span", {}, link_to(cast.from), element("span", {class: "soft"}, ` ${cast.phase}, ${places[cast.place]}`)), `${cast.was}→${cast.is}`, bytes_text(cast.moved)])));
  parts.push(...evidence_parts(node));
  if (node.backward) parts.push(element("h2", {class: "second"}, "Backward"), ...sections_of(node.backward));
  at("panel").replaceChildren(...parts);
  at("panel").scrollTop = 0;
}

function choose(node, centred) {
  chosen = node;
  show_panel(node);
  for (const button of at("list").querySelectorAll("[aria-current]")) button.removeAttribute("aria-current");
  const listed = at("list").querySelector(`[data-node="${node.id}"]`);
  if (listed) listed.setAttribute("aria-current", "true");
  if (centred) show_view("graph"), reveal(node);
  else paint();
}

function show_view(name) {
  for (const view_name of kViews) {
    at("tab_" + view_name).setAttribute("aria-selected", String(view_name === name));
    at(view_name + "_view").hidden = view_name !== name;
  }
  at("panel").hidden = name !== "graph";
  for (const tool of document.querySelectorAll(".tool, .tools")) tool.hidden = name !== "graph";
}

// Tables whose columns sort.
function sortable(into, head, rows, intro) {
  let order = null;
  const fill = () => {
    const sorted = order === null ? rows : [...rows].sort((a, b) => (order.down ? -1 : 1) * (a[order.column].key > b[order.column].key ? 1 : a[order.column].key < b[order.column].key ? -1 : 0));
    const table = table_of(head, sorted.map((row) => row.map((cell) => (cell.name !== undefined ? link_to(cell.name, 40) : cell.text))));
    table.querySelectorAll("thead th").forEach((th, column) => {
      const text = th.textContent;
      th.replaceChildren(element("button", {type: "button", onclick: () => (order = {column, down: !(order && order.column === column && order.down)}, fill())},
                                 text + (order && order.column === column ? (order.down ? " ↓" : " ↑") : "")));
    });
    at(into).replaceChildren(element("p", {class: "soft"}, intro), table);
  };
  fill();
}

const as_name = (name) => ({name, key: name});
const as_text = (text) => ({text, key: text});
const as_number = (key, text) => ({text: text ?? count_text(key), key});

function fill_tables() {
  const t = data.totals;
  sortable("casts_view", ["from", "before", "!phase", ":types", "#elements", "#if alone", "#moved", "!where", "why"], data.casts.map((cast) => [
    as_name(cast.from), as_name(cast.at), as_text(cast.phase), as_text(`${cast.was} → ${cast.is}`), as_number(cast.elements),
    as_number(cast.bytes, bytes_text(cast.bytes)), as_number(cast.moved, bytes_text(cast.moved)), as_text(places[cast.place]), as_text(cast.reason.replace(/'[^']*'/g, (quoted) => shortened(quoted, 30)))]),
    `${count_text(data.casts.length)} casts: ${bytes_text(t.cast_moved_bytes)} a step are moved for them, ${bytes_text(t.cast_bytes)} if each stood alone. ` +
    `${count_text(t.casts_in_kernels)} more stand between what kernels read and compute with.`);
  sortable("weights_view", ["weight", "#elements", "#overflow", "#become 0", "#subnormal", "#largest"], data.weights.map((w) => [
    as_text(w.name), as_number(w.elements), as_number(w.overflow), as_number(w.underflow), as_number(w.subnormal), as_number(w.largest, w.largest.toPrecision(4))]),
    data.weights.length ? `Values of the weights beside the range of ${data.low}.` : "Weights were not looked at" + (data.weights_unknown ? ": " + data.weights_unknown : "."));
  at("tab_doctor").hidden = data.findings.length === 0;
  at("doctor_view").replaceChildren(element("p", {class: "soft"}, "What doctor found, first cause first."),
    table_of(["!kind", "node", "!where", "what", "remedy"], data.findings.map((f) =>
      [String(f.kind ?? ""), link_to(String(f.node ?? ""), 48), String(f.direction ?? ""), String(f.text ?? ""), String(f.remedy ?? "")])));
  const rows = [["assignment", `${data.precision}, preset ${data.preset}, batch ${data.batch}`], ["", data.summary],
    ["operations", `${percent(t.low_share)} of ${flops_text(t.flops)} in ${data.low || "low types"}`],
    ["kernels and library calls", count_text(t.calls)], ["traffic", bytes_text(t.bytes)],
    ["casts", `${count_text(t.casts)}: ${bytes_text(t.cast_moved_bytes)} moved for them`],
    ["activations", `${bytes_text(t.activation_bytes)} kept for the backward; fp32 keeps ${bytes_text(t.activation_bytes_fp32)}`],
    ["step, estimated", `${time_text(t.estimated_microseconds)}; in fp32 ${time_text(t.estimated_microseconds_fp32)}`],
    ["estimated for", data.machine], ...(data.step_unknown ? [["no training step", data.step_unknown]] : [])];
  at("totals_view").replaceChildren(table_of(["", ""], rows));
}

function fill_header() {
  const t = data.totals, name = data.model.slice(data.model.lastIndexOf("/") + 1);
  document.title = name + ": precision";
  at("model").textContent = name;
  at("assignment").textContent = `${data.precision}, preset ${data.preset}, batch ${data.batch}`;
  const beyond = data.weights.filter((w) => w.overflow + w.underflow > 0).length;
  const facts = [[percent(t.low_share), `operations in ${data.low || "low types"}`], [bytes_text(t.cast_moved_bytes), "moved for casts"],
    [bytes_text(t.activation_bytes), `activations; fp32 ${bytes_text(t.activation_bytes_fp32)}`],
    [time_text(t.estimated_microseconds), `a step, estimated; fp32 ${time_text(t.estimated_microseconds_fp32)}`],
    ...(data.weights.length ? [[count_text(beyond), "weights beyond range"]] : [])];
  at("facts").replaceChildren(...facts.map(([value, label]) => element("li", {}, element("b", {}, value), label)));
}

fill_header(), fill_filters(), fill_tables(), open_first(), listen_to_graph();
at("search").addEventListener("input", filter);
for (const id of ["by_type", "by_operator", "by_reason"]) at(id).addEventListener("change", filter);
at("colour").addEventListener("change", paint);
for (const name of kViews) at("tab_" + name).addEventListener("click", () => show_view(name));
({width: box.width, height: box.height} = at("graph_view").getBoundingClientRect());
draw(), filter(), fit_width();
const most_costly = nodes.filter((node) => node.cluster !== undefined).reduce((a, b) => (a && a.time >= b.time ? a : b), null);
if (most_costly) chosen = most_costly, show_panel(most_costly), paint();
