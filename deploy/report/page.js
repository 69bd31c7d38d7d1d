"use strict";
(() => {
  const content = JSON.parse(document.getElementById("drawn-from").textContent);
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const config = { displayModeBar: false };
  const mouse = window.matchMedia("(pointer: fine)").matches;
  const byId = (id) => document.getElementById(id);

  /* "--accent" and the like, anywhere in a figure, become the colours of the theme */
  function coloured(value, style) {
    if (Array.isArray(value)) return value.map((each) => coloured(each, style));
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v, style)]));
    }
    const named = typeof value === "string" && /^--[a-z-]+$/.test(value);
    return named ? style.getPropertyValue(value).trim() : value;
  }

  function axis(given) {
    const lines = { gridcolor: "--line", linecolor: "--strong-line", zerolinecolor: "--line" };
    return { automargin: true, fixedrange: !mouse, ...lines, ...given };
  }

  function draw(id, figure, width) {
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: "--text" },
      hoverlabel: { bgcolor: "--card", bordercolor: "--strong-line", font: { color: "--text" }, align: "left" },
      dragmode: mouse ? "zoom" : false,
      ...figure.layout,
      ...(width ? { width, autosize: false } : { autosize: true }),
      xaxis: axis(figure.layout.xaxis),
      yaxis: axis(figure.layout.yaxis),
    };
    const style = getComputedStyle(root);
    return Plotly.react(id, coloured(figure.data, style), coloured(layout, style), config);
  }

  /* the histogram of one tensor */
  const chosen = byId("tensor");
  const logarithmic = byId("logarithmic");
  let tensor = content.first;

  function line(x, name, dash, color) {
    const top = logarithmic.checked ? 0.5 : 0;
    return { type: "scatter", mode: "lines", x: [null], y: [top], name, line: { dash, color, width: 2 } };
  }

  function edge(x, dash, color) {
    return { type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper", line: { dash, color, width: 2 } };
  }

  function histogram(t) {
    const low = Math.min(t.used[0], 0);
    const high = Math.max(t.used[1], 0);
    /* no bar reaches farther than what was seen */
    const lefts = t.counts.map((_, i) => Math.max(t.start + i * t.width, t.seen[0]));
    const rights = t.counts.map((_, i) => Math.min(t.start + (i + 1) * t.width, t.seen[1]));
    const widths = lefts.map((left, i) => Math.max(rights[i] - left, t.width / 8));
    const outside = lefts.map((left, i) => left + rights[i] > 2 * high || left + rights[i] < 2 * low);
    const bars = {
      type: "bar",
      name: "values",
      x: lefts.map((left, i) => left + widths[i] / 2),
      y: logarithmic.checked ? t.counts.map((n) => n || null) : t.counts,
      width: widths,
      marker: { color: outside.map((out) => (out ? "--bad" : "--bar")) },
      hovertemplate: "%{x:.4g}: %{y:,}<extra></extra>",
      showlegend: false,
    };
    return {
      data: [bars, line(0, "range in use", "solid", "--accent"), line(0, "lowest and highest seen", "dot", "--quiet")],
      layout: {
        height: 320,
        margin: { l: 56, r: 16, t: 34, b: 44 },
        bargap: 0,
        showlegend: true,
        legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
        xaxis: { title: { text: "value" }, zeroline: false },
        yaxis: {
          title: { text: "values counted" },
          type: logarithmic.checked ? "log" : "linear",
          ...(logarithmic.checked ? { dtick: 1, exponentformat: "SI" } : { rangemode: "tozero" }),
          fixedrange: true,
        },
        shapes: [
          edge(t.seen[0], "dot", "--quiet"),
          edge(t.seen[1], "dot", "--quiet"),
          edge(t.used[0], "solid", "--accent"),
          edge(t.used[1], "solid", "--accent"),
        ],
      },
    };
  }

  function show(index, width) {
    tensor = index;
    const t = content.tensors[index];
    chosen.value = String(index);
    document.querySelectorAll("#calibration tbody tr").forEach((row) => {
      row.setAttribute("aria-selected", String(Number(row.dataset.row) === index));
    });
    byId("histogram-words").textContent =
      `${t.name}: range ${t.used[0]} to ${t.used[1]}, seen ${t.seen[0]} to ${t.seen[1]}; ${t.words}.`;
    return draw("figure-histogram", histogram(t), width);
  }

  function setUpHistogram() {
    byId("histogram").hidden = false;
    content.tensors.forEach((t, i) => chosen.add(new Option(t.name, String(i))));
    chosen.addEventListener("change", () => show(Number(chosen.value)));
    logarithmic.addEventListener("change", () => show(tensor));
    document.querySelectorAll("#calibration tbody tr").forEach((row) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = row.cells[0].textContent;
      button.title = "Draw the histogram of this tensor";
      row.cells[0].replaceChildren(button);
      button.addEventListener("click", () => {
        show(Number(row.dataset.row));
        byId("histogram").scrollIntoView({ block: "nearest" });
      });
    });
  }

  function drawAll(width) {
    const all = Object.entries(content.figures).map(([k, f]) => draw(`figure-${k}`, f, width));
    if (content.tensors.length) all.push(show(tensor, width));
    return Promise.all(all);
  }

  /* tables: a filter box above the long ones, sorting by a click on a title */
  function addFilter(scroll) {
    const rows = [...scroll.querySelectorAll("tbody tr")];
    const box = document.createElement("div");
    box.className = "filter";
    const input = document.createElement("input");
    input.type = "search";
    input.placeholder = "Filter rows";
    input.setAttribute("aria-label", `Filter rows of ${scroll.getAttribute("aria-label")}`);
    const count = document.createElement("output");
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const apply = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, i) => {
        row.hidden = !words.every((word) => texts[i].includes(word));
        shown += row.hidden ? 0 : 1;
      });
      count.textContent = `${shown} of ${rows.length} rows`;
    };
    input.addEventListener("input", apply);
    apply();
    box.append(input, count);
    scroll.before(box);
  }

  function key(row, column) {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  }

  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }

  function addSorting(table) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].sort((a, b) => compare(key(a, column), key(b, column)));
        body.append(...(down ? rows.reverse() : rows));
      });
    });
  }

  /* the theme: the system's, until the button says otherwise */
  function dark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
  }

  function labelTheme() {
    const button = byId("theme");
    button.hidden = false;
    button.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to the ${dark() ? "light" : "dark"} theme`);
  }

  function setUpTheme() {
    byId("theme").addEventListener("click", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      labelTheme();
      drawAll();
    });
    system.addEventListener("change", () => {
      labelTheme();
      drawAll();
    });
    labelTheme();
  }

  /* the link of the section in view is marked */
  function setUpNavigation() {
    const links = new Map(
      [...document.querySelectorAll("nav a")].map((a) => [a.getAttribute("href").slice(1), a]),
    );
    const watcher = new IntersectionObserver(
      (entries) => {
        const entry = entries.find((each) => each.isIntersecting);
        if (!entry) return;
        links.forEach((link) => link.removeAttribute("aria-current"));
        links.get(entry.target.id)?.setAttribute("aria-current", "true");
      },
      { rootMargin: "-15% 0px -80% 0px" },
    );
    document.querySelectorAll("main > section").forEach((section) => watcher.observe(section));
  }

  const PRINTED = 680;
  let theme;
  let printing = false;
  window.addEventListener("beforeprint", () => {
    printing = true;
    theme = root.dataset.theme;
    root.dataset.theme = "light";
    drawAll(PRINTED);
  });
  window.addEventListener("afterprint", () => {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    printing = false;
    drawAll();
  });

  const watched = new ResizeObserver((entries) => {
    entries.forEach(({ target }) => {
      const plot = target.querySelector(".main-svg");
      const fits = plot && Math.abs(plot.getBoundingClientRect().width - target.clientWidth) < 1;
      if (plot && !fits && target.clientWidth && !printing) Plotly.Plots.resize(target);
    });
  });

  setUpTheme();
  setUpNavigation();
  document.querySelectorAll(".scroll.long").forEach(addFilter);
  document.querySelectorAll(".scroll.long table").forEach(addSorting);
  if (content.tensors.length) setUpHistogram();
  drawAll().then(() => {
    const marker = document.createElement("div");
    marker.id = "figures-drawn";
    marker.hidden = true;
    marker.textContent = String(document.querySelectorAll(".js-plotly-plot").length);
    document.body.append(marker);
    document.querySelectorAll(".figure").forEach((figure) => watched.observe(figure));
  });
})();
