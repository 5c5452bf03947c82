"use strict";
// What the pages share. Names come from the file: they are only ever set as text.
const data = JSON.parse(document.getElementById("data").textContent);

function bytes_text(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < 4) bytes /= 1024, ++unit;
  return (unit === 0 ? Math.round(bytes) : bytes.toFixed(1)) + " " + units[unit];
}
function flops_text(flops) {
  const units = ["", "k", "M", "G", "T", "P"];
  let unit = 0;
  while (flops >= 1000 && unit < 5) flops /= 1000, ++unit;
  return (unit === 0 ? Math.round(flops) : flops.toFixed(1)) + " " + units[unit] + "FLOP";
}
function time_text(us) {
  return us < 1000 ? us.toFixed(us < 10 ? 1 : 0) + " µs" : us < 1e6 ? (us / 1e3).toFixed(2) + " ms" : (us / 1e6).toFixed(2) + " s";
}
const percent = (share) => (100 * share).toFixed(share > 0 && share < 0.001 ? 3 : 1) + "%";
const count_text = (n) => n.toLocaleString("en-US");
// The middle left out.
function shortened(text, most) {
  if (text.length <= most) return text;
  const front = Math.floor((most - 1) / 3);
  return text.slice(0, front) + "…" + text.slice(text.length - (most - 1 - front));
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== undefined && child !== null));
  return made;
}
function drawn(tag, attributes = {}, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (text !== undefined) made.textContent = text;
  return made;
}
const at = (id) => document.getElementById(id);

function select_of(id, entries) {
  at(id).replaceChildren(...entries.map(([value, text]) => element("option", {value}, text)));
}

function table_of(head, rows) {
  const cells = (tag, row) => row.map((cell, i) => element(tag, {class: ({"#": "number", ":": "type", "!": "short"})[head[i][0]]}, cell));
  return element("table", {}, element("thead", {}, element("tr", {}, ...head.map((text) => element("th", {class: text.startsWith("#") ? "number" : undefined, scope: "col"}, text.replace(/^[#:!]/, ""))))),
                 element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells("td", row)))));
}

// As the system has it, until the button says otherwise; "/" goes to the search.
function set_theme(theme) {
  document.documentElement.dataset.theme = theme;
}
set_theme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
at("theme").addEventListener("click", () => set_theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && at("search") && document.activeElement !== at("search")) event.preventDefault(), at("search").focus();
});
