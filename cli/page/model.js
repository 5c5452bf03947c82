// What is looked up in the report.
const nodes = data.nodes, clusters = data.clusters, kOptimizer = "optimizer";
const by_name = new Map(), backward_of = new Map(), casts_of = new Map(), evidence_of = new Map();
for (const node of [...nodes, ...data.update]) {
  node.reason = data.strings[node.reason];
  if (!by_name.has(node.name)) by_name.set(node.name, node);
}
for (const node of data.backward) {
  node.reason = data.strings[node.reason];
  backward_of.set(node.name, node);
}
for (const cast of data.casts)
  for (const name of new Set([cast.at, ...cast.to])) {
    if (!casts_of.has(name)) casts_of.set(name, []);
    casts_of.get(name).push(cast);
  }
for (const item of data.evidence.map(as_evidence)) {
  const key = item.node + " " + item.direction;
  if (!evidence_of.has(key)) evidence_of.set(key, []);
  evidence_of.get(key).push(item);
}
const everything = [...nodes, ...data.update];
everything.forEach((node, i) => {
  node.id = i;
  node.text = [node.name, node.operator, node.reason, node.fate].join("\n").toLowerCase();
  node.kind = kind_of(node.types[2], node.fate);
  const backward = backward_of.get(node.name);
  node.backward = node.phase === "update" ? undefined : backward;
  node.time = node.cost[3] + (backward ? backward.cost[3] : 0);
  node.traffic = node.cost[2] + (backward ? backward.cost[2] : 0);
  node.flops = node.cost[0] + (backward ? backward.cost[0] : 0);
});

function kind_of(type, fate) {
  if (["folded", "constant", "unused", "weight"].includes(fate) || !type) return "gone";
  return type === "f16" || type === "bf16" ? "low" : type === "f32" || type === "f64" ? "full" : "other";
}

// "contraction", "follows", "part of": what filters and colours group reasons by.
function reason_group(node) {
  const text = node.reason.replace(/'[^]*'/g, "…").replace(/ …$/, "").replace(/, its readers take .*/, "");
  return text.length > 48 ? text.slice(0, 47) + "…" : text;
}

// Shares by name, and counts of exponents from the first one on, `width` to each.
function as_evidence(item) {
  const result = {node: item.node, wide: typeof item.type === "string" && item.type.startsWith("f32"), direction: item.direction, value: item.value, shares: {}, largest: item.max, difference: item.difference,
    shift: item.scale > 0 ? Math.log2(item.scale) : 0};  // of what the type holds, by the loss scale
  if (item.low && typeof item.low === "object")
    for (const [name, share] of Object.entries(item.low)) if (typeof share === "number") result.shares[name] = share;
  if (item.counted > 0)
    for (const name of ["zero", "underflow", "subnormal", "overflow", "infinite", "nan", "lost_low", "lost_master"])
      if (typeof item[name] === "number") result.shares[name] = item[name] / item.counted;
  const counts = item.exponents;
  if (Array.isArray(counts)) result.exponents = {first: item.first_exponent ?? -counts.length / 2, width: 1, counts};
  else if (counts && Array.isArray(counts.counts)) result.exponents = {first: counts.first ?? 0, width: counts.width ?? 1, counts: counts.counts};
  return result;
}

// The largest share that the type does not hold.
function badness(node, direction) {
  const items = evidence_of.get(node.name + " " + direction);
  if (!items) return undefined;
  let worst = 0;
  for (const item of items)
    for (const [name, share] of Object.entries(item.wide ? {} : item.shares))
      if (name !== "zero" && name !== "subnormal" && share <= 1) worst = Math.max(worst, share);
  return worst;
}
