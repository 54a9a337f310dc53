// Reading values off the curves, and looking at the points of the map. The page says the same without it.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const number = (value) => Math.abs(value) >= 1000 ? Math.round(value).toString()
    : Number(value.toPrecision(4)).toString();

  document.querySelectorAll("svg[data-chart]").forEach((svg) => {
    const chart = data.charts[Number(svg.dataset.chart)];
    const cursor = svg.querySelector(".cursor");
    const read = svg.parentElement.querySelector(".read");
    const steps = [...new Set(chart.series.flatMap((s) => s.points.map((p) => p[0])))].sort((a, b) => a - b);
    if (steps.length === 0) return;
    const [left, right] = chart.box;
    let at = -1;
    const nearest = (list, of, value) => {
      let best = 0;
      list.forEach((item, i) => { if (Math.abs(of(item) - value) < Math.abs(of(list[best]) - value)) best = i; });
      return best;
    };
    const show = (i) => {
      at = Math.max(0, Math.min(steps.length - 1, i));
      const step = steps[at];
      const x = left + (step - chart.x[0]) / Math.max(chart.x[1] - chart.x[0], 1e-9) * (right - left);
      cursor.setAttribute("x1", x); cursor.setAttribute("x2", x);
      cursor.style.visibility = "visible";
      const parts = chart.series.filter((s) => s.points.length > 0).map((s) => {
        const point = s.points[nearest(s.points, (p) => p[0], step)];
        return `${chart.series.length > 1 ? s.name + " " : ""}${number(point[1])}${chart.unit}`;
      });
      read.textContent = `step ${step}: ${parts.join(", ")}`;
    };
    const hide = () => { cursor.style.visibility = "hidden"; read.textContent = ""; };
    const move = (event) => {
      const box = svg.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
      const step = chart.x[0] + (x - left) / (right - left) * (chart.x[1] - chart.x[0]);
      show(nearest(steps, (s) => s, step));
    };
    svg.addEventListener("pointermove", move);
    svg.addEventListener("pointerdown", move);
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, Home: -steps.length, End: steps.length }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      show(at < 0 ? (by > 0 && event.key !== "End" ? 0 : steps.length - 1) : at + by);
    });
  });

  const plot = document.querySelector("svg.plot");
  if (plot) {
    const points = [...plot.querySelectorAll(".pt")];
    const picked = document.querySelector(".picked");
    const classes = data.map.classes;
    const order = points.map((_, i) => i).sort((a, b) => data.map.points[a][0] - data.map.points[b][0] || a - b);
    let on = -1;
    const pick = (i) => {
      if (on >= 0) points[on].classList.remove("on");
      on = i;
      const [, , label, thumb, name, nearest, right] = data.map.points[i];
      points[i].classList.add("on");
      points[i].parentElement.appendChild(points[i]);
      const view = document.createElement("div");
      view.className = `th t${thumb} zoomed`;
      const box = document.createElement("div");
      box.className = "frame zoombox " + (right ? "good" : "bad");
      box.appendChild(view);
      const lines = [classes[label], name, right ? "nearest class mean: its own" : `nearest class mean: ${data.map.all[nearest]}`];
      picked.replaceChildren(box, ...lines.map((line, k) => {
        const p = document.createElement("p");
        p.textContent = line;
        if (k === 0) p.className = "changed";
        return p;
      }));
    };
    points.forEach((point, i) => {
      point.addEventListener("pointerenter", () => pick(i));
      point.addEventListener("click", () => pick(i));
    });
    // A touch beside a point means the nearest one.
    plot.addEventListener("click", (event) => {
      if (event.target.classList.contains("pt")) return;
      const box = plot.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * plot.viewBox.baseVal.width;
      const y = (event.clientY - box.top) / box.height * plot.viewBox.baseVal.height;
      let best = 0, least = Infinity;
      data.map.points.forEach((p, i) => { const d = (p[0] - x) ** 2 + (p[1] - y) ** 2; if (d < least) { least = d; best = i; } });
      pick(best);
    });
    plot.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      const now = on < 0 ? -by : order.indexOf(on);
      pick(order[(now + by + order.length) % order.length]);
    });
    document.querySelectorAll(".map .legend button").forEach((button) => {
      button.addEventListener("click", () => {
        const pressed = button.getAttribute("aria-pressed") === "true";
        document.querySelectorAll(".map .legend button").forEach((b) => b.setAttribute("aria-pressed", "false"));
        button.setAttribute("aria-pressed", String(!pressed));
        points.forEach((point, i) => point.classList.toggle("dim", !pressed && data.map.points[i][2] !== Number(button.dataset.label)));
      });
    });
  }

  // While the run goes on, the page is read anew when nobody is about to use it.
  if (document.body.dataset.running !== undefined) {
    let last = Date.now();
    ["pointermove", "keydown", "scroll"].forEach((kind) => addEventListener(kind, () => { last = Date.now(); }, { passive: true }));
    setInterval(() => { if (Date.now() - last > 10000 && !document.hidden) location.reload(); }, 30000);
  }
})();
