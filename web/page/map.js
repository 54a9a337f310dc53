// A map of pictures on a canvas: to hover, to walk with the arrow keys, to zoom.

import { S } from './strings.js';
import { attempt, button, h, inChunks, say } from './dom.js';
import { className, hue } from './state.js';
import { show, thumbnail } from './thumbs.js';
import { showPicture } from './picture.js';

/** Thumbnails on the map; other pictures are dots. */
const THUMBS = 250;
const SIZE = 30;

export class PictureMap {
  #points = [];
  #images = new Map();
  #view = { x: 0, y: 0, zoom: 1 };
  #at = null;
  #asked = false;
  #drag = null;
  #pinch = null;
  #fingers = new Map();

  constructor() {
    this.canvas = h('canvas', { class: 'map', tabindex: 0, role: 'application', 'aria-label': S.mapLabel });
    this.tip = h('div', { class: 'tip', hidden: true }, h('img', { alt: '' }), h('span', {}));
    const zoom = (by) => () => this.#zoom(by, this.canvas.clientWidth / 2, this.canvas.clientHeight / 2);
    const tools = h('div', { class: 'row zoom' }, button('+', zoom(1.4), { 'aria-label': S.zoomIn }), button('−', zoom(1 / 1.4), { 'aria-label': S.zoomOut }),
      button(S.zoomAll, () => this.#reset(), { class: 'plain' }));
    this.root = h('div', { class: 'map-box' }, this.canvas, this.tip, tools);
    const on = (name, listener, options) => this.canvas.addEventListener(name, listener, options);
    on('pointermove', (event) => this.#move(event));
    on('pointerdown', (event) => this.#down(event));
    for (const name of ['pointerup', 'pointercancel']) on(name, (event) => this.#up(event));
    on('pointerleave', () => this.#point(null));
    on('blur', () => this.#point(null));
    on('focus', () => this.canvas.matches(':focus-visible') && this.#point(this.#at ?? 0));
    on('keydown', (event) => this.#key(event));
    on('wheel', (event) => {
      event.preventDefault();
      this.#zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
    }, { passive: false });
    new ResizeObserver(() => this.#later()).observe(this.canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#later());
  }

  /** Shows points {id, class, x, y}. */
  set(points) {
    this.#points = points;
    for (const image of this.#images.values()) image.close();
    this.#images.clear();
    this.#at = null;
    this.#view = { x: 0, y: 0, zoom: 1 };
    const every = Math.max(1, Math.ceil(points.length / THUMBS));
    this.#load(points.filter((_, i) => i % every === 0).map(({ id }) => id), points);
    this.#later();
  }

  async #load(ids, points) {
    for (const id of ids) {
      if (this.#points !== points) return;
      try {
        const image = await createImageBitmap(await thumbnail(id), { resizeWidth: SIZE * 2, resizeHeight: SIZE * 2, resizeQuality: 'medium' });
        this.#images.set(id, image);
        this.#later();
      } catch {
        // The picture stays a dot.
      }
    }
  }

  #later() {
    if (this.#asked) return;
    this.#asked = true;
    setTimeout(() => inChunks(() => {
      this.#asked = false;
      this.#draw();
    }), 60);
  }

  #place({ x, y }) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const { zoom } = this.#view;
    return [width / 2 + (x * zoom + this.#view.x) * (width / 2 - SIZE), height / 2 - (y * zoom + this.#view.y) * (height / 2 - SIZE)];
  }

  #draw() {
    const { canvas } = this;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width) return;
    const scale = Math.min(2, devicePixelRatio);
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const dark = matchMedia('(prefers-color-scheme: dark)').matches;
    const colours = new Map();
    const colour = (id) => {
      if (!colours.has(id)) colours.set(id, `hsl(${hue(id)} 65% ${dark ? 65 : 45}%)`);
      return colours.get(id);
    };
    const to = canvas.getContext('2d');
    to.setTransform(scale, 0, 0, scale, 0, 0);
    to.clearRect(0, 0, width, height);
    const places = this.#points.map((point) => this.#place(point));
    this.#points.forEach((point, i) => {
      if (this.#images.has(point.id)) return;
      to.fillStyle = colour(point.class);
      to.fillRect(places[i][0] - 3, places[i][1] - 3, 6, 6);
    });
    const one = (i, size) => {
      const image = this.#images.get(this.#points[i].id);
      const [x, y] = [places[i][0] - size / 2, places[i][1] - size / 2];
      to.fillStyle = colour(this.#points[i].class);
      to.fillRect(x - 2, y - 2, size + 4, size + 4);
      if (image) to.drawImage(image, x, y, size, size);
    };
    this.#points.forEach((point, i) => this.#images.has(point.id) && one(i, SIZE));
    if (this.#at !== null && this.#at < places.length && !this.tip.hidden) one(this.#at, SIZE * 1.3);
  }

  /** The point next to a place, within reach. */
  #near(x, y) {
    let found = null;
    let best = SIZE * 0.8;
    this.#points.forEach((point, i) => {
      const [px, py] = this.#place(point);
      const far = Math.hypot(px - x, py - y);
      if (far < best) [found, best] = [i, far];
    });
    return found;
  }

  /** Says what is under the pointer or has the focus. */
  #point(at) {
    const point = at === null ? null : this.#points[at];
    if (point && at === this.#at && !this.tip.hidden) return;
    this.tip.hidden = !point;
    this.canvas.classList.toggle('on', Boolean(point));
    if (point) {
      this.#at = at;
      const [x, y] = this.#place(point);
      this.tip.style.setProperty('--x', `${Math.max(60, Math.min(this.canvas.clientWidth - 60, x))}px`);
      this.tip.style.setProperty('--y', `${y}px`);
      this.tip.classList.toggle('below', y < 130);
      this.tip.lastChild.textContent = className(point.class);
      thumbnail(point.id).then((blob) => this.#at === at && show(this.tip.firstChild, blob), () => {});
    }
    this.#later();
  }

  #down(event) {
    this.#fingers.set(event.pointerId, event);
    this.canvas.setPointerCapture(event.pointerId);
    this.#drag = { x: event.offsetX, y: event.offsetY, far: 0 };
  }

  #move(event) {
    if (this.#fingers.has(event.pointerId)) this.#fingers.set(event.pointerId, event);
    if (this.#fingers.size === 2) {
      const [a, b] = [...this.#fingers.values()];
      const apart = Math.hypot(a.offsetX - b.offsetX, a.offsetY - b.offsetY);
      if (this.#pinch) this.#zoom(apart / this.#pinch, (a.offsetX + b.offsetX) / 2, (a.offsetY + b.offsetY) / 2);
      this.#pinch = apart;
      if (this.#drag) this.#drag.far = 99;
    } else if (this.#drag) {
      const [dx, dy] = [event.offsetX - this.#drag.x, event.offsetY - this.#drag.y];
      this.#drag = { x: event.offsetX, y: event.offsetY, far: this.#drag.far + Math.hypot(dx, dy) };
      if (this.#drag.far > 4 && this.#view.zoom > 1) {
        this.#view.x += dx / (this.canvas.clientWidth / 2 - SIZE);
        this.#view.y -= dy / (this.canvas.clientHeight / 2 - SIZE);
        this.#later();
      }
    } else {
      this.#point(this.#near(event.offsetX, event.offsetY));
    }
  }

  #up(event) {
    this.#fingers.delete(event.pointerId);
    this.#pinch = null;
    const tapped = this.#drag && this.#drag.far < 6 && event.type === 'pointerup';
    this.#drag = null;
    if (!tapped) return;
    const at = this.#near(event.offsetX, event.offsetY);
    this.#point(at);
    if (at !== null) attempt(() => showPicture(this.#points[at].id));
  }

  #zoom(by, x, y) {
    const view = this.#view;
    const zoom = Math.max(1, Math.min(20, view.zoom * by));
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const cx = (x - width / 2) / (width / 2 - SIZE);
    const cy = (height / 2 - y) / (height / 2 - SIZE);
    view.x = zoom === 1 ? 0 : cx - ((cx - view.x) * zoom) / view.zoom;
    view.y = zoom === 1 ? 0 : cy - ((cy - view.y) * zoom) / view.zoom;
    view.zoom = zoom;
    this.tip.hidden = true;
    this.#later();
  }

  #reset() {
    this.#view = { x: 0, y: 0, zoom: 1 };
    this.#later();
  }

  #key(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (way && this.#points.length) {
      const next = this.#towards(way) ?? this.#at ?? 0;
      this.#point(next);
      say(S.mapPoint(className(this.#points[next].class)));
    } else if (event.key === 'Enter' && this.#at !== null) {
      attempt(() => showPicture(this.#points[this.#at].id));
    } else if (event.key === '+' || event.key === '-') {
      this.#zoom(event.key === '+' ? 1.4 : 1 / 1.4, this.canvas.clientWidth / 2, this.canvas.clientHeight / 2);
    } else {
      return;
    }
    event.preventDefault();
  }

  /** The next point in a direction. */
  #towards([wx, wy]) {
    const [x, y] = this.#place(this.#points[this.#at ?? 0]);
    let found = null;
    let best = Infinity;
    this.#points.forEach((point, i) => {
      const [px, py] = this.#place(point);
      const along = (px - x) * wx + (py - y) * wy;
      const across = Math.abs((px - x) * wy) + Math.abs((py - y) * wx);
      const cost = along + 2 * across;
      if (i !== this.#at && along > 0.5 && across <= 2 * along && cost < best) [found, best] = [i, cost];
    });
    return found;
  }
}
