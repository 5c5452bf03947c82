// What doctor found: tensors with their signs, findings, remedy.
const kMostListed = 200, kMostCards = 60;
const kViews = ["findings", "divergence", "exponents", "remedy"];
const kinds = {forward: "outputs", backward: "gradients of outputs", gradient: "gradients of parameters", update: "updates"};
const titles = {forward: (name) => name, backward: (name) => "gradient of " + name, gradient: (name) => "gradient of parameter " + name, update: (name) => "update of " + name};
const share_names = ["zero", "underflow", "subnormal", "overflow", "infinite", "nan", "lost_low", "lost_master"];
let chosen = null, listed = new Set();

data.tensors = data.tensors.map((row, id) => {
  const [node, kind, name, type, elements, counted, shares, largest, scale, low, full, differs, inputs] = row;
  const t = {id, node: data.names[node], kind, name: data.names[name], type: data.names[type], elements, counted, largest, scale, inputs, shares: {},
    low: low && {first: low[0], counts: low[1].map((c) => c / 10000)}, full: full && {first: full[0], counts: full[1].map((c) => c / 10000)}};
  share_names.forEach((share, i) => { if (shares[i] > 0) t.shares[share] = shares[i] / 1e6; });
  if (full) t.zero_full = full[2] / 1e6, t.largest_full = full[3];
  if (differs) [t.error, t.lost, t.worst_input, t.allowed] = differs;
  t.wide = t.type.startsWith("f32");
  t.title = titles[kind](t.name);
  t.text = (t.title + "\n" + t.node).toLowerCase();
  return t;
});
for (const finding of data.findings) if (finding.tensor >= 0 && !data.tensors[finding.tensor].cause) data.tensors[finding.tensor].cause = finding;

// Each says whether a tensor has it.
const signs = {
  finding: ["a finding", (t) => t.cause],
  differs: ["more distance than allowed", (t) => t.error !== undefined && !(finite(t.error) && t.error <= t.allowed)],
  beyond: ["values beyond " + data.low, (t) => !finite(t.largest) || (!t.wide && (t.shares.overflow || t.shares.infinite || t.shares.nan))],
  vanishes: ["values that vanish", (t) => !t.wide && (t.shares.underflow > 0.01 || (t.shares.zero || 0) > (t.zero_full || 0) + 0.01)],
  subnormal: ["subnormal values", (t) => !t.wide && t.shares.subnormal > 0.05],
  lost: ["updates that are lost", (t) => t.shares.lost_master > 0.1],
};
const orders = {computed: ["as computed", (t) => t.id], distance: ["largest distance first", (t) => (t.error === undefined ? 0 : finite(t.error) ? -t.error : -Infinity)],
  lost: ["most lost first", (t) => -((t.shares.underflow || 0) + (t.shares.overflow || 0) + (t.shares.infinite || 0) + (t.shares.nan || 0))]};

function fill_filters() {
  const tally = (test) => count_text(data.tensors.filter(test).length);
  select_of("by_kind", [["", "everything"], ...Object.entries(kinds).map(([kind, text]) => [kind, `${text} (${tally((t) => t.kind === kind)})`])]);
  select_of("by_sign", [["", "anything"], ...Object.entries(signs).map(([sign, [text, test]]) => [sign, `${text} (${tally(test)})`])]);
  select_of("by_order", Object.entries(orders).map(([order, [text]]) => [order, text]));
}

const distance_text = (t) => (t.error === undefined ? "" : finite(t.error) ? percent(t.error) : String(t.error));

function filter() {
  const words = at("search").value.toLowerCase().split(/\s+/).filter(Boolean), kind = at("by_kind").value, sign = at("by_sign").value, key = orders[at("by_order").value][1];
  const found = data.tensors.filter((t) => (!kind || t.kind === kind) && (!sign || signs[sign][1](t)) && words.every((word) => t.text.includes(word)));
  found.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : a.id - b.id));
  listed = new Set(found.map((t) => t.id));
  at("count").textContent = found.length < data.tensors.length ? `${count_text(found.length)} of ${count_text(data.tensors.length)} tensors` : `${count_text(data.tensors.length)} tensors`;
  const rows = found.slice(0, kMostListed).map((t) => element("li", {}, element("button", {type: "button", "data-tensor": t.id, "aria-current": t === chosen ? "true" : undefined, title: t.title, onclick: () => choose(t)},
    element("i", {class: "dot " + (t.cause || signs.differs[1](t) ? "bad" : "fine")}), element("span", {class: "name"}, "\u200e" + t.name + "\u200e"),
    element("span", {class: "operator"}, t.kind), element("span", {class: "type"}, distance_text(t) || "–"))));
  if (found.length > kMostListed) rows.push(element("li", {class: "soft"}, `and ${count_text(found.length - kMostListed)} more: search for them`));
  at("list").replaceChildren(...rows);
  draw_tensors(found);
}

function draw_tensors(found) {
  at("divergence_view").replaceChildren(element("p", {class: "soft"}, "How far each tensor of step 1 is from the fp32 run's (relative L2), in the order in which they are computed; lines lead from what the chosen one is computed of."),
    divergence_legend(), divergence_plot(choose, (t) => listed.has(t.id), chosen));
  const cards = found.slice(0, kMostCards).map((t) => element("button", {type: "button", class: "card", "data-tensor": t.id, onclick: () => choose(t)}, element("b", {title: t.title}, t.name), element("small", {}, t.kind + (t.error === undefined ? "" : ", apart " + distance_text(t))), exponents_plot(t)));
  at("exponents_view").replaceChildren(exponents_legend(), element("p", {class: "soft"}, `Binary exponents of all steps, the loss scale divided out; bars are as high as the root of their share. ` +
    (found.length > kMostCards ? `The first ${kMostCards} of ${count_text(found.length)} that match.` : "")), element("div", {class: "cards"}, ...cards));
}

function link_to(t, text = t.title) {
  return element("a", {class: "link", href: "#", onclick: (event) => (event.preventDefault(), choose(t))}, text);
}

function choose(t) {
  chosen = t;
  for (const button of at("list").querySelectorAll("[aria-current]")) button.removeAttribute("aria-current");
  const row = at("list").querySelector(`[data-tensor="${t.id}"]`);
  if (row) row.setAttribute("aria-current", "true");
  show_panel(t);
  if (!at("divergence_view").hidden) at("divergence_view").lastChild.replaceWith(divergence_plot(choose, (other) => listed.has(other.id), chosen));
}

function show_panel(t) {
  const parts = [element("h2", {}, t.title), element("p", {class: "soft"}, (t.node && t.node !== t.name ? `read by ${t.node}, ` : "") + t.type)];
  if (t.cause) parts.push(element("p", {class: "warning"}, t.cause.kind + ": " + t.cause.text));
  parts.push(exponents_plot(t, 130), exponents_legend());
  if (t.wide) parts.push(element("p", {class: "soft"}, `Stored in f32: the range of ${data.low} is no limit to it.`));
  const rows = Object.entries(t.shares).map(([name, share]) => [name.replaceAll("_", " "), percent(share)]);
  rows.push(["largest", short(t.largest)]);
  if (t.full) rows.push(["largest in fp32", short(t.largest_full)]);
  if (t.scale > 1) rows.push(["loss scale of step 1", short(t.scale)]);
  if (t.error !== undefined) rows.push(["apart from fp32", distance_text(t)], ["allowed", finite(t.allowed) ? percent(t.allowed) : String(t.allowed)], ["what it is computed of, at most", finite(t.worst_input) ? percent(t.worst_input) : String(t.worst_input)]);
  rows.push(["elements", count_text(t.elements)]);
  if (t.counted < t.elements) rows.push(["counted by exponent", count_text(t.counted)]);
  parts.push(element("h3", {}, "Measured"), table_of(["", "#"], rows));
  const inputs = t.inputs.map((i) => data.tensors[i]);
  if (inputs.length) parts.push(element("h3", {}, "Computed of"), table_of(["tensor", "#apart"], inputs.slice(0, 40).map((input) => [link_to(input), distance_text(input)])));
  at("panel").replaceChildren(...parts);
  at("panel").scrollTop = 0;
}

function show_view(name) {
  for (const view of kViews) {
    at("tab_" + view).setAttribute("aria-selected", String(view === name));
    at(view + "_view").hidden = view !== name;
  }
  if (name === "divergence" && chosen) choose(chosen);
}

function fill_findings() {
  const parts = [];
  if (!data.findings.length) parts.push(element("p", {}, "Healthy: nothing differs that precision is at fault for."));
  else parts.push(element("h2", {class: "section"}, "Findings, first cause first"), element("ol", {class: "causes"}, ...data.findings.map((f) =>
    element("li", {}, element("span", {class: "kind"}, f.kind), f.tensor >= 0 ? link_to(data.tensors[f.tensor], f.node) : f.node, ": " + f.text, f.remedy ? element("span", {class: "remedy"}, "remedy: " + f.remedy) : ""))));
  parts.push(element("h2", {class: "section"}, "Loss"), loss_legend(), loss_plot(), element("p", {id: "readout"}), element("p", {class: "soft"}, data.criterion[0].toUpperCase() + data.criterion.slice(1) + "."));
  if (data.stopped) parts.push(element("p", {class: "warning"}, data.stopped));
  if (data.skipped > 0) parts.push(element("p", {class: "soft"}, `${count_text(data.skipped)} tries of steps overflowed and were made again at a lower scale.`));
  if (data.loss_scale) parts.push(element("p", {class: "soft"}, `Loss scale ${count_text(data.loss_scale.fits)} fits: ${data.loss_scale.limited_by} is the first that would overflow above it.`));
  at("findings_view").replaceChildren(...parts);
}

function fill_remedy() {
  const settings = Object.entries(data.settings), parts = [element("p", {}, data.findings.length ? `Remedy: ${data.outcome} (${data.runs === 1 ? "one run" : data.runs + " runs"}).` + (data.fewest ? "" : " Maybe not the fewest nodes: the search was ended.") : "None is needed.")];
  if (settings.length) parts.push(element("h2", {class: "section"}, "The recipe needs"), table_of(["key", "value"], settings));
  if (data.rules.length) parts.push(element("h2", {class: "section"}, "In fp32"), table_of(["node", "because"], data.rules.map((rule) => [rule.node, rule.reason])));
  for (const finding of data.still) parts.push(element("p", {class: "warning"}, `still there: ${finding.kind} ${finding.node}: ${finding.text}`));
  if (data.policy) parts.push(element("h2", {class: "section"}, data.policy.file), element("pre", {id: "policy"}, data.policy.text));
  if (data.recipe) parts.push(element("p", {class: "soft"}, "With all changes: "), element("pre", {}, `halfstep train ${data.recipe}`));
  at("remedy_view").replaceChildren(...parts);
}

function fill_header() {
  const name = data.model.slice(data.model.lastIndexOf("/") + 1);
  document.title = name + ": doctor";
  at("model").textContent = name;
  at("assignment").textContent = `${data.precision}, preset ${data.preset}, ${data.device}`;
  const facts = [[count_text(data.losses.fp32.length), "steps side by side"], [data.findings.length ? count_text(data.findings.length) : "healthy", data.findings.length ? "findings" : "nothing found"],
    ...(data.findings.length ? [[data.outcome, "remedy"]] : []), ...(data.loss_scale ? [[count_text(data.loss_scale.fits), "loss scale that fits"]] : []), [count_text(data.tensors.length), "tensors"]];
  at("facts").replaceChildren(...facts.map(([value, label]) => element("li", {}, element("b", {}, value), label)));
}

fill_header(), fill_filters(), fill_findings(), fill_remedy(), filter();
at("search").addEventListener("input", filter);
for (const id of ["by_kind", "by_sign", "by_order"]) at(id).addEventListener("change", filter);
for (const name of kViews) at("tab_" + name).addEventListener("click", () => show_view(name));
const first = data.findings.find((f) => f.tensor >= 0);
if (data.tensors.length) choose(first ? data.tensors[first.tensor] : data.tensors.reduce((a, b) => ((b.error || 0) > (a.error || 0) ? b : a)));
