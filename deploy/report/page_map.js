(() => {
  /* the precision map: a box's numbers, moving from box to box, search, zoom */
  const found = JSON.parse(document.getElementById("drawn-from").textContent).map;
  if (!found) return;
  const byId = (id) => document.getElementById(id);
  const svg = byId("graph");
  const view = byId("map-view");
  const panel = byId("map-panel");
  const nodes = [...svg.querySelectorAll("g.node")];
  const paths = [...svg.querySelectorAll(".edges path")];
  const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
  const SMALLEST = 0.15;
  const LARGEST = 3;
  let scale = 1;
  let current = -1;

  const places = nodes.map((node) => {
    const at = (name) => Number(node.querySelector("rect").getAttribute(name));
    return { x: at("x") + at("width") / 2, y: at("y") + at("height") / 2 };
  });
  const readers = nodes.map(() => []);
  const writers = nodes.map(() => []);
  found.edges.forEach(([from, to]) => {
    readers[from].push(to);
    writers[to].push(from);
  });

  /* the side panel */
  function element(name, text, kind) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  }

  function listed(items, kind) {
    const list = element("ul", undefined, kind);
    items.forEach((item) => list.append(element("li", item)));
    return list;
  }

  function jumps(title, boxes) {
    const line = element("p", `${title} `, "jumps");
    boxes.forEach((index) => {
      const button = element("button", found.boxes[index].title);
      button.type = "button";
      button.addEventListener("click", () => choose(index, true));
      line.append(button, " ");
    });
    return line;
  }

  function show(index) {
    const box = found.boxes[index];
    const parts = [element("h3", box.title)];
    if (box.nodes.length) parts.push(listed(box.nodes, "names"));
    const pairs = element("dl", undefined, "pairs");
    box.rows.forEach(([label, value]) => {
      pairs.append(element("dt", found.texts[label]), element("dd", found.texts[value]));
    });
    if (box.rows.length) parts.push(pairs);
    if (box.decisions.length) {
      const said = box.decisions.map((text) => found.texts[text]);
      parts.push(element("h4", "Decisions that touched it"), listed(said, "decisions"));
    }
    if (writers[index].length) parts.push(jumps("From", writers[index]));
    if (readers[index].length) parts.push(jumps("To", readers[index]));
    panel.replaceChildren(...parts);
    panel.scrollTop = 0;
  }

  function choose(index, focused) {
    if (current >= 0) {
      nodes[current].setAttribute("tabindex", "-1");
      nodes[current].setAttribute("aria-pressed", "false");
    }
    current = index;
    nodes.forEach((node, i) => {
      node.classList.toggle("chosen", i === index);
      node.classList.toggle("near", readers[index].includes(i) || writers[index].includes(i));
    });
    paths.forEach((path) => path.classList.toggle("chosen", Number(path.dataset.from) === index));
    nodes[index].setAttribute("tabindex", "0");
    nodes[index].setAttribute("aria-pressed", "true");
    if (focused) nodes[index].focus({ preventScroll: true });
    reveal(index);
    show(index);
  }

  function reveal(index) {
    const { x, y } = places[index];
    const room = 60;
    const left = x * scale;
    const top = y * scale;
    if (left < view.scrollLeft + room || left > view.scrollLeft + view.clientWidth - room) {
      view.scrollLeft = left - view.clientWidth / 2;
    }
    if (top < view.scrollTop + room || top > view.scrollTop + view.clientHeight - room) {
      view.scrollTop = top - view.clientHeight / 2;
    }
  }

  /* arrows: down and up along the edges, left and right to the nearest box beside */
  function beside(index, sign) {
    const from = places[index];
    const away = (i) => Math.abs(places[i].x - from.x) + 3 * Math.abs(places[i].y - from.y);
    const there = nodes.map((_, i) => i).filter((i) => sign * (places[i].x - from.x) > 1);
    return there.sort((a, b) => away(a) - away(b))[0];
  }

  function nearest(index, boxes) {
    const { x } = places[index];
    return [...boxes].sort((a, b) => Math.abs(places[a].x - x) - Math.abs(places[b].x - x))[0];
  }

  const moves = {
    ArrowDown: (index) => nearest(index, readers[index]),
    ArrowUp: (index) => nearest(index, writers[index]),
    ArrowLeft: (index) => beside(index, -1),
    ArrowRight: (index) => beside(index, 1),
    Home: () => 0,
    End: () => nodes.length - 1,
  };

  function pressed(event) {
    const index = nodes.indexOf(event.target.closest("g.node"));
    if (index < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      choose(index, true);
      return;
    }
    const to = moves[event.key]?.(index);
    if (to === undefined) return;
    event.preventDefault();
    choose(to, true);
  }

  /* search by name */
  const texts = found.boxes.map((box) => `${box.title} ${box.nodes.join(" ")}`.toLowerCase());
  const search = byId("map-search");
  const counted = byId("map-found");
  let hits = [];

  function look() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const hit = texts.map((text) => words.length > 0 && words.every((word) => text.includes(word)));
    hits = hit.flatMap((yes, i) => (yes ? [i] : []));
    svg.classList.toggle("searched", words.length > 0);
    nodes.forEach((node, i) => node.classList.toggle("hit", hit[i]));
    counted.textContent = words.length ? `${hits.length} found` : "";
    if (hits.length) reveal(hits[0]);
  }

  function next(event) {
    if (event.key !== "Enter" || !hits.length) return;
    event.preventDefault();
    choose(hits[(hits.indexOf(current) + 1) % hits.length], false);
  }

  /* zoom: the point in the middle stays where it is, or the one under the mouse */
  function zoom(wanted, x = view.clientWidth / 2, y = view.clientHeight / 2) {
    const before = scale;
    scale = Math.min(LARGEST, Math.max(SMALLEST, wanted));
    svg.style.width = `${width * scale}px`;
    svg.style.height = `${height * scale}px`;
    view.scrollLeft = ((view.scrollLeft + x) / before) * scale - x;
    view.scrollTop = ((view.scrollTop + y) / before) * scale - y;
  }

  /* as large as its place can become, not as it is now: it shrinks with the picture */
  function fit() {
    const highest = parseFloat(getComputedStyle(view).maxHeight) || view.clientHeight;
    zoom(Math.min(1, view.clientWidth / width, highest / height));
  }

  function setUpZoom() {
    byId("map-in").addEventListener("click", () => zoom(scale * 1.4));
    byId("map-out").addEventListener("click", () => zoom(scale / 1.4));
    byId("map-fit").addEventListener("click", fit);
    view.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey) return;
        event.preventDefault();
        const edge = view.getBoundingClientRect();
        const times = Math.exp(-event.deltaY / 300);
        zoom(scale * times, event.clientX - edge.left, event.clientY - edge.top);
      },
      { passive: false },
    );
  }

  /* dragging with the mouse; fingers scroll by themselves */
  function setUpDragging() {
    let from = null;
    let dragged = false;
    view.addEventListener("pointerdown", (event) => {
      dragged = false;
      if (event.pointerType !== "mouse" || event.button !== 0) return;
      from = { x: event.clientX + view.scrollLeft, y: event.clientY + view.scrollTop };
    });
    window.addEventListener("pointermove", (event) => {
      if (!from) return;
      const left = from.x - event.clientX;
      const top = from.y - event.clientY;
      if (Math.abs(left - view.scrollLeft) + Math.abs(top - view.scrollTop) > 4) dragged = true;
      if (!dragged) return;
      view.scrollLeft = left;
      view.scrollTop = top;
      view.classList.add("dragged");
    });
    window.addEventListener("pointerup", () => {
      from = null;
      view.classList.remove("dragged");
    });
    svg.addEventListener("click", (event) => {
      const index = nodes.indexOf(event.target.closest("g.node"));
      if (index >= 0 && !dragged) choose(index, true);
    });
  }

  svg.setAttribute("role", "group");
  nodes.forEach((node, i) => {
    node.setAttribute("role", "button");
    node.setAttribute("tabindex", i === 0 ? "0" : "-1");
    node.setAttribute("aria-label", node.querySelector("title").textContent.replaceAll("\n", ", "));
  });
  svg.addEventListener("keydown", pressed);
  search.addEventListener("input", look);
  search.addEventListener("keydown", next);
  setUpZoom();
  setUpDragging();
  byId("map-tools").hidden = false;
  panel.hidden = false;
  view.removeAttribute("tabindex");
  view.parentElement.classList.add("alive");
  /* whole where that can be read, else as large as it can be read, from its beginning */
  zoom(Math.min(1, Math.max(0.55, view.clientWidth / width)));
  view.scrollTo(0, 0);
})();
