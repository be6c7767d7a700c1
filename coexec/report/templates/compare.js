// Two records side by side: wall time, categories and the operators that changed most.
function change(before, after) {
  const delta = after - before;
  const cell = el("span", { class: delta < 0 ? "better" : delta > 0 ? "worse" : null });
  cell.append(`${delta > 0 ? "+" : delta < 0 ? "−" : ""}${ms(Math.abs(delta))}`);
  return cell;
}

function deltaBar(delta, most) {
  const bar = el("span", { class: "delta", role: "presentation" });
  const [down, up] = [el("i", { class: "down" }), el("i", { class: "up" })];
  down.style.width = `${(Math.max(-delta, 0) / most) * 100}%`;
  up.style.width = `${(Math.max(delta, 0) / most) * 100}%`;
  bar.append(down, up);
  return bar;
}

function changeTable(first, rows, withLaunches) {
  const most = Math.max(...rows.map((row) => Math.abs(row.delta_ms)), 1e-12);
  const columns = [
    word(first, "name"), { name: "change", value: (row) => row.delta_ms, node: (row) => change(row.before_ms, row.after_ms) },
    { name: "size", value: (row) => Math.abs(row.delta_ms), node: (row) => deltaBar(row.delta_ms, most) },
    number("A", "before_ms", ms), number("B", "after_ms", ms),
    number("B / A", "ratio", (value) => (value === null ? "–" : `${digits(value)}×`)),
  ];
  if (withLaunches) {
    columns.push(number("launches A", "before_launches", String), number("launches B", "after_launches", String));
  }
  return sortable(columns, rows, 2).node;
}

function comparisonCards(comparison, records) {
  const most = Math.max(...comparison.wall_ms);
  const walls = card("Where the time goes, before and after",
    "Both bars have one scale: the longer step fills the width.");
  records.forEach((record, index) => {
    for (const [track, categories] of Object.entries(record.categories)) {
      walls.append(el("h3", {}, `${"AB"[index]} · ${track} · ${ms(record.wall_ms)}`),
        stack(categoryParts(categories), most));
    }
  });
  walls.append(keys(CATEGORIES.map(([key, label]) => [label, `var(--${key})`])));
  for (const track of comparison.tracks) {
    walls.append(el("h3", {}, track.name), changeTable("category", track.categories, false));
  }
  const operators = card("Operators that changed most", "Exclusive time per operator type; press a header to sort.",
    changeTable("operator", comparison.operators, true));
  const layers = card("Layers that changed most", null, changeTable("layer", comparison.layers, true));
  const differs = comparison.differences.map((line) => el("p", { class: "note warn" }, `Differs: ${line}.`));
  return [...differs, walls, operators, layers];
}
