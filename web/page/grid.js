// A grid of thumbnails that can be selected, by pointer and by keyboard: one stop of Tab, arrows within.

import { S } from './strings.js';
import { attempt, button, count, h } from './dom.js';
import { forget, thumb } from './thumbs.js';
import { showPicture } from './picture.js';

/** Pictures that are drawn before all are asked for, and in one page of all. */
const FEW = 18;
const PAGE = 60;

export class Grid {
  #ids = [];
  #selected = new Set();
  #nodes = new Map();
  #page = null;
  #at = null;
  #last = null;

  /** `selected(ids)` is told of the selection; `remove(ids)` deletes pictures. */
  constructor({ selected, remove }) {
    this.tell = selected;
    this.remove = remove;
    this.list = h('div', { class: 'grid', role: 'listbox', 'aria-multiselectable': 'true' });
    this.pages = h('div', { class: 'row pages', hidden: true });
    this.root = h('div', { class: 'pictures' }, this.list, this.pages);
    this.list.addEventListener('click', (event) => this.#click(event));
    this.list.addEventListener('dblclick', (event) => this.#open(this.#idOf(event.target)));
    this.list.addEventListener('keydown', (event) => this.#key(event));
  }

  #idOf(node) {
    const id = node.closest?.('[role=option]')?.dataset.id;
    return id === undefined ? null : Number(id);
  }

  /** Shows pictures, the newest first. */
  show(ids, name) {
    const changed = this.#ids.length !== ids.length || this.#ids.some((id, i) => id !== ids[i]);
    this.list.setAttribute('aria-label', S.picturesOf(name));
    if (!changed) return;
    this.#ids = ids;
    if (this.#selected.size) {
      const there = new Set(ids);
      const left = [...this.#selected].filter((id) => there.has(id));
      if (left.length !== this.#selected.size) this.#select(left);
    }
    this.#draw();
  }

  /** The pictures of the page that is shown. */
  #visible() {
    const newest = (from, to) => this.#ids.slice(Math.max(0, this.#ids.length - to), Math.max(0, this.#ids.length - from)).reverse();
    if (this.#page === null) return newest(0, FEW);
    this.#page = Math.max(0, Math.min(this.#page, Math.ceil(this.#ids.length / PAGE) - 1));
    return newest(this.#page * PAGE, (this.#page + 1) * PAGE);
  }

  #draw() {
    const visible = this.#visible();
    const there = new Set(visible);
    const focused = this.list.contains(document.activeElement);
    const before = [...this.#nodes.keys()];
    const old = before.indexOf(this.#at);
    for (const [id, node] of this.#nodes) {
      if (there.has(id)) continue;
      forget(node.firstChild);
      node.remove();
      this.#nodes.delete(id);
    }
    const nodes = visible.map((id) => this.#nodes.get(id) ?? this.#make(id));
    this.#nodes = new Map(visible.map((id, i) => [id, nodes[i]]));
    nodes.forEach((node, i) => {
      if (this.list.children[i] !== node) this.list.insertBefore(node, this.list.children[i] ?? null);
    });
    // The focus goes to the neighbour of a picture that is gone.
    if (!there.has(this.#at)) this.#at = visible[Math.min(Math.max(0, old), visible.length - 1)] ?? null;
    this.#rove(focused);
    this.#drawPages();
  }

  #make(id) {
    const node = h('div', { role: 'option', tabindex: -1, 'aria-selected': String(this.#selected.has(id)), 'aria-label': S.picture(id) }, thumb(id));
    node.dataset.id = id;
    return node;
  }

  #rove(focus) {
    for (const [id, node] of this.#nodes) {
      const stop = id === this.#at ? 0 : -1;
      if (node.tabIndex !== stop) node.tabIndex = stop;
    }
    if (focus) this.#nodes.get(this.#at)?.focus();
  }

  #drawPages() {
    const total = this.#ids.length;
    this.pages.hidden = total <= FEW;
    if (total <= FEW) {
      this.#page = null;
      return;
    }
    const key = `${this.#page} ${total}`;
    if (this.pages.dataset.key === key) return;
    this.pages.dataset.key = key;
    const go = (page) => () => {
      this.#page = page;
      this.#draw();
      this.pages.querySelector('button')?.focus();
    };
    if (this.#page === null) {
      this.pages.replaceChildren(button(S.showAll(count(total)), go(0)));
      return;
    }
    const last = Math.ceil(total / PAGE) - 1;
    const from = this.#page * PAGE;
    this.pages.replaceChildren(
      this.#page > 0 ? button(S.newer, go(this.#page - 1)) : '',
      h('span', { class: 'number', text: S.range(count(from + 1), count(Math.min(total, from + PAGE)), count(total)) }),
      this.#page < last ? button(S.older, go(this.#page + 1)) : '',
      button(S.showFew, go(null)));
  }

  #select(ids) {
    this.#selected = new Set(ids);
    for (const [id, node] of this.#nodes) node.ariaSelected = String(this.#selected.has(id));
    this.tell([...this.#selected]);
  }

  clear() {
    this.#select([]);
    this.#rove(true);
  }

  #toggle(id) {
    const own = new Set(this.#selected);
    if (!own.delete(id)) own.add(id);
    this.#select(own);
    this.#last = id;
  }

  #click(event) {
    const id = this.#idOf(event.target);
    if (id === null) return;
    this.#at = id;
    if (event.shiftKey && this.#last !== null) this.#extend(id);
    else this.#toggle(id);
    this.#rove(true);
  }

  #extend(to) {
    const shown = [...this.#nodes.keys()];
    const [from, end] = [shown.indexOf(this.#last), shown.indexOf(to)].sort((a, b) => a - b);
    this.#select([...this.#selected, ...shown.slice(Math.max(0, from), end + 1)]);
  }

  removeSelected() {
    return this.remove([...this.#selected]);
  }

  #open(id) {
    if (id !== null) attempt(() => showPicture(id));
  }

  #key(event) {
    const shown = [...this.#nodes.keys()];
    const at = shown.indexOf(this.#idOf(event.target));
    if (at < 0) return;
    const columns = getComputedStyle(this.list).gridTemplateColumns.split(' ').length;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -at, End: shown.length - 1 - at }[event.key];
    if (by !== undefined) {
      const to = shown[Math.max(0, Math.min(shown.length - 1, at + by))];
      this.#at = to;
      if (event.shiftKey) {
        this.#last ??= shown[at];
        this.#extend(to);
      }
      this.#rove(true);
    } else if (event.key === ' ') {
      this.#toggle(shown[at]);
    } else if (event.key === 'Enter') {
      this.#open(shown[at]);
    } else if (event.key === 'Delete' || event.key === 'Backspace') {
      attempt(() => this.remove(this.#selected.size ? [...this.#selected] : [shown[at]]));
    } else if (event.key === 'a' && (event.ctrlKey || event.metaKey)) {
      this.#select(this.#ids);
    } else if (event.key === 'Escape' && this.#selected.size) {
      this.#select([]);
    } else {
      return;
    }
    event.preventDefault();
  }

  close() {
    for (const node of this.#nodes.values()) forget(node.firstChild);
  }
}
