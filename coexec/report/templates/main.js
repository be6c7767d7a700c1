// The page: unpacks the records and puts the cards in order.

// Long lists travel as columns: { length, columns: { name: [values] | { all: value } |
// { texts: distinct texts, places: [..] } } }, a fifth of the bytes of a list of objects.
function unpack(value) {
  if (Array.isArray(value)) return value.map(unpack);
  if (!value || typeof value !== "object") return value;
  if (!value.columns) return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, unpack(item)]));
  const readers = Object.entries(value.columns).map(([name, column]) => {
    if (Array.isArray(column)) return [name, (row) => column[row]];
    if (column.texts) return [name, (row) => column.texts[column.places[row]]];
    return [name, () => column.all];
  });
  return Array.from({ length: value.length }, (_, row) =>
    Object.fromEntries(readers.map(([name, read]) => [name, read(row)])));
}

function tiles(record) {
  const work = sum(record.operators.map((row) => row.flop || 0));
  const figures = [
    [ms(record.wall_ms), record.mode === "training" ? "training step" : "inference run"],
    [rate(work / record.wall_ms / 1e6) + " GFLOP/s", "over the whole step"],
    [String(sum(record.operators.map((row) => row.launches || 0))), "launches and copies"],
    [bytes(record.peak_bytes), "device memory"],
    isVirtual(record) ? [String(record.steps), "steps in virtual time"]
      : [percent(record.overhead.fraction), `profiling overhead, ${record.steps} steps`],
  ];
  return el("div", { class: "tiles" }, ...figures.map(([value, label]) =>
    el("div", { class: "tile" }, el("div", { class: "value" }, value), el("div", { class: "label" }, label))));
}

function isVirtual(record) {
  return record.processors.some((one) => one.clock === "virtual");
}

function setting(value) {
  if (Array.isArray(value)) return value.join("×");
  if (value && typeof value === "object") {
    return Object.entries(value).map(([key, item]) => `${key} ${setting(item)}`).join(", ");
  }
  return String(value);
}

function meta(record) {
  const options = Object.entries(record.options).map(([key, value]) => `${key}: ${setting(value)}`);
  const devices = record.processors.map((one) => `${one.name} (${one.device})`);
  return el("p", { class: "meta" }, [record.mode, ...options, ...devices, record.date.replace("T", " ")].join(" · "));
}

const FEW_FALLBACKS = 3;
function notes(record) {
  const found = record.processors.filter((one) => one.clock === "host").map((one) =>
    `${one.name} has no profiling events: its times are the host's and hold the host's own delays.`);
  if (isVirtual(record)) found.push("Simulated: all times are virtual, and predicted.");
  // Records of earlier versions do not say it.
  found.push(...(record.in_floats ?? []).map((line) => `Quantised, yet computed in floats: ${line}`));
  const few = record.fallbacks.length <= FEW_FALLBACKS;
  if (few) found.push(...record.fallbacks.map((line) => `Fallback: ${line}`));
  const lines = found.map((line) => el("p", { class: "note warn" }, line));
  if (few) return lines;
  return [...lines, el("details", { class: "note warn" },
    el("summary", {}, `${counted(record.fallbacks.length, "fallback")}: what is not where it was asked for`),
    ...record.fallbacks.map((line) => el("p", {}, line)))];
}

function report(record) {
  return [meta(record), ...notes(record), tiles(record), attribution(record), adviceCard(record),
    timelineCard(record), rooflineCard(record), tableCard(record)];
}

function footer(records) {
  const lines = records.flatMap((record) => [
    ...record.processors.map((one) => {
      const peaks = Object.entries(one.rates.peak_gflops).map(([type, peak]) => `${digits(peak)} GFLOP/s ${type}`);
      const limits = one.clock === "virtual" ? "nominal" : "measured";
      return `${one.name}: ${one.device}, driver ${one.driver}; ${limits} ${peaks.join(", ")}, ` +
        `${digits(one.rates.bandwidth_gbps)} GB/s, launch ${digits(one.rates.launch_us)} µs, ` +
        `synchronisation ${digits(one.rates.sync_us)} µs.`;
    }),
    Object.entries(record.versions).map(([name, version]) => `${name} ${version}`).join(", "),
  ]);
  return [...new Set(lines)].map((line) => el("p", {}, line));
}

function theme() {
  const button = document.getElementById("theme");
  const set = (name) => {
    document.documentElement.dataset.theme = name;
    button.textContent = name === "dark" ? "Light" : "Dark";
    for (const draw of redraws) draw();
  };
  const system = matchMedia("(prefers-color-scheme: dark)");
  set(system.matches ? "dark" : "light");
  system.addEventListener("change", () => set(system.matches ? "dark" : "light"));
  button.addEventListener("click", () =>
    set(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
}

function main() {
  const { records, comparison } = unpack(JSON.parse(document.getElementById("data").textContent));
  theme();
  const content = document.getElementById("content");
  const put = (place, nodes) => place.replaceChildren(...nodes.filter(Boolean));
  if (comparison) {
    const place = el("div", {});
    const chooser = tabs(records.map((record, index) => `${"AB"[index]}: ${comparison.names[index]}`), (index) => {
      redraws.clear();
      put(place, [el("p", { class: "verdict" }, records[index].verdict), ...report(records[index])]);
    });
    put(content, [...comparisonCards(comparison, records),
      el("h2", {}, "Each run"), chooser.node, place]);
    chooser.press(0);
  } else {
    put(content, report(records[0]));
  }
  document.getElementById("footer").replaceChildren(...footer(records));
  addEventListener("scroll", hideTip, { passive: true });
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}
main();
