// Tables that sort when a header is pressed and filter as one types.
// A column: { name, value(row) for sorting, text(row), node(row) instead of text, words: true }.
function sortable(columns, rows, sorted) {
  let order = { column: sorted, down: true };
  let wanted = "";
  const body = el("tbody", {});
  const heads = columns.map((column, index) => el("th", { scope: "col", class: column.words ? "text" : null },
    el("button", { type: "button", click: () => sortBy(index) }, column.name)));
  const compare = (a, b) => {
    const { value, words } = columns[order.column];
    const [left, right] = [value(a), value(b)];
    if (words) return String(left).localeCompare(String(right));
    return (left ?? -Infinity) - (right ?? -Infinity);
  };
  const show = () => {
    const matching = rows.filter((row) => columns.some((column) =>
      column.words && String(column.value(row)).toLowerCase().includes(wanted)));
    matching.sort((a, b) => (order.down ? compare(b, a) : compare(a, b)));
    body.replaceChildren(...matching.map((row) => el("tr", {}, ...columns.map((column) =>
      el("td", { class: column.words ? "text" : null, title: column.words ? column.value(row) : null },
        column.node ? column.node(row) : column.text(row))))));
    heads.forEach((head, index) => {
      if (index !== order.column) head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", order.down ? "descending" : "ascending");
    });
  };
  const sortBy = (index) => {
    const again = index === order.column;
    order = { column: index, down: again ? !order.down : !columns[index].words };
    show();
  };
  show();
  const node = el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ...heads)), body));
  return { node, filter: (text) => { wanted = text.toLowerCase(); show(); } };
}

function meter(share) {
  const inner = el("i", {});
  inner.style.width = `${Math.min(Math.max(share, 0), 1) * 100}%`;
  return el("span", { class: "meter" }, inner);
}
function shareCell(share) { return el("span", {}, percent(share), meter(share || 0)); }

const word = (name, key) => ({ name, words: true, value: (row) => row[key] || "", text: (row) => row[key] || "–" });
const number = (name, key, text) => ({ name, value: (row) => row[key], text: (row) => text(row[key]) });
const rowColumns = (first) => [
  word(first, "name"), number("time", "ms", ms),
  { name: "share", value: (row) => row.share, node: (row) => shareCell(row.share) },
  number("launches", "launches", String), number("FLOP", "flop", flop), number("bytes", "bytes", bytes),
  number("GFLOP/s", "gflops", rate), number("GB/s", "gbps", rate),
  number("roofline", "roofline", percent), word("bound", "bound"),
];
const pointColumns = [
  word("node", "name"), word("operator", "operator"), number("time", "ms", ms),
  number("GFLOP/s", "gflops", rate), number("FLOP/byte", "intensity", rate),
  number("roofline", "fraction", percent), word("phase", "phase"), word("layer", "source"), word("track", "track"),
];

function tableCard(record) {
  const section = card("Operators", null);
  const points = Object.values(record.roofline).flatMap((roof) => roof.points);
  const views = [
    ["Operator types", () => sortable(rowColumns("operator"), record.operators, 1)],
    ["Layers", () => sortable(rowColumns("layer"), record.layers, 1)],
    ["Nodes", () => sortable(pointColumns, points, 2)],
    ["Phases", () => sortable(rowColumns("phase"), record.phases, 1)],
  ];
  const place = el("div", {});
  let table = null;
  const search = el("input", { type: "search", class: "filter", placeholder: "Filter by name",
    "aria-label": "Filter the table by name", input: () => table.filter(search.value) });
  const chooser = tabs(views.map(([name]) => name), (index) => {
    table = views[index][1]();
    table.filter(search.value);
    place.replaceChildren(table.node);
  });
  chooser.press(0);
  section.append(el("div", { class: "head" }, chooser.node, search), place);
  return section;
}
