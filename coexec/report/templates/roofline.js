// Measured roofline (Williams et al., 2009) and the nodes under it, both axes logarithmic.
const EDGE = { left: 46, right: 14, top: 14, bottom: 40 };

function decades(low, high) {
  const found = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power += 1) {
    if (power >= low && power <= high) found.push(power);
  }
  return found;
}
function tickText(power) { return power >= 0 && power < 4 ? String(10 ** power) : power < 0 && power > -4 ? String(+(10 ** power).toFixed(3)) : `1e${power}`; }

function scales(roof, points, width, height) {
  const xs = [...points.map((point) => point.intensity), roof.ridge].map(Math.log10);
  const ys = [...points.map((point) => point.gflops), roof.peak_gflops].map(Math.log10);
  const x = [Math.min(...xs) - 0.25, Math.max(...xs) + 0.35];
  const y = [Math.min(...ys, Math.log10(roof.peak_gflops) - 2) - 0.2, Math.log10(roof.peak_gflops) + 0.35];
  y[1] = Math.max(y[1], Math.max(...ys) + 0.35);
  const across = width - EDGE.left - EDGE.right;
  const down = height - EDGE.top - EDGE.bottom;
  return { x, y,
    px: (value) => EDGE.left + ((Math.log10(value) - x[0]) / (x[1] - x[0])) * across,
    py: (value) => EDGE.top + (1 - (Math.log10(value) - y[0]) / (y[1] - y[0])) * down };
}

function roofPlot(roof, width, detail) {
  const height = Math.max(280, Math.min(420, width * 0.56));
  const points = roof.points.filter((point) => point.intensity > 0 && point.gflops > 0);
  const at = scales(roof, points, width, height);
  const reach = (intensity) => Math.min(roof.peak_gflops, intensity * roof.bandwidth_gbps);
  const plot = shape("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `Roofline: ${counted(points.length, "node")} under ${digits(roof.peak_gflops)} GFLOP/s and ` +
      `${digits(roof.bandwidth_gbps)} GB/s` });
  const text = (words, attributes) => shape("text", attributes, words);
  for (const power of decades(...at.x)) {
    const x = at.px(10 ** power);
    plot.append(shape("line", { class: "grid", x1: x, x2: x, y1: EDGE.top, y2: height - EDGE.bottom }),
      text(tickText(power), { x, y: height - EDGE.bottom + 16, "text-anchor": "middle" }));
  }
  for (const power of decades(...at.y)) {
    const y = at.py(10 ** power);
    plot.append(shape("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y, y2: y }),
      text(tickText(power), { x: EDGE.left - 6, y: y + 4, "text-anchor": "end" }));
  }
  const low = 10 ** at.x[0];
  const floor = 10 ** at.y[0];
  const start = Math.max(low, floor / roof.bandwidth_gbps);
  const corners = [start, roof.ridge, 10 ** at.x[1]].map((value) => `${at.px(value)},${at.py(reach(value))}`);
  plot.append(shape("polyline", { class: "roof", points: corners.join(" ") }),
    text("FLOP per byte", { x: (EDGE.left + width) / 2, y: height - 6, "text-anchor": "middle" }),
    text("GFLOP/s", { x: 4, y: 12 }));
  const middle = Math.sqrt(start * roof.ridge);
  const slope = Math.atan2(at.py(reach(roof.ridge)) - at.py(reach(start)), at.px(roof.ridge) - at.px(start));
  const place = [at.px(middle), at.py(reach(middle)) - 8];
  dots(plot, points, at, reach, detail);
  // At the ridge, away from the crowd of large nodes, where there is room for it.
  const highest = Math.max(...points.map((point) => point.gflops), 1e-9);
  const roomy = width - EDGE.right - at.px(roof.ridge) > 190;
  plot.append(text(`${digits(roof.peak_gflops)} GFLOP/s ${roof.dtype}`, { class: "roof-label",
    "text-anchor": roomy ? "start" : "end", x: roomy ? at.px(roof.ridge) + 6 : width - EDGE.right - 4,
    y: Math.min(at.py(roof.peak_gflops) - 7, roomy ? Infinity : at.py(highest) - 14) }),
  text(`${digits(roof.bandwidth_gbps)} GB/s`, { class: "roof-label", "text-anchor": "middle",
    x: place[0], y: place[1], transform: `rotate(${(slope * 180) / Math.PI} ${place.join(" ")})` }));
  return plot;
}

function dots(plot, points, at, reach, detail) {
  const most = Math.max(...points.map((point) => point.ms), 1e-9);
  const gap = shape("line", { class: "gap" });
  plot.append(gap);
  const marks = [...points].sort((a, b) => b.ms - a.ms).map((point) => {
    const mark = shape("circle", { cx: at.px(point.intensity), cy: at.py(point.gflops),
      r: 3 + 9 * Math.sqrt(point.ms / most) });
    mark.style.fill = phaseColour(point.phase);
    plot.append(mark);
    return { point, mark };
  });
  const nearest = (event) => {
    const frame = plot.getScreenCTM().inverse();
    const spot = new DOMPoint(event.clientX, event.clientY).matrixTransform(frame);
    let best = null;
    let far = 26;
    for (const one of marks) {
      const away = Math.hypot(one.mark.cx.baseVal.value - spot.x, one.mark.cy.baseVal.value - spot.y);
      if (away < far) { best = one; far = away; }
    }
    return best;
  };
  const clear = () => {
    hideTip();
    for (const one of marks) one.mark.classList.remove("on");
    for (const key of ["x1", "x2", "y1", "y2"]) gap.setAttribute(key, 0);
  };
  const show = (event) => {
    clear();
    const found = nearest(event);
    if (!found) return;
    const { point, mark } = found;
    mark.classList.add("on");
    const x = at.px(point.intensity);
    for (const [key, value] of [["x1", x], ["x2", x], ["y1", at.py(point.gflops)], ["y2", at.py(reach(point.intensity))]]) gap.setAttribute(key, value);
    const lines = pointLines(point);
    showTip(event.clientX, event.clientY, point.operator, lines);
    detail.replaceChildren(el("b", {}, point.operator), " · ", lines.join(" · "));
  };
  plot.addEventListener("pointermove", show);
  plot.addEventListener("pointerdown", show);
  plot.addEventListener("pointerleave", clear);
}

function pointLines(point) {
  const lines = [`node ${point.name}`, `${ms(point.ms)}, ${digits(point.gflops)} GFLOP/s`,
    `${percent(point.fraction)} of the roofline at ${digits(point.intensity)} FLOP per byte`];
  if (point.phase) lines.push(point.phase);
  if (point.source && point.source !== point.name) lines.push(`layer ${point.source}`);
  return lines;
}

function rooflineCard(record) {
  const tracks = Object.entries(record.roofline).filter(([, roof]) => roof.points.length);
  if (!tracks.length) return null;
  const limits = isVirtual(record) ? "the nominal limits of what is simulated" : "what was measured here";
  const section = card("Roofline", `Every node against ${limits}: the slope is memory bandwidth, ` +
    "the ceiling is arithmetic. Area is time.");
  const frame = el("div", {});
  const detail = el("div", { class: "detail" });
  let roof = tracks[0][1];
  const draw = responsive(frame, (width) => frame.replaceChildren(roofPlot(roof, width, detail)));
  if (tracks.length > 1) {
    const chooser = tabs(tracks.map(([name]) => name), (index) => { roof = tracks[index][1]; draw(); });
    section.firstChild.append(chooser.node);
    chooser.press(0);
  }
  const all = tracks.flatMap(([, one]) => one.points);
  const phase = (point) => (PHASES.includes(point.phase) ? point.phase : "other");
  const used = [...PHASES, "other"].filter((name) => all.some((point) => phase(point) === name));
  const none = all.filter((point) => !(point.intensity > 0 && point.gflops > 0)).length;
  detail.append("Hover or tap a circle to see its operator here.");
  section.append(frame, detail, keys(used.map((name) => [name, phaseColour(name)])));
  const above = all.filter((point) => point.fraction > 1).length;
  if (above) {
    section.append(el("p", { class: "note" }, `${counted(above, "node")} ${above === 1 ? "lies" : "lie"} above ` +
      "the roof: caches serve data faster than memory, and work is counted per operator, not per instruction."));
  }
  if (none) section.append(el("p", { class: "note" }, `${counted(none, "node")} without arithmetic ` +
    `${none === 1 ? "is not drawn; the table has it" : "are not drawn; the table has them"}.`));
  return section;
}
