// Attribution: stacked bars of categories and phases, with their figures below.

// Factors that add up to less than one would leave a part of the bar empty.
const grow = (share) => `${1000 * share} 0 0`;

function stack(parts, total, thin) {
  const bar = el("div", { class: thin ? "bar thin" : "bar", role: "img",
    "aria-label": parts.map((part) => `${part.label} ${percent(part.value / total)}`).join(", ") });
  for (const part of parts) {
    if (!(part.value > 0)) continue;
    const share = part.value / total;
    const segment = el("span", { class: "seg",
      pointermove: (event) => showTip(event.clientX, event.clientY, part.label,
        [`${ms(part.value)}, ${percent(share)}`]),
      pointerleave: hideTip });
    segment.append(el("b", {}));
    segment.texts = [`${part.short} ${percent(share)}`, percent(share), ""];
    segment.style.flex = grow(share);
    segment.style.background = part.colour;
    segment.style.color = part.ink;
    bar.append(segment);
  }
  if (sum(parts.map((part) => part.value)) < total) {
    const rest = el("span", { class: "seg" });
    rest.style.flex = grow(1 - sum(parts.map((part) => part.value)) / total);
    bar.append(rest);
  }
  // The longest text that fits into each part.
  responsive(bar, () => {
    for (const segment of bar.children) {
      for (const text of segment.texts || []) {
        segment.firstChild.textContent = text;
        if (segment.firstChild.offsetWidth <= segment.clientWidth - 6) break;
      }
    }
  });
  return bar;
}
const categoryParts = (categories) => CATEGORIES.map(([key, label]) => ({
  label, short: key, value: categories[key] || 0, colour: `var(--${key})`, ink: `var(--on-${key})` }));

function legend(parts, total) {
  return el("ul", { class: "legend" }, ...parts.map((part) =>
    el("li", { class: part.value > 0 ? null : "zero" }, swatch(part.colour), el("span", {}, part.label),
      el("span", { class: "num" }, ms(part.value)),
      el("span", { class: "num" }, percent(part.value / total)))));
}

function attribution(record) {
  const section = card("Where the time goes",
    `Wall time of the described step (${ms(record.wall_ms)}) per processor, in eight exclusive parts ` +
    `that add up to it${record.residual > 1e-6 ? ` within ${percent(record.residual)}` : ""}.`);
  for (const [track, categories] of Object.entries(record.categories)) {
    const parts = categoryParts(categories);
    section.append(el("h3", {}, track), stack(parts, record.wall_ms), legend(parts, record.wall_ms));
    const moved = (record.transfers || {})[track];
    if (moved && moved.count) {
      section.append(el("p", { class: "note" },
        `${counted(moved.count, "copy")} of ${bytes(moved.bytes)} in all: ${ms(moved.latency_ms)} is latency, ` +
        `${ms(moved.bandwidth_ms)} bandwidth.`));
    }
  }
  const place = (row) => (PHASES.indexOf(row.name) + PHASES.length + 1) % (PHASES.length + 1);
  const phases = record.phases.filter((row) => row.ms > 0).sort((a, b) => place(a) - place(b));
  const busy = sum(phases.map((row) => row.ms));
  if (phases.length > 1) {
    const parts = phases.map((row) => ({ label: row.name || "no phase", short: row.name, value: row.ms,
      colour: phaseColour(row.name), ink: "var(--card)" }));
    section.append(el("h3", {}, "Busy time by phase"), stack(parts, busy, true), legend(parts, busy));
  }
  return section;
}

function adviceCard(record) {
  if (!record.advice.length) return card("Advice", "No rule found anything to change in this run.");
  return card("Advice", null, el("div", { class: "advice" }, ...record.advice.map((item) =>
    el("article", {}, el("h3", {}, item.title), el("p", { class: "note" }, item.evidence),
      el("p", { class: "do" }, item.suggestion),
      item.saving_ms > 0 ? el("span", { class: "badge" }, `saves about ${ms(item.saving_ms)} a step`) : null))));
}
