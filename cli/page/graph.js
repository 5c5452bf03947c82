// The graph: clusters that open in place. Graphviz placed the items of each cluster as if all in it were closed; an
// open one pushes its neighbours apart.
const kTitle = 24, kMargin = 16, kGapX = 18, kGapY = 26;
const open = new Set([0]);
const view = {x: 0, y: 0, scale: 1};
const shown = {nodes: new Map(), clusters: new Map(), edges: []};
let chosen = null, matching = null;

clusters.forEach((cluster, i) => {
  cluster.id = i, cluster.children = [], cluster.all = [];
});
clusters.forEach((cluster) => cluster.items.forEach((item) => {
  if (item[0] < 0) clusters[-item[0]].parent = cluster.id;
  else nodes[item[0]].cluster = cluster.id;
}));
for (const node of nodes)
  if (node.cluster !== undefined)
    for (let c = node.cluster; c !== undefined; c = clusters[c].parent) clusters[c].all.push(node);

// Sizes and places of a cluster's items, relative to it.
function arrange(cluster) {
  const rows = new Map();
  for (const [id, x, y, w, h] of cluster.items) {
    const item = {id, x, y, w, h, was_h: h, inside: null};
    if (id < 0 && open.has(-id)) {
      item.inside = arrange(clusters[-id]);
      item.w = item.inside.w + 2 * kMargin, item.h = item.inside.h + kTitle + kMargin;
    }
    if (!rows.has(y)) rows.set(y, []);
    rows.get(y).push(item);
  }
  const items = [];
  let bottom = 0, old_bottom = null, least = Infinity, most = -Infinity;
  for (const y of [...rows.keys()].sort((a, b) => a - b)) {
    const row = rows.get(y).sort((a, b) => a.x - b.x);
    const height = Math.max(...row.map((item) => item.h)), old_height = Math.max(...row.map((item) => item.was_h));
    const gap = old_bottom === null ? 0 : Math.max(kGapY, y - old_height / 2 - old_bottom);
    const middle = bottom + gap + height / 2;
    bottom += gap + height, old_bottom = y + old_height / 2;
    let right = -Infinity, moved = 0;
    for (const item of row) {
      const left = Math.max(item.x - item.w / 2, right + kGapX);
      moved += left + item.w / 2 - item.x;
      item.left = left, right = left + item.w;
    }
    for (const item of row) {
      item.left -= moved / row.length, item.top = middle - item.h / 2;
      least = Math.min(least, item.left), most = Math.max(most, item.left + item.w);
      items.push(item);
    }
  }
  for (const item of items) item.left -= least;
  return {w: items.length ? most - least : 0, h: bottom, items};
}

function place(arranged, left, top) {
  for (const item of arranged.items) {
    const box = {x: left + item.left, y: top + item.top, w: item.w, h: item.h};
    if (item.id >= 0) {
      shown.nodes.set(item.id, {...box, node: nodes[item.id]});
    } else {
      shown.clusters.set(-item.id, {...box, cluster: clusters[-item.id], open: item.inside !== null});
      if (item.inside) place(item.inside, box.x + kMargin, box.y + kTitle);
    }
  }
}

// The item that stands for a node: itself, or the closed cluster that it is in.
function stand_in(id) {
  const inside = [];
  for (let c = nodes[id].cluster; c; c = clusters[c].parent) inside.push(c);
  for (const c of inside.reverse()) if (!open.has(c)) return shown.clusters.get(c);
  return shown.nodes.get(id);
}

function draw() {
  shown.nodes.clear(), shown.clusters.clear(), shown.edges = [];
  const whole = arrange(clusters[0]);
  shown.w = whole.w, shown.h = whole.h;
  place(whole, 0, 0);
  const boxes = document.createDocumentFragment(), things = document.createDocumentFragment();
  for (const item of shown.clusters.values()) {
    if (!item.open) {
      things.append(drawn_item(item, item.cluster, true));
      continue;
    }
    boxes.append(drawn("rect", {x: item.x, y: item.y, width: item.w, height: item.h}));
    const title = drawn("text", {class: "title", x: item.x + 12, y: item.y + 16, tabindex: 0, role: "button",
                                 "aria-label": "close " + item.cluster.name, "data-item": -item.cluster.id}, "▾ " + shortened(item.cluster.name, Math.max(12, item.w / 8)));
    things.append(title);
  }
  for (const item of shown.nodes.values()) things.append(drawn_item(item, item.node, false));
  const edges = drawn_edges();
  paint(), move();
  at("boxes").replaceChildren(boxes), at("edges").replaceChildren(edges), at("nodes").replaceChildren(things);
}

function drawn_item(item, what, is_cluster) {
  const label = is_cluster ? `open ${what.name}, ${what.all.length} nodes` : `${what.operator} ${what.name}, ${what.types[2] || "no type"}`;
  const group = drawn("g", {class: "node", transform: `translate(${item.x},${item.y})`, tabindex: 0, role: "button", "aria-label": label,
                            "data-item": is_cluster ? -what.id : what.id});
  group.append(drawn("rect", {class: "body", width: item.w, height: item.h}));
  if (is_cluster) {
    let x = 10;
    const counts = {};
    for (const node of what.all) counts[node.kind] = (counts[node.kind] || 0) + 1;
    for (const kind of ["low", "full", "other", "gone"]) {
      const width = (item.w - 20) * (counts[kind] || 0) / Math.max(1, what.all.length);
      if (width > 0) group.append(drawn("rect", {class: "bar " + kind, x, y: 38, width, height: 5}));
      x += width;
    }
  }
  item.element = group, item.fill = "", item.classes = "node", item.written = false;
  return group;
}

// The texts of an item, once it is seen.
function write(item) {
  item.written = true;
  const most = Math.floor((item.w - 14) / 6.6), {node, cluster} = item;
  const name = node ? node.name.slice(node.name.lastIndexOf("/") + 1) || node.name : cluster.all.length + " nodes";
  item.element.append(drawn("text", {x: 10, y: node ? 16 : 18}, node ? shortened(node.operator, most) : "▸ " + shortened(cluster.name, most - 2)),
                      drawn("text", {class: "small", x: 10, y: node ? 30 : 32}, shortened(name, Math.floor(most * 1.18))));
}

function drawn_edges() {
  const lifted = new Map();
  for (const [from, to, cast] of data.edges) {
    const a = stand_in(from), b = stand_in(to);
    if (!a || !b || a === b) continue;
    const key = (a.node ? a.node.id : -a.cluster.id) + " " + (b.node ? b.node.id : -b.cluster.id);
    const known = lifted.get(key);
    if (known) known.cast = known.cast || cast;
    else lifted.set(key, {a, b, cast});
  }
  const paths = document.createDocumentFragment();
  for (const edge of lifted.values()) {
    const {a, b} = edge;
    const x1 = a.x + a.w / 2, y1 = a.y + a.h, x2 = b.x + b.w / 2, y2 = b.y;
    const bend = Math.max(12, Math.min(60, Math.abs(y2 - y1) / 2));
    edge.element = drawn("path", {d: `M${x1} ${y1}C${x1} ${y1 + bend} ${x2} ${y2 - bend} ${x2} ${y2}`});
    if (edge.cast) edge.element.classList.add("cast");
    paths.append(edge.element);
    shown.edges.push(edge);
  }
  return paths;
}

const modes = {
  precision: {label: "precision", kind: (node) => node.kind},
  backward: {label: "precision of the backward", kind: (node) => (node.backward ? kind_of(node.backward.types[2], "computed") : "gone")},
  time: {label: "estimated time", heat: (node) => node.time, text: time_text},
  bytes: {label: "bytes moved", heat: (node) => node.traffic, text: bytes_text},
  flops: {label: "operations", heat: (node) => node.flops, text: flops_text},
  kept: {label: "bytes kept for the backward", heat: (node) => node.cost[4], text: bytes_text},
  forward_range: {label: "out of range, forward", heat: (node) => badness(node, "forward"), text: percent, worst: true, evidence: true},
  backward_range: {label: "out of range, backward", heat: (node) => badness(node, "backward"), text: percent, worst: true, evidence: true},
};

const mixed = (share) => `color-mix(in srgb, var(--heat-1) ${(100 * share).toFixed(1)}%, var(--heat-0))`;

function paint() {
  const mode = modes[at("colour").value] || modes.precision;
  const value_of = (item) => {
    if (item.node) return mode.heat(item.node);
    const values = item.cluster.all.map(mode.heat).filter((v) => v !== undefined);
    if (!values.length) return undefined;
    return mode.worst ? Math.max(...values) : values.reduce((a, b) => a + b, 0);
  };
  const items = [...shown.nodes.values(), ...[...shown.clusters.values()].filter((item) => !item.open)];
  let most = 0;
  if (mode.heat) for (const item of items) item.value = value_of(item), most = Math.max(most, item.value || 0);
  for (const item of items) {
    const classes = ["node"];
    let fill = "";
    if (!item.node) classes.push("cluster");
    if (mode.heat && item.value !== undefined) {
      classes.push("heated");
      fill = mixed(most > 0 ? Math.sqrt(item.value / most) : 0);
    } else if (item.node) {
      classes.push(mode.heat ? "gone" : mode.kind(item.node));
    }
    if (item.fill !== fill) item.element.firstChild.style.fill = item.fill = fill;
    if (item.node && item.node === chosen) classes.push("chosen");
    if (matching && !(item.node ? matching.has(item.node.id) : item.cluster.all.some((node) => matching.has(node.id)))) classes.push("dim");
    const text = classes.join(" ");
    if (item.classes !== text) item.element.setAttribute("class", item.classes = text);
  }
  for (const edge of shown.edges) {
    const near = chosen && (edge.a.node === chosen || edge.b.node === chosen);
    if (Boolean(edge.near) !== Boolean(near)) edge.element.classList.toggle("near", edge.near = Boolean(near));
  }
  legend(mode, most);
}

function legend(mode, most) {
  const entries = [];
  const entry = (kind, text) => element("span", {}, element("i", {class: "dot " + kind}), text);
  if (mode.heat) {
    entries.push(element("span", {}, "0", element("i", {class: "ramp"}), mode.text(most)));
  } else {
    if (data.low) entries.push(entry("low", "writes " + data.low));
    entries.push(entry("full", "writes f32"), entry("other", "integers, booleans"), entry("gone", "computes nothing"));
  }
  if (data.edges.some((edge) => edge[2])) entries.push(element("span", {}, element("i", {class: "dash"}), "cast"));
  const hidden = nodes.filter((node) => node.cluster === undefined).length;
  if (hidden) entries.push(element("span", {}, `${hidden} constants and folded nodes are in the list alone`));
  at("legend").replaceChildren(...entries);
}

const kReadable = 0.35;
// The place on the page, known without asking for a layout.
const box = {width: 800, height: 600};
new ResizeObserver((entries) => {
  const {width, height} = entries[0].contentRect;
  if (width > 0) box.width = width, box.height = height;
}).observe(at("graph_view"));

function move() {
  // Texts are laid out where they can be seen and read.
  const far = view.scale < kReadable, left = -view.x / view.scale, top = -view.y / view.scale;
  const right = left + box.width / view.scale, bottom = top + box.height / view.scale;
  for (const items of [shown.nodes, shown.clusters])
    for (const item of items.values()) {
      const visible = !far && item.x < right && item.x + item.w > left && item.y < bottom && item.y + item.h > top;
      if (!item.element || item.visible === visible) continue;
      if (visible && !item.written) write(item);
      item.element.toggleAttribute("data-read", item.visible = visible);
    }
  at("world").setAttribute("transform", `translate(${view.x},${view.y}) scale(${view.scale})`);
}
function fit() {
  const scale = Math.min(1.1, (box.width - 40) / Math.max(1, shown.w), (box.height - 70) / Math.max(1, shown.h));
  view.scale = Math.max(scale, 0.02);
  view.x = (box.width - shown.w * view.scale) / 2, view.y = 20;
  move();
}
// From the top, at a size that can be read.
function fit_width() {
  view.scale = Math.max(0.45, Math.min(1, (box.width - 40) / Math.max(1, shown.w)));
  view.x = (box.width - shown.w * view.scale) / 2, view.y = 20;
  move();
}
function zoom(factor, x, y) {
  const scale = Math.min(4, Math.max(0.02, view.scale * factor));
  view.x = x - (x - view.x) * scale / view.scale, view.y = y - (y - view.y) * scale / view.scale;
  view.scale = scale;
  move();
}
function centre_on(item) {
  view.scale = Math.max(view.scale, 0.8);
  view.x = box.width / 2 - (item.x + item.w / 2) * view.scale, view.y = box.height / 2 - (item.y + item.h / 2) * view.scale;
  move();
}

// Keeps what was clicked where it is.
function toggle(id) {
  const before = shown.clusters.get(id);
  if (open.has(id)) open.delete(id);
  else open.add(id);
  draw();
  const after = shown.clusters.get(id);
  if (before && after) view.x += (before.x + before.w / 2 - after.x - after.w / 2) * view.scale, view.y += (before.y - after.y) * view.scale;
  move();
}

function reveal(node) {
  if (node.cluster === undefined) return paint();
  let changed = false;
  for (let c = node.cluster; c; c = clusters[c].parent) if (!open.has(c)) open.add(c), changed = true;
  if (changed) draw();
  else paint();
  centre_on(shown.nodes.get(node.id));
}

// A chain of single clusters is opened, and what is small enough to be read at once.
function open_first() {
  const kMostShown = 40;
  let count = clusters[0].items.length;
  const queue = clusters[0].items.filter((item) => item[0] < 0).map((item) => -item[0]);
  while (queue.length) {
    const id = queue.shift();
    if (count + clusters[id].items.length > kMostShown && clusters[0].items.length > 1) continue;
    if (count > kMostShown) break;
    open.add(id), count += clusters[id].items.length;
    queue.push(...clusters[id].items.filter((item) => item[0] < 0).map((item) => -item[0]));
  }
}

function listen_to_graph() {
  const svg = at("graph");
  let drag = null;
  svg.addEventListener("pointerdown", (event) => {
    drag = {x: event.clientX, y: event.clientY, moved: false};
  });
  svg.addEventListener("pointermove", (event) => {
    if (!drag || !event.buttons) return;
    const dx = event.clientX - drag.x, dy = event.clientY - drag.y;
    if (!drag.moved && Math.abs(dx) + Math.abs(dy) < 4) return;
    if (!drag.moved) svg.setPointerCapture(event.pointerId), svg.classList.add("dragging");
    drag = {x: event.clientX, y: event.clientY, moved: true};
    view.x += dx, view.y += dy;
    move();
  });
  svg.addEventListener("pointerup", () => {
    drag = null, svg.classList.remove("dragging");
  });
  svg.addEventListener("wheel", (event) => {
    event.preventDefault();
    const place = svg.getBoundingClientRect();
    if (event.ctrlKey || event.deltaMode || Math.abs(event.deltaY) >= 40)
      zoom(Math.exp(-event.deltaY / 500), event.clientX - place.left, event.clientY - place.top);
    else view.x -= event.deltaX, view.y -= event.deltaY, move();
  }, {passive: false});
  const act = (event) => {
    const group = event.target.closest("[data-item]"), id = group && Number(group.dataset.item);
    if (group) id < 0 ? toggle(-id) : choose(nodes[id]);
  };
  at("nodes").addEventListener("click", act);
  at("nodes").addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") event.preventDefault(), act(event);
  });
  const middle = () => [box.width / 2, box.height / 2];
  at("zoom_in").addEventListener("click", () => zoom(1.3, ...middle()));
  at("zoom_out").addEventListener("click", () => zoom(1 / 1.3, ...middle()));
  at("fit").addEventListener("click", fit);
  at("open_all").addEventListener("click", () => {
    clusters.forEach((cluster) => open.add(cluster.id));
    draw(), fit_width();
  });
  at("close_all").addEventListener("click", () => {
    open.clear(), open.add(0);
    draw(), fit();
  });
}
