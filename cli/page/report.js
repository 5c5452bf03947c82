// A run: curves of its steps and epochs, what its last evaluation says of classes, precision, recipe.
const kViews = ["curves", "epochs", "classes", "precision", "layers", "recipe"];
const kMostDrawn = 60, kMostNodes = 400, kMostBars = 20;
const finite = (v) => typeof v === "number" && isFinite(v);
const short = (v) => (!finite(v) ? "–" : v === 0 ? "0" : Math.abs(v) >= 1e-3 && Math.abs(v) < 1e6 ? String(Number(v.toPrecision(5))) : v.toExponential(2));
const last = data.epochs[data.epochs.length - 1] || {};
const units = {learning_rate: "learning rate", loss_scale: "loss scale", samples_per_second: "samples a second", tokens_per_second: "tokens a second", bits_per_byte: "bits a byte"};
const title_of = (name) => units[name] || name.replace(/_/g, " ");

// Round numbers between two.
function ticks(from, to, wanted = 5) {
  const raw = (to - from) / wanted, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5, 10].find((m) => m * power >= raw) || 10), found = [];
  for (let at = Math.ceil(from / step) * step; at <= to + step * 1e-6 && found.length < 20; at += step) found.push(at);
  return found;
}

// Lines: {class, label, points: [[step, value, least, greatest]]}; values that rise by powers of two are told apart best on a log scale.
function chart(title, lines, {wide = false, log = false, marks = []} = {}) {
  lines = lines.filter((line) => line.points.length);
  if (!lines.length) return null;
  const width = wide ? 1100 : 520, height = wide ? 280 : 190, left = 62, right = 12, bottom = height - 22, top = 10;
  const value = log ? (v) => Math.log2(Math.max(v, 1e-30)) : (v) => v;
  const all = lines.flatMap((line) => line.points.flatMap((p) => (wide ? [p[1]] : p.slice(1)))).filter(finite).map(value);
  let low = all.reduce((a, b) => Math.min(a, b), Infinity), high = all.reduce((a, b) => Math.max(a, b), -Infinity);
  if (!(high > low)) { const room = Math.abs(low) * 0.1 || 0.5; low -= room, high += room; }
  const pad = 0.05 * (high - low);
  low -= pad, high += pad;
  const steps = lines.flatMap((line) => line.points.map((p) => p[0])), begin = Math.min(...steps), end = Math.max(...steps, begin + 1);
  const x = (step) => left + (width - left - right) * (step - begin) / (end - begin);
  const y = (v) => bottom - (bottom - top) * (Math.min(high, Math.max(low, value(v))) - low) / (high - low);
  const svg = drawn("svg", {class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title});
  for (const tick of ticks(low, high, wide ? 6 : 4)) {
    const text = log ? (Number.isInteger(tick) ? "2^" + tick : "") : String(Number(tick.toPrecision(6)));
    const place = bottom - (bottom - top) * (tick - low) / (high - low);
    if (text) svg.append(drawn("line", {x1: left, x2: width - right, y1: place, y2: place, class: "axis"}), drawn("text", {x: left - 6, y: place + 4, "text-anchor": "end"}, text));
  }
  for (const tick of ticks(begin, end, wide ? 10 : 5).filter(Number.isInteger)) svg.append(drawn("text", {x: x(tick), y: bottom + 16, "text-anchor": "middle"}, count_text(tick)));
  for (const step of marks) if (step >= begin && step <= end) svg.append(drawn("line", {x1: x(step), x2: x(step), y1: bottom - 8, y2: bottom, class: "skip"}));
  for (const line of lines) {
    const points = line.points.filter((p) => finite(p[1]));
    if (points.some((p) => p.length > 2 && p[3] > p[2])) svg.append(drawn("polygon", {class: "range", points: points.map((p) => `${x(p[0])},${y(p[3])}`).concat(points.map((p) => `${x(p[0])},${y(p[2])}`).reverse()).join(" ")}));
    svg.append(drawn("polyline", {class: line.class, points: points.map((p) => `${x(p[0])},${y(p[1])}`).join(" ")}));
    if (line.class !== "train" && points.length < 60) for (const p of points) svg.append(drawn("circle", {class: line.class, cx: x(p[0]), cy: y(p[1]), r: 2.6}));
  }
  const cursor = drawn("line", {class: "cursor", y1: top, y2: bottom, x1: -9, x2: -9});
  svg.append(cursor);
  svg.addEventListener("mousemove", (event) => {
    const box = svg.getBoundingClientRect(), step = begin + ((event.clientX - box.left) / box.width * width - left) / (width - left - right) * (end - begin);
    const near = (points) => points.reduce((a, b) => (Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a));
    const at_step = near(lines[0].points)[0];
    cursor.setAttribute("x1", x(at_step)), cursor.setAttribute("x2", x(at_step));
    at("readout").textContent = `step ${count_text(at_step)}: ` + lines.map((line) => `${line.label} ${short(near(line.points)[1])}`).join(", ");
  });
  svg.addEventListener("mouseleave", () => { cursor.setAttribute("x1", -9), cursor.setAttribute("x2", -9), at("readout").textContent = ""; });
  return element("figure", {class: wide ? "chart wide" : "chart"}, element("figcaption", {}, element("b", {}, title), ...lines.map((line) => element("span", {}, element("i", {class: line.class}), line.label))), svg);
}

const of_epochs = (key) => data.epochs.filter((e) => finite(e[key])).map((e) => [e.step, e[key]]);

function fill_curves() {
  const charts = [chart("Loss", [{class: "train", label: "steps", points: data.curves.loss || []}, {class: "epoch", label: "epochs", points: of_epochs("loss")},
    {class: "test", label: "held out", points: of_epochs("test_loss")}], {wide: true, marks: data.skipped})];
  const measures = Object.keys(last).filter((key) => key.startsWith("test_") && key !== "test_loss" && finite(last[key])).map((key) => key.slice(5));
  const plain = new Set(["loss", "step", "epoch", "skipped", "seconds"]);
  const names = [...new Set([...measures, ...Object.keys(data.curves)])].filter((name) => !plain.has(name));
  const order = ["accuracy", "perplexity", ...measures, "learning_rate", "loss_scale"];
  names.sort((a, b) => ((order.indexOf(a) + 99) % 99) - ((order.indexOf(b) + 99) % 99));
  for (const name of names) {
    const is_scale = name === "loss_scale";
    charts.push(chart(title_of(name), [{class: "train", label: "steps", points: data.curves[name] || []}, ...(is_scale || name === "learning_rate" || name.endsWith("_per_second") ? [] : [{class: "epoch", label: "epochs", points: of_epochs(name)}]),
      {class: "test", label: "held out", points: of_epochs("test_" + name)}], {log: is_scale, marks: is_scale ? data.skipped : []}));
  }
  at("curves_view").replaceChildren(element("div", {class: "charts"}, ...charts.filter(Boolean)));
  if (data.skips) at("curves_view").append(element("p", {class: "soft"}, `${count_text(data.skips)} steps overflowed and were skipped: the red marks on the axis${data.skips > data.skipped.length ? ", the first of them" : ""}.`));
}

function fill_epochs() {
  const keys = [...new Set(data.epochs.flatMap((e) => Object.keys(e).filter((key) => finite(e[key]))))].filter((key) => key !== "epoch" && key !== "step");
  at("epochs_view").replaceChildren(data.epochs.length ? table_of(["#epoch", "#step", ...keys.map((key) => "#" + key.replace(/_/g, " "))],
    data.epochs.map((e) => [count_text(e.epoch), count_text(e.step), ...keys.map((key) => short(e[key]))])) : element("p", {}, "No epoch has ended yet."));
}

function matrix_of(rows, names) {
  const n = rows.length, cell = n <= 30 ? 34 : n <= kMostDrawn ? 16 : Math.max(3, Math.floor(800 / n)), longest = Math.max(...names.map((name) => Math.min(name.length, 18)));
  const named = n <= kMostDrawn, side = named ? 16 + longest * 6.5 : 16, size = side + n * cell + 4;
  const svg = drawn("svg", {class: "matrix", viewBox: `0 0 ${size} ${size}`, width: size, role: "img", "aria-label": "confusion matrix"});
  rows.forEach((row, i) => {
    const labels = row.reduce((a, b) => a + b, 0), middle = side + i * cell + cell / 2;
    if (named) svg.append(drawn("text", {x: side - 5, y: middle + 4, "text-anchor": "end"}, shortened(names[i], 18)), drawn("text", {transform: `translate(${middle + 4} ${side - 5}) rotate(-90)`}, shortened(names[i], 18)));
    row.forEach((count, j) => {
      if (!count && n > 30) return;
      const share = labels ? count / labels : 0;
      const made = drawn("rect", {class: "cell", x: side + j * cell, y: side + i * cell, width: cell, height: cell, fill: count ? `color-mix(in srgb, var(--low-line) ${Math.round(8 + 92 * share)}%, var(--card))` : "var(--card)"});
      made.append(drawn("title", {}, `${names[i]} as ${names[j]}: ${count_text(count)} (${percent(share)})`));
      svg.append(made);
      if (n <= 30 && count) svg.append(drawn("text", {class: share > 0.55 ? "count high" : "count", x: side + j * cell + cell / 2, y: middle + 4, "text-anchor": "middle", "pointer-events": "none"}, count < 1e5 ? String(count) : short(count)));
    });
  });
  return svg;
}

function fill_classes() {
  const parts = [];
  for (const key of Object.keys(last).filter((k) => k.endsWith("confusion") && Array.isArray(last[k]))) {
    const rows = last[key], names = (last.class_names || []).length === rows.length ? last.class_names : rows.map((_, i) => String(i));
    parts.push(element("h2", {class: "section"}, `Confusion${key === "test_confusion" ? "" : " of " + key.slice(5, -10)}: a row for each label, a column for each guess, after epoch ${last.epoch}`));
    if (rows.length <= 200) parts.push(matrix_of(rows, names));
    const pairs = rows.flatMap((row, i) => row.map((count, j) => [count, i, j])).filter(([count, i, j]) => count && i !== j).sort((a, b) => b[0] - a[0]).slice(0, 10);
    if (pairs.length) parts.push(element("h2", {class: "section"}, "Confused most"), table_of(["label", "guessed as", "#times"], pairs.map(([count, i, j]) => [names[i], names[j], count_text(count)])));
  }
  for (const key of Object.keys(last).filter((k) => k.endsWith("per_class") && Array.isArray(last[k]) && last[k].length)) {
    const columns = Object.keys(last[key][0]);
    parts.push(element("h2", {class: "section"}, "Each class"), table_of([columns[0], ...columns.slice(1).map((c) => "#" + c)], last[key].map((row) => columns.map((c, i) => (i ? short(row[c]) : String(row[c]))))));
  }
  for (const remark of last.test_remarks || []) parts.push(element("p", {class: "soft"}, remark));
  if (!parts.length) parts.push(element("p", {class: "soft"}, "The recipe's key measures names what is told of classes: confusion, f1, and each class with per_class."));
  at("classes_view").replaceChildren(...parts);
}

function fill_precision() {
  const p = data.precision;
  if (!p || !Array.isArray(p.precision)) return at("precision_view").replaceChildren(element("p", {class: "soft"}, "The step came compiled: halfstep inspect tells the precision of its model."));
  const typed = p.precision.filter((row) => row.result), counts = {};
  for (const row of typed) counts[row.result] = (counts[row.result] || 0) + 1;
  const parts = Object.entries(counts).sort((a, b) => b[1] - a[1]);
  const bars = element("div", {class: "bars"}, ...parts.map(([type, count]) => element("span", {class: "bar " + (type === "f32" ? "full" : type === "f16" || type === "bf16" ? "low" : "other"), style: `flex:${count}`, title: `${type}: ${count}`})));
  at("precision_view").replaceChildren(element("p", {}, `Preset ${p.compile.preset}: ` + parts.map(([type, count]) => `${count_text(count)} nodes write ${type}`).join(", ") + `. ${count_text(p.compile.parameters)} trainable values, ${count_text(p.compile.calls)} calls, ${bytes_text(p.compile.state_bytes)} of states, ${bytes_text(p.compile.scratch_bytes)} of scratch; compiled in ${p.compile.seconds.toFixed(2)} s.`), bars,
    table_of(["node", "operator", ":reads", ":sums", ":writes", "why"], typed.slice(0, kMostNodes).map((row) => [row.node, row.operator, row.operand || "–", row.accumulator || "–", row.result, row.reason])));
  if (typed.length > kMostNodes) at("precision_view").append(element("p", {class: "soft"}, `and ${count_text(typed.length - kMostNodes)} more: halfstep inspect lists all.`));
}

function fill_recipe() {
  const parts = [data.recipe ? element("pre", {id: "recipe"}, data.recipe) : element("p", {class: "soft"}, "The directory holds no recipe.toml.")];
  if (data.end && data.end.counters) parts.push(element("h2", {class: "section"}, "The executor counted"), table_of(["what", "#count"], Object.entries(data.end.counters).map(([key, value]) => [key.replace(/_/g, " "), count_text(value)])));
  if (data.end && data.end.memory) parts.push(element("h2", {class: "section"}, "Memory"), table_of(["what", "#bytes"], Object.entries(data.end.memory).map(([key, value]) => [key.replace(/_bytes/, ""), bytes_text(value)])));
  at("recipe_view").replaceChildren(...parts);
}

// A row's place in the model: the modules that it stands in, then its node.
const of_no_node = "of no node";
function rolled_up(rows, depth) {
  if (!depth) return rows.map((row) => ({...row, layer: row.layer || of_no_node}));
  const groups = new Map();
  for (const row of rows) {
    const name = row.layer ? row.scope.split("/").slice(0, depth).join("/") || row.layer : of_no_node;
    const group = groups.get(name) || {layer: name, calls: 0, forward: 0, backward: 0, update: 0, share: 0};
    for (const key of ["calls", "forward", "backward", "update", "share"]) group[key] += row[key];
    groups.set(name, group);
  }
  return [...groups.values()].sort((a, b) => b.share - a.share);
}

// Forward, backward and update of what takes most, on one scale.
function layer_bars(rows) {
  const shown = rows.slice(0, kMostBars), high = 22, left = 290, width = 940, right = 64;
  const most = Math.max(...shown.map((row) => row.share), 1e-9), svg = drawn("svg", {class: "layers", viewBox: `0 0 ${width} ${shown.length * high + 4}`, role: "img", "aria-label": "share of a step's time by layer"});
  shown.forEach((row, i) => {
    const total = row.forward + row.backward + row.update || 1, y = i * high + 4;
    const name = drawn("text", {x: left - 8, y: y + 13, "text-anchor": "end"}, shortened(row.layer, 36));
    name.append(drawn("title", {}, row.layer));
    svg.append(name);
    let x = left;
    for (const phase of ["forward", "backward", "update"]) {
      const length = (width - left - right) * (row.share / most) * row[phase] / total;
      if (length <= 0) continue;
      const bar = drawn("rect", {class: phase, x, y, width: length, height: high - 6});
      bar.append(drawn("title", {}, `${row.layer}, ${phase}: ${time_text(row[phase])}`));
      svg.append(bar), x += length;
    }
    svg.append(drawn("text", {x: x + 6, y: y + 13}, percent(row.share)));
  });
  return svg;
}

function show_layers(depth) {
  const rows = rolled_up(data.layers.layers, depth);
  const legend = element("p", {class: "legend"}, ...["forward", "backward", "update"].map((phase) => element("span", {}, element("i", {class: phase}), phase)));
  const time = (us) => (us ? time_text(us) : "–");
  at("layers_shown").replaceChildren(legend, layer_bars(rows), table_of([depth ? "module" : "layer", "#share", "#time", "#forward", "#backward", "#update", "#calls"],
    rows.slice(0, kMostNodes).map((row) => [row.layer, percent(row.share), time(row.forward + row.backward + row.update), time(row.forward), time(row.backward), time(row.update), count_text(row.calls)])),
    rows.length > kMostNodes ? element("p", {class: "soft"}, `and ${count_text(rows.length - kMostNodes)} more`) : "");
}

function fill_layers() {
  if (!data.layers) return at("layers_view").replaceChildren(element("p", {class: "soft"}, "The recipe's key layer_times times each call of the step once, after training."));
  const deepest = Math.min(6, Math.max(0, ...data.layers.layers.map((row) => (row.scope ? row.scope.split("/").length : 0))));
  const choices = [[0, "by node"], ...Array.from({length: deepest}, (_, i) => [i + 1, i + 1 === 1 ? "by module, 1 level" : `by module, ${i + 1} levels`])];
  const choose = element("select", {id: "layers_depth", "aria-label": "Grouping", onchange: (event) => show_layers(Number(event.target.value))});
  at("layers_view").replaceChildren(element("p", {class: "soft"}, `The calls of a training step, each timed by itself, take ${time_text(data.layers.microseconds)} one after the other; in the step some overlap. `, choose), element("div", {id: "layers_shown"}));
  select_of("layers_depth", choices);
  show_layers(0);
}

function fill_header() {
  const parts = data.directory.split("/").filter(Boolean), name = parts[parts.length - 1] || data.directory;
  document.title = name + ": run";
  at("model").textContent = name;
  const steps = data.end ? data.end.step : last.step;
  at("assignment").textContent = !data.end ? "not ended" : data.end.reason;
  const best = (key) => data.epochs.filter((e) => finite(e[key]));
  const facts = [[count_text(data.epochs.length), "epochs"], ...(finite(steps) ? [[count_text(steps), "steps"]] : []), ...(finite(last.loss) ? [[short(last.loss), "loss"]] : []), ...(finite(last.test_loss) ? [[short(last.test_loss), "held-out loss"]] : []),
    ...(best("test_accuracy").length ? [[(100 * last.test_accuracy).toFixed(2) + " %", "held-out accuracy"]] : []), ...(finite(last.samples_per_second) ? [[count_text(Math.round(last.samples_per_second)), "samples a second"]] : []), ...(data.end ? [[time_text(data.end.seconds * 1e6), "in all"]] : [])];
  at("facts").replaceChildren(...facts.map(([value, label]) => element("li", {}, element("b", {}, value), label)));
}

function show_view(name) {
  for (const view of kViews) at("tab_" + view).setAttribute("aria-selected", String(view === name)), at(view + "_view").hidden = view !== name;
}

// What one of them cannot read does not hide the others.
for (const fill of [fill_header, fill_curves, fill_epochs, fill_classes, fill_precision, fill_layers, fill_recipe]) try { fill(); } catch (error) { console.error(error); }
for (const name of kViews) at("tab_" + name).addEventListener("click", () => show_view(name));
