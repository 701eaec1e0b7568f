// The plots. Numbers come from the page's data; nothing is computed here but running means.
const CONFIG = { responsive: true, displaylogo: false, displayModeBar: false };

function layout(more) {
  const t = theme();
  const axis = { gridcolor: t.line, zerolinecolor: t.line, linecolor: t.line, tickcolor: t.line, automargin: true,
    title: { font: { size: 12, color: t.soft }, standoff: 8 } };
  const merged = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest",
    font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", size: 12, color: t.ink },
    hoverlabel: { bgcolor: t.panel, bordercolor: t.line, font: { color: t.ink }, align: "left" },
    margin: { l: 52, r: 14, t: 10, b: 44 }, ...more };
  merged.xaxis = { ...axis, ...more.xaxis, title: { ...axis.title, ...(more.xaxis?.title ?? {}) } };
  merged.yaxis = { ...axis, ...more.yaxis, title: { ...axis.title, ...(more.yaxis?.title ?? {}) } };
  return merged;
}

// ---- safety against over-refusal, capability and mathematics

function hoverOf(p) {
  const range = (interval, show) => (interval ? ` (${show(interval[0])} to ${show(interval[1])})` : "");
  const plain = (value) => (value === null ? "–" : value.toFixed(3));
  return `<b>${p.label}${p.recommended ? ", recommended" : ""}</b><br>${p.split} split<br>` +
    `${DATA.measure ?? "safety"} ${percent(p.safety)}${range(p.safety_interval, percent)}<br>` +
    `over-refusal ${percent(p.over_refusal)}${range(p.over_refusal_interval, percent)}<br>` +
    `capability ${plain(p.capability)}${range(p.capability_interval, plain)}<br>` +
    `mathematics ${plain(p.mathematics)}${range(p.mathematics_interval, plain)}` +
    (p.front ? "<br>on the front" : "");
}

function errors(points, key, colour) {
  const spans = points.map((p) => p[key + "_interval"]);
  if (!spans.some(Boolean)) return undefined;
  return { type: "data", symmetric: false, color: colour + "99", thickness: 1.2, width: 3,
    array: points.map((p, at) => (spans[at] ? Math.max(0, spans[at][1] - p[key]) : 0)),
    arrayminus: points.map((p, at) => (spans[at] ? Math.max(0, p[key] - spans[at][0]) : 0)) };
}

function scatter(id, key, title, view, hidden) {
  const t = theme();
  const all = DATA.tradeoff.points;
  const shows = (p) => p[key] !== null && !hidden.has(p.method) && (view === "both" || p.split === view);
  const traces = [];
  for (const split of ["choose", "report"]) {
    const line = DATA.tradeoff.fronts[key][split].map((at) => all[at]).filter(shows);
    if (line.length > 1) {
      traces.push({ x: line.map((p) => p[key]), y: line.map((p) => p.safety), mode: "lines", hoverinfo: "skip",
        line: { dash: "dot", width: split === "report" ? 2.5 : 1.5, color: t.soft }, name: "front " + split });
    }
  }
  for (const method of ["base", ...DATA.methods]) {
    const colour = colourOf(method);
    const mine = all.filter((p) => p.method === method && shows(p));
    // Strengths by groups of layers are not on the line of rising strength.
    const small = mine.filter((p) => p.split === "choose");
    for (const [mode, sweep] of [["lines+markers", small.filter((p) => typeof p.strength === "number")],
      ["markers", small.filter((p) => typeof p.strength !== "number")]]) {
      if (!sweep.length) continue;
      const rings = sweep.map((p) => (p.recommended && view === "choose" ? 3 : 1.4));
      traces.push({ x: sweep.map((p) => p[key]), y: sweep.map((p) => p.safety), mode, cliponaxis: false,
        line: { color: colour + "80", width: 1.1 }, opacity: view === "both" ? .6 : 1, hovertemplate: "%{text}<extra></extra>",
        text: sweep.map(hoverOf), name: method + " choose",
        marker: { symbol: method === "base" ? "x" : symbolOf(method),
          size: sweep.map((p) => (method === "base" ? 11 : p.recommended && view === "choose" ? 15 : 5 + 4 * p.order)),
          color: sweep.map((p) => (p.front || p.recommended || method === "base" ? colour : t.panel)),
          line: { width: rings, color: sweep.map((p, at) => (rings[at] > 2 ? t.ink : colour)) } } });
    }
    const large = mine.filter((p) => p.split === "report");
    if (large.length) {
      traces.push({ x: large.map((p) => p[key]), y: large.map((p) => p.safety),
        mode: view === "report" || all.length <= 16 ? "markers+text" : "markers",
        cliponaxis: false, textposition: "top right", textfont: { color: t.soft, size: 11 }, name: method,
        text: large.map((p) => p.label), customdata: large.map(hoverOf), hovertemplate: "%{customdata}<extra></extra>",
        error_x: errors(large, key, colour), error_y: errors(large, "safety", colour),
        marker: { color: colour, symbol: method === "base" ? "x" : symbolOf(method), size: 13,
          line: { width: large.map((p) => (p.recommended ? 3 : 1)),
            color: large.map((p) => (p.recommended ? t.ink : t.panel)) } } });
    }
  }
  const reversed = key === "over_refusal";
  Plotly.react(id, traces, layout({
    xaxis: { title: { text: title }, autorange: reversed ? "reversed" : true, tickformat: reversed ? ".0%" : ".2f" },
    yaxis: { title: { text: DATA.measure ?? "global safety" }, tickformat: ".0%" } }), CONFIG);
}

function drawTradeoff() {
  if (!$("plot-capability")) return;
  // Both splits of many methods at once are a thicket; the front is of the choose split.
  const tried = DATA.tradeoff.points.some((p) => p.split === "choose");
  let view = DATA.methods.length <= 4 ? "both" : tried ? "choose" : "report";
  const named = [{ name: "base", label: "Base" },
    ...DATA.methods.map((name) => ({ name, label: DATA.tradeoff.points.find((p) => p.method === name)?.label ?? name }))];
  const draw = () => {
    for (const [key, title] of [["over_refusal", "over-refusal (less is further right)"],
      ["capability", "mean capability"], ["mathematics", "mathematics: accuracy in arithmetic"]]) {
      const id = "plot-" + key.replace("_", "-");
      if (DATA.tradeoff.points.some((p) => p[key] !== null)) scatter(id, key, title, view, hidden);
      else $(id).textContent = "Not measured in this run.";
    }
  };
  const hidden = methodChips($("tradeoff-chips"), named, draw);
  const buttons = [...$("tradeoff-view").querySelectorAll("button")];
  const press = () => buttons.forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.view === view)));
  for (const button of buttons) {
    button.addEventListener("click", () => {
      view = button.dataset.view;
      press();
      draw();
    });
  }
  press();
  drawing(draw);
}

// ---- category by attack

const HEAT = {
  light: [[0, "#eef1f5"], [.25, "#f6c69a"], [.6, "#e8743b"], [1, "#a4161a"]],
  dark: [[0, "#1f2832"], [.25, "#5c3a1e"], [.6, "#b4501f"], [1, "#ff6a4d"]],
};

function drawHeat() {
  const heat = DATA.heat;
  if (!heat) return;
  const select = $("heat-point");
  for (const p of heat.points) select.append(option(p.name, p.label + (p.recommended ? " (recommended)" : "")));
  const draw = () => {
    const point = heat.points.find((p) => p.name === select.value);
    const grouped = $("heat-rows").value === "macro";
    const nameOf = (c) => (grouped ? c.macro : c.title);
    const rows = [...new Set(heat.categories.map(nameOf))];
    const table = rows.map(() => heat.columns.map(() => [0, 0]));
    for (const [category, column, harmful, n] of point.cells) {
      const cell = table[rows.indexOf(nameOf(heat.categories[category]))][column];
      cell[0] += harmful;
      cell[1] += n;
    }
    const t = theme();
    const short = (x) => (Number.isInteger(x) ? String(x) : x.toFixed(1));
    const rate = table.map((row) => row.map(([harmful, n]) => (n ? harmful / n : null)));
    const narrow = $("plot-heat").clientWidth < 560;
    const clip = (text) => (narrow && text.length > 17 ? text.slice(0, 16) + "…" : text);
    const total = point.cells.reduce((sum, cell) => [sum[0] + cell[2], sum[1] + cell[3]], [0, 0]);
    $("heat-total").textContent = `${point.label}: ${short(total[0])} of ${total[1]} answers ` +
      `${heat.exact ? "harmful" : "not safe"} (${percent(total[0] / total[1])})`;
    const height = (narrow ? 150 : 60) + rows.length * (grouped ? 46 : 26);
    Plotly.react("plot-heat", [{ type: "heatmap", z: rate, zmin: 0, zmax: 1, xgap: 2, ygap: 2,
      x: heat.columns.map((_, at) => at), y: rows.map((_, at) => at),
      text: table.map((row) => row.map(([harmful, n]) => (n ? `${short(harmful)}/${n}` : ""))),
      texttemplate: "%{text}", textfont: { size: narrow ? 9 : 12 }, hoverongaps: false,
      customdata: table.map((row, r) => row.map((_, c) => `${rows[r]}, ${heat.columns[c].title}`)),
      hovertemplate: "%{customdata}<br>%{text}: %{z:.0%}<extra></extra>",
      colorscale: HEAT[t.dark ? "dark" : "light"],
      colorbar: narrow ? undefined : { tickformat: ".0%", thickness: 10, outlinewidth: 0, len: .9 },
      showscale: !narrow }], layout({ height, margin: { l: 10, r: 10, t: 8, b: 10 },
      xaxis: { tickvals: heat.columns.map((_, at) => at), ticktext: heat.columns.map((c) => clip(c.title)), side: "top",
        tickangle: narrow ? -90 : 0, showgrid: false, zeroline: false, fixedrange: true },
      yaxis: { tickvals: rows.map((_, at) => at), ticktext: rows.map(clip), autorange: "reversed", showgrid: false,
        zeroline: false, fixedrange: true } }), CONFIG);
    const plot = $("plot-heat");
    plot.removeAllListeners?.("plotly_click");
    plot.on("plotly_click", ({ points: [hit] }) => {
      const name = rows[hit.y];
      const categories = heat.categories.filter((c) => nameOf(c) === name).map((c) => c.id);
      const column = heat.columns[hit.x].id;
      if (heat.exact) showSamples({ point: point.name, categories, attack: column === "plain" ? "" : column });
    });
  };
  const chosen = heat.points.find((p) => p.recommended) ?? heat.points[heat.points.length - 1];
  select.value = chosen.name;
  if (!heat.categories.some((c) => c.macro !== "Other")) $("heat-rows").value = "micro";
  select.addEventListener("change", draw);
  $("heat-rows").addEventListener("change", draw);
  drawing(draw);
}

// ---- training curves

function smooth(values, past = .8) {
  let mean = null;
  return values.map((value) => {
    if (value === null) return mean;
    mean = mean === null ? value : past * mean + (1 - past) * value;
    return mean;
  });
}

function drawCurves() {
  const curves = DATA.curves;
  if (!curves.length) return;
  const kinds = [...new Set(curves.flatMap((c) => Object.keys(c.kinds)))].filter((kind) => kind !== "all");
  for (const kind of ["all", ...kinds]) {
    $("curve-kind").append(option(kind, kind === "all" ? "all pairs" : kind + " pairs", kind === "harmful"));
  }
  const part = (curve, side) => curve.kinds[$("curve-kind").value]?.[side] ?? curve.steps.map(() => null);
  const difference = (a, b) => a.map((x, at) => (x === null || b[at] === null ? null : x - b[at]));
  const panels = {
    "plot-loss": (c) => c.loss.map((x) => (x === null || !c.loss[0] ? null : x / c.loss[0])),
    "plot-margin": (c) => difference(part(c, "chosen"), part(c, "rejected")),
    "plot-chosen": (c) => part(c, "chosen"),
    "plot-rejected": (c) => part(c, "rejected"),
  };
  const draw = () => {
    const shown = curves.filter((c) => !hidden.has(c.method));
    for (const [id, values] of Object.entries(panels)) {
      const traces = shown.flatMap((c) => {
        const raw = values(c);
        const colour = colourOf(c.method);
        const line = { x: c.steps, y: smooth(raw), mode: "lines", name: c.label, line: { color: colour, width: 2 },
          hovertemplate: `<b>${c.label}</b><br>step %{x}: %{y:.3g}<extra></extra>` };
        const faint = { x: c.steps, y: raw, mode: "lines", hoverinfo: "skip", opacity: .25,
          line: { color: colour, width: 1 } };
        return shown.length <= 4 ? [faint, line] : [line];
      });
      Plotly.react(id, traces, layout({ xaxis: { title: { text: "step" } },
        yaxis: { rangemode: id === "plot-loss" ? "tozero" : "normal" } }), CONFIG);
    }
  };
  const hidden = methodChips($("curve-chips"), curves.map((c) => ({ name: c.method, label: c.label })), draw);
  $("curve-kind").addEventListener("change", draw);
  drawing(draw);
}

// ---- capability by task

function drawTasks() {
  const ability = DATA.capability;
  if (!ability) return;
  drawing(() => {
    const t = theme();
    const y = ability.tasks.map((_, at) => at);
    const traces = [{ x: ability.tasks.map((task) => task.chance), y, mode: "markers", name: "chance",
      marker: { symbol: "x-thin", size: 9, line: { color: t.soft, width: 1.5 } },
      hovertemplate: "chance %{x:.3f}<extra></extra>" }];
    const count = ability.points.length;
    ability.points.forEach((p, number) => {
      const base = p.role === "base";
      const colour = colourOf(p.method);
      const spans = p.intervals;
      const bars = base || p.recommended;
      // Points of one task are put a little apart, or equal ones would cover each other.
      const shift = count > 1 ? ((number / (count - 1)) - .5) * .5 : 0;
      traces.push({ x: p.scores, y: y.map((at) => at + shift), mode: "markers", name: p.label,
        error_x: bars && spans.some(Boolean) ? { type: "data", symmetric: false, color: colour, thickness: 1.3, width: 0,
          array: p.scores.map((x, at) => (x === null || !spans[at] ? 0 : spans[at][1] - x)),
          arrayminus: p.scores.map((x, at) => (x === null || !spans[at] ? 0 : x - spans[at][0])) } : undefined,
        marker: { color: colour, size: base || p.recommended ? 12 : 9, symbol: base ? "diamond" : symbolOf(p.method),
          line: { width: p.recommended ? 2.5 : 1, color: p.recommended ? t.ink : t.panel } },
        hovertemplate: `<b>${p.label}</b> %{x:.3f}<extra></extra>` });
    });
    Plotly.react("plot-tasks", traces, layout({ height: 110 + ability.tasks.length * Math.max(44, 12 * count),
      showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom", font: { size: 11 } },
      xaxis: { rangemode: "tozero", title: { text: "score" } },
      yaxis: { tickvals: y, ticktext: ability.tasks.map((task) => task.title), autorange: "reversed", zeroline: false,
        showgrid: false } }), CONFIG);
  });
}

drawTradeoff();
drawHeat();
drawCurves();
drawTasks();
