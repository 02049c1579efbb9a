"use strict";
(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const state = { axis: page.axis, metric: page.metric, off: new Set() };
  const all = (selector) => [...document.querySelectorAll(selector)];
  const color = (i) => `c${i && 1 + ((i - 1) % 7)} d${i && Math.floor((i - 1) / 7) % 3}`;

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function svg(tag, attributes = {}, text = "") {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.textContent = text;
    return made;
  }

  // Numbers

  function ticks(low, high, count) {
    const raw = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 5, 10].find((times) => times * power >= raw * 0.999);
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step + 0);
    return { step, found };
  }

  function number(value, step) {
    if (value === 0) return "0";
    if (Math.abs(value) < 0.01 || Math.abs(value) >= 1e6) return Number(value.toPrecision(3)).toExponential();
    const places = Math.min(6, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
    return value.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places });
  }

  function exactly(value) {
    if (value === 0) return "0";
    return number(value, 10 ** (Math.floor(Math.log10(Math.abs(value))) - 3));
  }

  function at(points, x) {
    if (!points.length || x < points[0][0] || x > points[points.length - 1][0]) return null;
    let [low, high] = [0, points.length - 1];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (points[middle][0] <= x) low = middle;
      else high = middle;
    }
    const [[x0, y0], [x1, y1]] = [points[low], points[high]];
    return x1 === x0 ? y0 : y0 + ((y1 - y0) * (x - x0)) / (x1 - x0);
  }

  // What to draw

  function curves(key) {
    return page.runs
      .map((run, i) => {
        const [places, values] = run.y[key] || [[], []];
        const x = run.x[state.axis] || [];
        const points = places.map((place, k) => [x[place], values[k]]).filter(([at]) => at != null);
        return { run, i, points };
      })
      .filter(({ i, points }) => points.length && !state.off.has(i));
  }

  function bounds(shown, metric) {
    const values = shown.flatMap(({ points }) => points.map(([, y]) => y)).sort((a, b) => a - b);
    if (!values.length) return [0, 1];
    let [low, high] = [values[0], values[values.length - 1]];
    if (metric) {
      // The beginning of a run would leave the rest no room.
      const quantile = (share) => values[Math.floor(share * (values.length - 1))];
      if (metric.higher) low = Math.max(low, quantile(0.25) - 1.5 * (high - quantile(0.25)));
      else high = Math.min(high, quantile(0.75) + 1.5 * (quantile(0.75) - low));
    } else low = Math.min(0, low);
    const room = (high - low || Math.abs(high) || 1) * 0.06;
    return [metric ? low - room : low, high + room];
  }

  function draw(figure) {
    const main = figure.dataset.key === "";
    const key = main ? state.metric : figure.dataset.key;
    const metric = main ? page.metrics.find((one) => one.key === key) : null;
    const axis = page.axes.find((one) => one.key === state.axis);
    const shown = curves(key);
    const width = Math.max(260, figure.clientWidth - 20);
    const named = main && width >= 620 && shown.length <= 8;
    const longest = Math.max(0, ...shown.map(({ run }) => run.name.length));
    const right = named ? Math.min(220, 36 + 7.2 * longest) : 14;
    const box = { left: 56, top: 12, right: width - right, bottom: (main ? Math.max(300, width * 0.42) : 200) - 44 };
    const ends = shown.map(({ points }) => points[points.length - 1][0]);
    const domain = [0, Math.max(...ends, 0) || 1];
    const range = bounds(shown, metric);
    const x = (value) => box.left + ((value - domain[0]) / (domain[1] - domain[0])) * (box.right - box.left);
    const y = (value) => box.bottom - ((value - range[0]) / (range[1] - range[0])) * (box.bottom - box.top);
    const picture = svg("svg", {
      viewBox: `0 0 ${width} ${box.bottom + 44}`, role: "img", tabindex: 0,
      "aria-label": `${metric ? metric.label : figure.dataset.label} against ${axis.label}, ${shown.length} runs`,
    });
    const clip = `clip-${figure.dataset.key || "main"}`;
    const path = picture.appendChild(svg("clipPath", { id: clip }));
    path.append(svg("rect", {
      x: box.left - 3, y: box.top - 3, width: box.right - box.left + 6, height: box.bottom - box.top + 6,
    }));
    drawAxes(picture, box, { x, y, domain, range, axis, label: metric ? metric.label : "" });
    if (metric) drawGuides(picture, box, { x, y, domain, range, metric });
    for (const { i, points } of shown) {
      const line = points.map(([a, b], k) => `${k ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
      const dot = points.length === 1 ? "h0" : "";
      const many = points.length > 150 && main ? " many" : "";
      picture.append(svg("path", { d: line + dot, class: `curve ${color(i)}${many}`, "clip-path": `url(#${clip})` }));
    }
    if (metric) drawReached(picture, shown, { x, y, metric });
    if (named) drawNames(picture, box, shown, { y });
    const tip = element("div", { class: "tip", role: "status", hidden: "" });
    figure.replaceChildren(...(main ? [] : [figure.querySelector("figcaption")]), picture, tip);
    listen(figure, picture, tip, { box, domain, x, y, shown, axis, width, higher: metric?.higher });
  }

  function drawAxes(picture, box, { x, y, domain, range, axis, label }) {
    const down = ticks(...range, (box.bottom - box.top) / 42);
    for (const value of down.found) {
      const place = { x1: box.left, x2: box.right, y1: y(value), y2: y(value), class: "grid" };
      picture.append(svg("line", place));
      picture.append(svg("text", { x: box.left - 8, y: y(value) + 4, "text-anchor": "end" }, number(value, down.step)));
    }
    const across = ticks(...domain, (box.right - box.left) / 58);
    for (const value of across.found) {
      const said = number(value, across.step) + (value ? axis.suffix : "");
      picture.append(svg("text", { x: x(value), y: box.bottom + 18, "text-anchor": "middle" }, said));
    }
    picture.append(svg("line", { x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom, class: "axis" }));
    const middle = { x: (box.left + box.right) / 2, y: box.bottom + 38, "text-anchor": "middle" };
    picture.append(svg("text", { ...middle, class: "label x-label" }, axis.label));
    const turned = `translate(13 ${(box.top + box.bottom) / 2}) rotate(-90)`;
    const beside = { transform: turned, "text-anchor": "middle", class: "label y-label" };
    if (label) picture.append(svg("text", beside, label));
  }

  function drawGuides(picture, box, { x, y, domain, range, metric }) {
    const end = metric.end[state.axis];
    if (metric.best >= range[0] && metric.best <= range[1]) {
      const place = { x1: box.left, x2: box.right, y1: y(metric.best), y2: y(metric.best), class: "guide" };
      picture.append(svg("line", place));
      const under = y(metric.best) + (metric.higher ? -6 : 15);
      picture.append(svg("text", { x: box.left + 6, y: under }, `baseline's best: ${exactly(metric.best)}`));
    }
    if (end != null && end < domain[1] * 0.995) {
      picture.append(svg("line", { x1: x(end), x2: x(end), y1: box.top, y2: box.bottom, class: "guide" }));
      const place = { x: x(end) - 6, y: box.top + 10, "text-anchor": "end" };
      picture.append(svg("text", place, "baseline ends"));
    }
  }

  function drawReached(picture, shown, { x, y, metric }) {
    for (const { i } of shown) {
      const where = metric.reached[i][state.axis];
      if (where == null) continue;
      picture.append(svg("circle", { cx: x(where), cy: y(metric.best), r: 5.5, class: `dot ${color(i)}` }));
    }
  }

  function drawNames(picture, box, shown, { y }) {
    const names = shown
      .map(({ run, i, points }) => ({ name: run.name, i, at: y(points[points.length - 1][1]) }))
      .sort((a, b) => a.at - b.at);
    names.forEach((one, k) => (one.at = Math.max(one.at, k ? names[k - 1].at + 15 : box.top)));
    const over = Math.max(0, (names[names.length - 1]?.at ?? 0) - box.bottom);
    for (const { name, i, at } of names) {
      const said = name.length > 25 ? `${name.slice(0, 24)}…` : name;
      const [x, y] = [box.right + 9, at - over];
      picture.append(svg("path", { d: `M${x} ${y}h15`, class: `name ${color(i)}` }));
      picture.append(svg("text", { x: x + 20, y: y + 4, class: "label" }, said));
    }
  }

  // Reading values

  function listen(figure, picture, tip, scene) {
    const { box, domain } = scene;
    let place = null;
    const show = (value) => {
      place = Math.min(domain[1], Math.max(domain[0], value));
      drawTip(figure, picture, tip, scene, place);
    };
    const hide = () => {
      place = null;
      tip.hidden = true;
      picture.querySelector(".reading")?.remove();
    };
    const point = (event) => {
      const frame = picture.getBoundingClientRect();
      const across = ((event.clientX - frame.left) / frame.width) * scene.width;
      show(domain[0] + ((across - box.left) / (box.right - box.left)) * (domain[1] - domain[0]));
    };
    picture.addEventListener("pointermove", point);
    picture.addEventListener("pointerdown", point);
    picture.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide());
    picture.addEventListener("blur", hide);
    picture.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === "Escape") hide();
      if (!step) return;
      event.preventDefault();
      show((place ?? (domain[0] + domain[1]) / 2) + (step * (domain[1] - domain[0])) / 50);
    });
  }

  function drawTip(figure, picture, tip, { box, x, y, shown, axis, width, higher }, place) {
    const values = shown
      .map(({ run, i, points }) => ({ name: run.name, i, value: at(points, place) }))
      .filter(({ value }) => value != null)
      .sort((a, b) => (higher === false ? a.value - b.value : b.value - a.value));
    picture.querySelector(".reading")?.remove();
    const reading = picture.appendChild(svg("g", { class: "reading" }));
    reading.append(svg("line", { x1: x(place), x2: x(place), y1: box.top, y2: box.bottom, class: "cross" }));
    for (const { i, value } of values) {
      if (y(value) < box.top - 3) continue;
      reading.append(svg("circle", { cx: x(place), cy: y(value), r: 4, class: `dot ${color(i)}` }));
    }
    const rows = values.slice(0, 10).map(({ name, i, value }) => {
      const swatch = element("i", { class: `swatch ${color(i)}` });
      return element("div", {}, element("span", {}, swatch, name), element("b", {}, exactly(value)));
    });
    if (values.length > 10) rows.push(element("div", { class: "muted" }, `and ${values.length - 10} more`));
    const head = element("div", { class: "muted" }, `${axis.name}: ${exactly(place)}${axis.suffix} ${axis.unit}`);
    tip.replaceChildren(head, ...rows);
    tip.hidden = false;
    const scale = picture.getBoundingClientRect().width / width;
    const left = picture.offsetLeft || 10;
    const after = left + x(place) * scale + 12;
    const fits = after + tip.offsetWidth < figure.clientWidth - 4;
    tip.style.left = `${Math.max(4, fits ? after : left + x(place) * scale - 12 - tip.offsetWidth)}px`;
    tip.style.top = `${Math.max(4, picture.getBoundingClientRect().top - figure.getBoundingClientRect().top + 8)}px`;
  }

  // Switches

  function refresh() {
    for (const kind of ["axis", "metric"]) {
      for (const button of all(`button[data-${kind}]`)) {
        button.setAttribute("aria-pressed", String(button.dataset[kind] === state[kind]));
      }
    }
    for (const part of all("[data-of-metric]")) part.hidden = part.dataset.ofMetric !== state.metric;
    all("#legend button").forEach((button, i) => button.setAttribute("aria-pressed", String(!state.off.has(i))));
    all("figure[data-key]").forEach(draw);
  }

  for (const kind of ["axis", "metric"]) {
    for (const button of all(`button[data-${kind}]`)) {
      button.addEventListener("click", () => {
        state[kind] = button.dataset[kind];
        refresh();
      });
    }
  }
  for (const group of all("[role=group]")) {
    group.addEventListener("keydown", (event) => {
      const buttons = [...group.querySelectorAll("button")];
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const place = buttons.indexOf(document.activeElement);
      if (step && place >= 0) buttons[(place + step + buttons.length) % buttons.length].focus();
    });
  }
  page.runs.forEach((run, i) => {
    const button = element("button", { type: "button" }, element("i", { class: `swatch ${color(i)}` }), run.name);
    button.addEventListener("click", () => {
      if (!state.off.delete(i)) state.off.add(i);
      refresh();
    });
    document.getElementById("legend").append(button);
  });
  for (const part of all("[data-script]")) part.hidden = false;
  refresh();
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) refresh();
    width = window.innerWidth;
  });
})();
