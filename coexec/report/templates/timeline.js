// Host and processors over time, memory below on the same axis; one view, zoomed and dragged.
const LANE = 24;
const MEMORY = 64;
const AXIS = 24;
const MEMORY_KINDS = [["parameters", "compute"], ["optimizer", "sync"], ["data", "idle"],
  ["gradients", "transfer"], ["activations", "bandwidth"], ["workspace", "layout"]];

function lanes(events) {
  // Slices of one track nest (a run holds dispatches); a slice goes one lane below what holds it.
  const rows = [];
  const sorted = [...events].sort((a, b) => a.start_ms - b.start_ms || b.ms - a.ms);
  for (const event of sorted) {
    let lane = 0;
    while (rows[lane] && rows[lane].end > event.start_ms + 1e-9) lane += 1;
    rows[lane] = rows[lane] || { events: [], end: 0 };
    rows[lane].events.push(event);
    rows[lane].end = Math.max(rows[lane].end, event.start_ms + event.ms);
  }
  return rows.map((row) => row.events);
}

function layoutRows(record) {
  const names = [...new Set(record.events.map((event) => event.track))];
  names.sort((a, b) => (a !== "host") - (b !== "host") || a.localeCompare(b));
  const rows = [];
  let top = AXIS;
  for (const name of names) {
    rows.push({ label: name, top, height: 18 });
    top += 18;
    for (const events of lanes(record.events.filter((event) => event.track === name))) {
      rows.push({ events, top, height: LANE });
      top += LANE;
    }
    top += 8;
  }
  for (const track of [...new Set(record.memory.map((entry) => entry.track))]) {
    const steps = record.memory.filter((entry) => entry.track === track);
    const most = Math.max(...steps.map((entry) => entry.bytes), 1);
    rows.push({ label: `memory in use, ${track}: at most ${bytes(most)}`, top, height: 18 });
    rows.push({ steps, most, top: top + 20, height: MEMORY });
    top += MEMORY + 32;
  }
  return { rows, height: top };
}

const eventColour = (event) => event.category || event.kind;
function niceStep(span, count) {
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
}

class Timeline {
  constructor(record) {
    this.record = record;
    const ends = record.events.map((event) => event.start_ms + event.ms);
    const starts = record.events.map((event) => event.start_ms);
    this.first = ends.length ? starts.reduce((a, b) => Math.min(a, b), 0) : 0;
    this.last = ends.reduce((a, b) => Math.max(a, b), record.wall_ms);
    this.plan = layoutRows(record);
    this.canvas = el("canvas", { tabindex: "0", role: "img",
      "aria-label": "Timeline of host and processors. Arrow keys scroll, plus and minus zoom." });
    this.detail = el("div", { class: "detail", "aria-live": "polite" });
    this.pointers = new Map();
    this.fit();
    this.listen();
    this.draw = responsive(this.canvas, (width) => this.paint(width));
  }
  fit() { this.from = this.first; this.to = this.last; }
  x(time) { return ((time - this.from) / (this.to - this.from)) * this.width; }
  time(x) { return this.from + (x / this.width) * (this.to - this.from); }
  zoom(factor, at = (this.from + this.to) / 2) {
    const least = (this.last - this.first) / 1e5;
    const span = Math.min(Math.max((this.to - this.from) * factor, least), this.last - this.first);
    const share = (at - this.from) / (this.to - this.from);
    this.from = at - span * share;
    this.to = this.from + span;
    this.pan(0);
  }
  pan(time) {
    const span = this.to - this.from;
    this.from = Math.min(Math.max(this.from + time, this.first), this.last - span);
    this.to = this.from + span;
    this.draw();
  }
  paint(width) {
    this.width = width;
    const ratio = devicePixelRatio || 1;
    this.canvas.width = width * ratio;
    this.canvas.height = this.plan.height * ratio;
    this.canvas.style.height = `${this.plan.height}px`;
    this.canvas.dataset.from = this.from;
    this.canvas.dataset.to = this.to;
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.font = "12px system-ui, 'DejaVu Sans', sans-serif";
    pen.textBaseline = "middle";
    this.colours = {};
    this.axis(pen);
    for (const row of this.plan.rows) {
      if (row.label) this.text(pen, row.label, 0, row.top + 8, this.colour("soft"), this.width);
      if (row.events) this.slices(pen, row);
      if (row.steps) this.area(pen, row);
    }
  }
  colour(name) { return (this.colours[name] ||= css(name) || css("other")); }
  // Words wider than `most` are condensed.
  text(pen, words, x, y, colour, most) { pen.fillStyle = colour; pen.fillText(words, x, y, most); }
  axis(pen) {
    const step = niceStep(this.to - this.from, Math.max(this.width / 110, 2));
    for (let tick = Math.ceil(this.from / step) * step; tick <= this.to; tick += step) {
      const x = this.x(tick);
      pen.fillStyle = this.colour("grid");
      pen.fillRect(x, AXIS - 6, 1, this.plan.height);
      const words = `${digits(tick, Math.max(1, Math.ceil(Math.log10(Math.abs(tick) / step + 1)) + 1))} ms`;
      const wide = pen.measureText(words).width;
      this.text(pen, words, Math.min(Math.max(x - wide / 2, 0), this.width - wide), 9, this.colour("soft"));
    }
  }
  slices(pen, row) {
    let painted = -1;
    for (const event of row.events) {
      const left = Math.max(this.x(event.start_ms), 0);
      const right = Math.min(this.x(event.start_ms + event.ms), this.width);
      if (right < 0 || left > this.width || Math.max(right, left + 1) <= painted) continue;
      const wide = Math.max(right - left, 1);
      pen.fillStyle = this.colour(eventColour(event));
      pen.fillRect(left, row.top + 1, wide > 4 ? wide - 1 : wide, LANE - 2);
      painted = left + wide;
      if (wide > 46) this.label(pen, event, left, wide, row.top);
      if (event === this.chosen) {
        pen.strokeStyle = this.colour("ink");
        pen.lineWidth = 2;
        pen.strokeRect(left + 1, row.top + 2, wide - 2, LANE - 4);
      }
    }
  }
  label(pen, event, left, wide, top) {
    pen.save();
    pen.beginPath();
    pen.rect(left, top, wide - 4, LANE);
    pen.clip();
    this.text(pen, event.operator || event.name, left + 5, top + LANE / 2 + 0.5,
      this.colour(`on-${eventColour(event)}`));
    pen.restore();
  }
  area(pen, row) {
    // One kind on top of the other: each is drawn as all up to it, the last one first.
    let shown = MEMORY_KINDS;
    while (shown.length) {
      const kinds = shown.map(([kind]) => kind);
      this.level(pen, row, shown[shown.length - 1][1],
        (entry) => kinds.reduce((sum, kind) => sum + (entry.kinds[kind] || 0), 0));
      shown = shown.slice(0, -1);
    }
  }
  level(pen, row, colour, value) {
    const y = (nbytes) => row.top + row.height - (nbytes / row.most) * (row.height - 4);
    pen.beginPath();
    pen.moveTo(0, row.top + row.height);
    let level = 0;
    for (const entry of row.steps) {
      const x = Math.min(Math.max(this.x(entry.t_ms), 0), this.width);
      pen.lineTo(x, y(level));
      level = value(entry);
      pen.lineTo(x, y(level));
    }
    pen.lineTo(this.width, y(level));
    pen.lineTo(this.width, row.top + row.height);
    pen.closePath();
    pen.fillStyle = this.colour(colour);
    pen.fill();
  }
  at(pointer) {
    const box = this.canvas.getBoundingClientRect();
    const time = this.time(pointer.clientX - box.left);
    const y = pointer.clientY - box.top;
    const row = this.plan.rows.find((one) => y >= one.top && y < one.top + one.height && !one.label);
    if (!row) return null;
    if (row.steps) return { time, level: row.steps.filter((entry) => entry.t_ms <= time).pop() };
    const slack = ((this.to - this.from) / this.width) * 3;
    let best = null;
    let far = slack;
    for (const event of row.events) {
      const gap = Math.max(event.start_ms - time, time - event.start_ms - event.ms, 0);
      if (gap < far) { best = event; far = gap; }
    }
    return best ? { time, event: best } : null;
  }
  listen() {
    const on = (name, handle, options) => this.canvas.addEventListener(name, handle, options);
    on("wheel", (event) => {
      if (event.ctrlKey || event.metaKey) {
        event.preventDefault();
        this.zoom(Math.exp(event.deltaY / 200), this.time(event.offsetX));
      } else if (Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey) {
        event.preventDefault();
        this.pan((((event.deltaX || event.deltaY) * (this.to - this.from)) / this.width));
      }
    }, { passive: false });
    on("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, event);
      this.moved = 0;
    });
    on("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) on(name, (event) => this.release(event));
    on("pointerleave", hideTip);
    on("dblclick", (event) => this.zoom(0.4, this.time(event.offsetX)));
    on("keydown", (event) => {
      const span = this.to - this.from;
      const acts = { ArrowLeft: () => this.pan(-span / 8), ArrowRight: () => this.pan(span / 8),
        "+": () => this.zoom(0.6), "=": () => this.zoom(0.6), "-": () => this.zoom(1.7),
        0: () => { this.fit(); this.draw(); } };
      if (acts[event.key]) { event.preventDefault(); acts[event.key](); }
    });
  }
  move(event) {
    const old = this.pointers.get(event.pointerId);
    if (!old) return this.hover(event);
    const [other] = [...this.pointers.values()].filter((one) => one.pointerId !== event.pointerId);
    const scale = (this.to - this.from) / this.width;
    if (other) {
      const before = Math.abs(old.clientX - other.clientX);
      const after = Math.abs(event.clientX - other.clientX);
      const middle = (event.clientX + other.clientX) / 2 - this.canvas.getBoundingClientRect().left;
      if (before > 8 && after > 8) this.zoom(before / after, this.time(middle));
    } else {
      this.pan((old.clientX - event.clientX) * scale);
    }
    this.moved += Math.abs(event.clientX - old.clientX);
    this.pointers.set(event.pointerId, event);
    return hideTip();
  }
  release(event) {
    if (this.pointers.delete(event.pointerId) && event.type === "pointerup" && this.moved < 5) {
      const found = this.at(event);
      this.choose(found && found.event ? found.event : null);
    }
  }
  hover(pointer) {
    const found = this.at(pointer);
    if (!found) return hideTip();
    if (found.event) {
      const [title, ...lines] = eventLines(found.event);
      return showTip(pointer.clientX, pointer.clientY, title, lines);
    }
    const level = found.level || { bytes: 0, kinds: {} };
    return showTip(pointer.clientX, pointer.clientY, bytes(level.bytes), [`in use at ${ms(found.time)}`,
      ...MEMORY_KINDS.filter(([kind]) => level.kinds[kind]).map(([kind]) => `${kind} ${bytes(level.kinds[kind])}`)]);
  }
  choose(event) {
    this.chosen = event;
    const [title, ...lines] = event ? eventLines(event) : ["", "Tap or click a slice to keep its figures here."];
    this.detail.replaceChildren(el("b", {}, title), title ? " · " : "", lines.join(" · "));
    this.draw();
  }
}

function eventLines(event) {
  const lines = [event.operator || event.name || event.kind];
  if (event.operator && event.name) lines.push(`node ${event.name}`);
  lines.push(`${ms(event.ms)} from ${ms(event.start_ms)}`);
  if (event.flop && event.ms) lines.push(`${flop(event.flop)}FLOP, ${digits(event.flop / event.ms / 1e6)} GFLOP/s`);
  if (event.bytes && event.ms) lines.push(`${bytes(event.bytes)}, ${digits(event.bytes / event.ms / 1e6)} GB/s`);
  const what = [event.phase, event.category || event.kind].filter(Boolean).join(", ");
  if (what) lines.push(what);
  if (event.source && event.source !== event.name) lines.push(`layer ${event.source}`);
  return lines;
}

function memoryNote(record) {
  const given = Object.entries(record.allocated_bytes)
    .map(([track, nbytes]) => `${bytes(nbytes)} on ${track}`).join(", ");
  const planned = `Memory planned: ${bytes(record.peak_bytes)}`;
  return el("p", { class: "note" }, given ? `${planned}; given out by the allocator: ${given}.` : `${planned}.`);
}

function timelineCard(record) {
  const line = new Timeline(record);
  const button = (text, label, act) =>
    el("button", { type: "button", class: "ghost", "aria-label": label, click: act }, text);
  const section = card("Timeline and memory", null);
  section.firstChild.append(el("div", { class: "tabs" },
    button("−", "Zoom out", () => line.zoom(2)), button("+", "Zoom in", () => line.zoom(0.5)),
    button("Whole step", "Show the whole step", () => { line.fit(); line.draw(); })));
  section.append(line.canvas, line.detail,
    keys(CATEGORIES.filter(([key]) => record.events.some((event) => eventColour(event) === key))
      .map(([key, label]) => [label, `var(--${key})`])),
    keys(MEMORY_KINDS.filter(([kind]) => record.memory.some((entry) => entry.kinds[kind]))
      .map(([kind, colour]) => [`memory: ${kind}`, `var(--${colour})`])),
    memoryNote(record),
    el("p", { class: "note" }, "Drag to scroll; pinch, Ctrl and wheel, or + and − to zoom."));
  line.choose(null);
  return section;
}
