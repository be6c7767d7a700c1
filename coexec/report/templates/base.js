// Building blocks: elements, numbers, the tooltip. Text from the record only ever becomes
// textContent, so a node's name cannot become markup.
const SVG = "http://www.w3.org/2000/svg";
const CATEGORIES = [
  ["compute", "compute-bound kernels"], ["bandwidth", "bandwidth-bound kernels"],
  ["layout", "layout conversion"], ["transfer", "host-device transfer"],
  ["map", "map and unmap"], ["dispatch", "dispatch (enqueue)"],
  ["sync", "synchronisation wait"], ["idle", "idle"],
];
const PHASES = ["forward", "backward", "optimizer"];

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") node.addEventListener(key, value);
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const shape = (tag, attributes, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const phaseColour = (phase) => `var(--${PHASES.includes(phase) ? phase : "other"})`;

function digits(value, figures = 3) {
  const size = Math.abs(value);
  if (!Number.isFinite(value)) return "–";
  if (size === 0) return "0";
  const places = Math.max(0, figures - 1 - Math.floor(Math.log10(size)));
  return value.toFixed(Math.min(places, 6));
}
function ms(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 10000) return `${digits(value / 1000)} s`;
  if (size >= 1 || size === 0) return `${digits(value)} ms`;
  return size >= 0.001 ? `${digits(value * 1000)} µs` : `${digits(value * 1e6)} ns`;
}
function scaled(value, base, units) {
  if (value === null || value === undefined) return "–";
  let step = 0;
  let rest = value;
  while (Math.abs(rest) >= base && step < units.length - 1) { rest /= base; step += 1; }
  return `${step ? digits(rest) : rest} ${units[step]}`.trim();
}
const bytes = (value) => scaled(value, 1024, ["B", "KiB", "MiB", "GiB"]);
const flop = (value) => scaled(value, 1000, ["", "k", "M", "G", "T"]);
const counted = (number, noun) => {
  if (number === 1) return `1 ${noun}`;
  return `${number} ${noun.endsWith("y") ? `${noun.slice(0, -1)}ies` : `${noun}s`}`;
};
const percent = (share) => {
  if (share === null || share === undefined) return "–";
  const value = share * 100;
  const size = Math.abs(value);
  const text = size === 0 || size >= 10 ? size.toFixed(0) : size >= 1 ? size.toFixed(1) : digits(size, 1);
  return `${value < 0 ? "−" : ""}${text} %`;
};
const rate = (value) => (value ? digits(value) : "–");
const sum = (values) => values.reduce((total, value) => total + value, 0);

const tip = document.getElementById("tip");
function showTip(x, y, title, lines) {
  tip.replaceChildren(el("b", {}, title), ...lines.map((line) => el("div", {}, line)));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = Math.min(Math.max(6, x + 14), innerWidth - box.width - 6);
  const top = y + 16 + box.height > innerHeight ? y - box.height - 12 : y + 16;
  tip.style.left = `${left}px`;
  tip.style.top = `${Math.max(6, top)}px`;
}
const hideTip = () => { tip.hidden = true; };

function card(title, note, ...children) {
  return el("section", { class: "card", "aria-label": title },
    el("div", { class: "head" }, el("h2", {}, title)),
    note ? el("p", { class: "note" }, note) : null, ...children);
}
function swatch(colour) {
  const mark = el("i", { class: "swatch" });
  mark.style.background = colour;
  return mark;
}
const keys = (pairs) => el("div", { class: "keys" },
  ...pairs.map(([name, colour]) => el("span", {}, swatch(colour), name)));

// Buttons of which one is pressed; choose(index) is called on every press and once at the start.
function tabs(names, choose) {
  const buttons = names.map((name, index) =>
    el("button", { type: "button", click: () => press(index) }, name));
  const press = (index) => {
    buttons.forEach((button, other) => button.setAttribute("aria-pressed", String(other === index)));
    choose(index);
  };
  return { node: el("div", { class: "tabs", role: "group" }, ...buttons), press };
}

// The same node drawn again when its width or the theme changes.
const redraws = new Set();
function responsive(node, draw) {
  let width = 0;
  const again = (force) => {
    if (!node.isConnected || (!force && node.clientWidth === width)) return;
    width = node.clientWidth;
    if (width) draw(width);
  };
  new ResizeObserver(() => again(false)).observe(node);
  redraws.add(() => again(true));
  return () => again(true);
}
