// Curves over the steps of a run, as SVG: their colours are those of the style sheet.

import { h, setText } from './dom.js';

const HEIGHT = 190;
const [LEFT, BOTTOM, TOP, RIGHT] = [46, 24, 10, 20];
const POINTS = 300;

function svg(tag, props) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [key, value] of Object.entries(props)) node.setAttribute(key, value);
  return node;
}

/** Round values between two others. */
function ticks(low, high, wanted) {
  const rough = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((one) => one * power >= rough);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-6; at += step) found.push(Number(at.toPrecision(6)));
  return found;
}

/** At most so many values of a curve, evenly spread, with the last. */
function thin(values) {
  const every = Math.ceil(values.length / POINTS);
  return every <= 1 ? values : values.filter((_, i) => i % every === 0 || i === values.length - 1);
}

export class Chart {
  /** `curves`: [{key, name}], drawn by what `of(point, key)` says; `format` writes a value. */
  constructor(title, curves, { format, top = null, of = (point, key) => point[key] }) {
    Object.assign(this, { title, curves, format, top, of });
    this.svg = svg('svg', { height: HEIGHT, role: 'img', 'aria-label': title, class: 'chart' });
    this.axes = svg('g', { class: 'axes' });
    this.svg.append(this.axes);
    this.paths = curves.map((_, i) => svg('path', { class: `curve c${i}`, fill: 'none' }));
    this.dots = curves.map((_, i) => svg('circle', { class: `end c${i}`, r: 3, cx: -9, cy: -9 }));
    this.svg.append(...this.paths, ...this.dots);
    this.values = curves.map(() => h('b', { class: 'number' }));
    const legend = h('figcaption', {}, h('span', { text: title }), ...curves.map(({ name }, i) => h('span', { class: `key c${i}` }, h('i', {}), `${name} `, this.values[i])));
    this.root = h('figure', {}, legend, this.svg);
    this.width = 0;
    this.shown = null;
    new ResizeObserver(([{ contentRect: { width } }]) => {
      if (!width || Math.abs(width - this.width) < 1) return;
      this.width = width;
      if (this.shown) this.draw(...this.shown);
    }).observe(this.svg);
  }

  /** Draws points {step, ...} of a run of `steps`. */
  draw(points, steps) {
    this.shown = [points, steps];
    if (!this.width) return;
    const series = this.curves.map(({ key }) => points.map((point) => [point.step, this.of(point, key)])
      .filter(([, value]) => value !== null && value !== undefined && Number.isFinite(value)));
    const last = Math.max(1, steps ?? 0, points.at(-1)?.step ?? 0);
    let high = this.top;
    if (high === null) {
      high = 1e-9;
      for (const one of series) for (const [, value] of one) high = Math.max(high, value);
      high *= 1.05;
    }
    const x = (step) => LEFT + (step / last) * (this.width - LEFT - RIGHT);
    const y = (value) => TOP + (1 - value / high) * (HEIGHT - TOP - BOTTOM);
    this.#axes(last, high, x, y);
    const texts = series.map((one, i) => {
      const line = thin(one).map(([step, value]) => `${x(step).toFixed(1)} ${y(value).toFixed(1)}`);
      this.paths[i].setAttribute('d', line.length ? `M${line.join('L')}` : '');
      const end = one.at(-1);
      this.dots[i].setAttribute('cx', end ? x(end[0]) : -9);
      this.dots[i].setAttribute('cy', end ? y(end[1]) : -9);
      const text = end ? this.format(end[1]) : '–';
      setText(this.values[i], text);
      this.values[i].parentElement.hidden = !end;
      return end ? `${this.curves[i].name}: ${text}` : '';
    });
    this.svg.setAttribute('aria-label', `${this.title}. ${texts.filter(Boolean).join(', ')}`);
  }

  #axes(last, high, x, y) {
    const key = `${this.width} ${last} ${high.toPrecision(3)}`;
    if (key === this.key) return;
    this.key = key;
    const nodes = [];
    const text = (value, props) => {
      const node = svg('text', props);
      node.textContent = value;
      nodes.push(node);
    };
    for (const value of ticks(0, high, 4)) {
      nodes.push(svg('line', { x1: LEFT, x2: this.width - RIGHT, y1: y(value), y2: y(value) }));
      text(this.format(value), { x: LEFT - 6, y: y(value) + 4, 'text-anchor': 'end' });
    }
    for (const value of ticks(0, last, this.width / 90)) text(value, { x: x(value), y: HEIGHT - 6, 'text-anchor': 'middle' });
    this.axes.replaceChildren(...nodes);
  }
}
