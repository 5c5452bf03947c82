// Pictures: exponents of a tensor, loss curves, and how far tensors are from fp32.
const short = (v) => (typeof v === "number" ? (v === 0 ? "0" : Math.abs(v) >= 0.01 && Math.abs(v) < 1e5 ? v.toPrecision(4) : v.toExponential(2)) : String(v));
const finite = (v) => typeof v === "number" && isFinite(v);

// fp32 beside AMP; behind them what the low type holds, of values that are multiplied by the loss scale.
function exponents_plot(tensor, height = 96) {
  const width = 320, side = 26, base = height - 16, svg = drawn("svg", {class: "plot exponents", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "exponents of its values"});
  const step = data.bins.width, scale = Math.log2(tensor.scale || 1);
  const both = [tensor.low, tensor.full].filter((h) => h && h.counts.length);
  const first = Math.min(data.range[0] - scale - 2 * step, ...both.map((h) => h.first));
  const last = Math.max(data.range[2] - scale + 2 * step, ...both.map((h) => h.first + h.counts.length * step));
  const x = (exponent) => side + (width - 2 * side) * (exponent - first) / (last - first);
  const region = (name, from, to) => {
    const begin = x(Math.max(first, from - scale)), end = x(Math.min(last, to - scale));
    if (end > begin) svg.append(drawn("rect", {x: begin, y: 4, width: end - begin, height: base - 4, class: name + (tensor.wide ? " unstored" : "")}));
  };
  region("vanish", -Infinity, data.range[0]), region("subnormal", data.range[0], data.range[1]), region("beyond", data.range[2], Infinity);
  const most = Math.max(1e-6, ...both.flatMap((h) => h.counts), tensor.shares.zero || 0, tensor.zero_full || 0);
  const tall = (share) => (base - 6) * Math.sqrt(share / most);
  const bar = (from, to, share, name, title) => {
    if (!(share > 0)) return;
    const made = drawn("rect", {x: from + 0.5, y: base - tall(share), width: Math.max(0.8, to - from - 1), height: tall(share), class: name});
    made.append(drawn("title", {}, title));
    svg.append(made);
  };
  if (tensor.low) tensor.low.counts.forEach((share, i) => {
    const at = tensor.low.first + i * step, out = !tensor.wide && (at + step <= data.range[0] - scale || at >= data.range[2] - scale);
    bar(x(at), x(at + step), share, "low" + (out ? " out" : ""), `2^${at}: ${percent(share)}`);
  });
  const beyond = (tensor.shares.overflow || 0) + (tensor.shares.infinite || 0) + (tensor.shares.nan || 0);
  bar(2, side - 4, tensor.shares.zero, "low", `zero: ${percent(tensor.shares.zero || 0)}`);
  bar(width - side + 4, width - 2, beyond, "low out", `beyond: ${percent(beyond)}`);
  if (tensor.full) tensor.full.counts.forEach((share, i) => bar(x(tensor.full.first + i * step), x(tensor.full.first + (i + 1) * step), share, "full", `fp32, 2^${tensor.full.first + i * step}: ${percent(share)}`));
  bar(2, side - 4, tensor.zero_full, "full", `fp32, zero: ${percent(tensor.zero_full || 0)}`);
  svg.append(drawn("line", {x1: 0, y1: base, x2: width, y2: base, class: "axis"}));
  svg.append(drawn("text", {x: side / 2, y: height - 3, "text-anchor": "middle"}, "0"), drawn("text", {x: width - side / 2, y: height - 3, "text-anchor": "middle"}, "∞"));
  let free = side + 14;  // where no other label stands
  for (const true_one of [data.range[1] - scale, 0, data.range[2] - scale].sort((a, b) => a - b)) {
    if (!(true_one > first && true_one < last && x(true_one) > free)) continue;
    free = x(true_one) + 40, svg.append(drawn("text", {x: x(true_one), y: height - 3, "text-anchor": "middle"}, "2^" + Math.round(true_one)));
  }
  return svg;
}

function legend(entries) {
  return element("ul", {class: "legend"}, ...entries.map(([style, text, line]) => element("li", {}, element("i", {class: line ? "line" : undefined, style}), text)));
}
const exponents_legend = () => legend([["background:var(--low-line)", data.precision], ["border:1.5px solid var(--full-line)", "fp32"], ["background:var(--vanish)", "rounds to 0 in " + data.low],
  ["background:var(--subnormal)", "subnormal"], ["background:var(--beyond)", "beyond"]]);

// Round numbers between two.
function ticks(from, to, wanted = 5) {
  const raw = (to - from) / wanted, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5, 10].find((m) => m * power >= raw) || 10), found = [];
  for (let at = Math.ceil(from / step) * step; at <= to + step * 1e-6 && found.length < 20; at += step) found.push(at);
  return found;
}

function loss_plot() {
  const {fp32, allowed, before, after} = data.losses, width = 900, height = 300, left = 64, bottom = height - 30;
  const svg = drawn("svg", {class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "loss curves"});
  // What runs far away is cut off: the band and what is near it are to be seen.
  const inner = fp32.flatMap((v, i) => [v - allowed[i], v + allowed[i]]);
  const room = Math.max(...inner) - Math.min(...inner), near = (v) => finite(v) && v < Math.max(...inner) + 2 * room && v > Math.min(...inner) - 2 * room;
  const all = [...inner, ...before.filter(near), ...after.filter(near)];
  let low = Math.min(...all), high = Math.max(...all);
  if (!(high > low)) low -= 0.5, high += 0.5;
  const pad = 0.06 * (high - low);
  low -= pad, high += pad;
  const steps = Math.max(2, fp32.length), x = (i) => left + (width - left - 16) * i / (steps - 1), y = (v) => bottom - (bottom - 10) * (Math.min(high, Math.max(low, v)) - low) / (high - low);
  for (const tick of ticks(low, high)) svg.append(drawn("line", {x1: left, x2: width - 16, y1: y(tick), y2: y(tick), class: "axis"}), drawn("text", {x: left - 6, y: y(tick) + 4, "text-anchor": "end"}, String(Number(tick.toPrecision(6)))));
  for (const tick of ticks(1, steps, 8).filter(Number.isInteger)) svg.append(drawn("text", {x: x(tick - 1), y: bottom + 16, "text-anchor": "middle"}, String(tick)));
  svg.append(drawn("text", {x: width - 16, y: height - 2, "text-anchor": "end"}, "step"));
  const points = (list) => list.map((v, i) => (finite(v) ? `${x(i)},${y(v)}` : "")).filter(Boolean).join(" ");
  svg.append(drawn("polygon", {class: "band", points: points(fp32.map((v, i) => v + allowed[i])) + " " + points(fp32.map((v, i) => v - allowed[i])).split(" ").reverse().join(" ")}));
  for (const [name, list] of [["fp32", fp32], ["before", before], ["after", after]]) if (list.length) svg.append(drawn("polyline", {class: name, points: points(list)}));
  if (data.stopped) svg.append(drawn("text", {class: "end", x: Math.min(width - 260, x(before.length) + 4), y: 24}, `${data.precision} stops after ${before.length} steps`));
  svg.addEventListener("mousemove", (event) => {
    const box = svg.getBoundingClientRect(), step = Math.round(((event.clientX - box.left) / box.width * width - left) / (width - left - 16) * (steps - 1));
    if (!(step >= 0 && step < fp32.length)) return;
    at("readout").textContent = `step ${step + 1}: fp32 ${short(fp32[step])} ± ${short(allowed[step])}` + (step < before.length ? `, ${data.precision} ${short(before[step])}` : "") + (step < after.length ? `, with the remedy ${short(after[step])}` : "");
  });
  return svg;
}
const loss_legend = () => legend([["border-color:var(--full-line)", "fp32", true], ["background:var(--full)", "as far as may be"], ["border-color:var(--bad);border-top-style:dashed", data.precision + ", as it is", true],
  ...(data.losses.after.length ? [["border-color:var(--after)", "with the remedy", true]] : [])]);

// Each tensor of step 1 in the order in which it is computed, by its distance to fp32.
function divergence_plot(choose_tensor, is_listed, chosen) {
  const shown = data.tensors.filter((t) => t.error !== undefined), width = 980, height = 380, left = 58, bottom = height - 34;
  const svg = drawn("svg", {class: "plot", viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "distance to fp32 of each tensor"});
  const least = -6, most = 1, place = new Map(shown.map((t, i) => [t.id, i]));
  const x = (t) => left + 8 + (width - left - 24) * place.get(t.id) / Math.max(1, shown.length - 1);
  const y = (t) => (finite(t.error) ? bottom - (bottom - 40) * (Math.min(most, Math.max(least, Math.log10(Math.max(t.error, 1e-30)))) - least) / (most - least) : 18);
  for (let p = least; p <= most; ++p) {
    const height_of = bottom - (bottom - 40) * (p - least) / (most - least);
    svg.append(drawn("line", {x1: left, x2: width - 8, y1: height_of, y2: height_of, class: "axis"}), drawn("text", {x: left - 6, y: height_of + 4, "text-anchor": "end"}, p === least ? "≤ 1e-6" : p >= 0 ? String(10 ** p) : "1e" + p));
  }
  svg.append(drawn("text", {x: left - 6, y: 22, "text-anchor": "end"}, "∞, NaN"));
  const limit = y({error: data.noise});
  svg.append(drawn("line", {x1: left, x2: width - 8, y1: limit, y2: limit, class: "limit"}), drawn("text", {x: left + 4, y: limit - 4}, `suspected above ${percent(data.noise)}, gradients above 3 times their spread too`));
  svg.append(drawn("text", {x: left, y: height - 6}, "first computed"), drawn("text", {x: width - 8, y: height - 6, "text-anchor": "end"}, "last"));
  const from = chosen && place.has(chosen.id) ? chosen.inputs.map((i) => data.tensors[i]).filter((t) => place.has(t.id)) : [];
  for (const input of from) svg.append(drawn("line", {x1: x(input), y1: y(input), x2: x(chosen), y2: y(chosen), class: "from"}));
  for (const t of shown) {
    const point = drawn("circle", {cx: x(t), cy: y(t), r: t.cause ? 7 : shown.length > 400 ? 3 : 4.5, class: `point ${t.kind}${t.cause ? " cause" : ""}${is_listed(t) ? "" : " dim"}${t === chosen ? " chosen" : ""}`, "data-tensor": t.id});
    point.append(drawn("title", {}, `${t.title}: ${finite(t.error) ? percent(t.error) : t.error}`));
    point.addEventListener("click", () => choose_tensor(t));
    svg.append(point);
    if (t.cause) svg.append(drawn("text", {class: "cause", x: x(t) + 9, y: y(t) - 6}, `${data.findings.indexOf(t.cause) + 1}. ${shortened(t.name, 28)}`));
  }
  return svg;
}
const divergence_legend = () => legend([["background:var(--low-line);border-radius:50%;width:10px", "output"], ["background:var(--backward);border-radius:50%;width:10px", "gradient of an output"],
  ["background:var(--other-line);border-radius:50%;width:10px", "gradient of a parameter"], ["border:2.5px solid var(--bad);border-radius:50%;width:10px", "finding"]]);
