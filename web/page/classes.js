// Classes: their cards, names and pictures.

import { S } from './strings.js';
import { $, attempt, button, choose, enable, h, inChunks, say, setText } from './dom.js';
import { call } from './link.js';
import { hue, state, watch } from './state.js';
import { confirm } from './dialog.js';
import { acceptDrops, addFiles, chosen } from './add.js';
import { cameraDialog } from './camera.js';
import { Grid } from './grid.js';

const PICTURES = 'image/*,.zip';
const cards = new Map();
let undoButton;

export async function undo() {
  if (!state.project.undo) return;
  const { what } = await call('undo');
  if (what) say(S.undone(what));
}

class Card {
  constructor({ id, name }) {
    this.id = id;
    this.name = h('input', { class: 'name', value: name, maxlength: 80, 'aria-label': S.className, autocomplete: 'off', spellcheck: 'false' });
    this.count = h('span', { class: 'number' });
    this.grid = new Grid({ selected: (ids) => this.select(ids), remove: (ids) => call('deletePictures', { ids }) });
    this.picked = h('div', { class: 'row picked', hidden: true });
    const label = h('label', { class: 'title' }, h('span', { class: 'dot' }), this.name);
    const tools = h('div', { class: 'row tools' },
      button(S.addPictures, async () => addFiles(chosen(await choose({ accept: PICTURES, multiple: true })), id)),
      button(S.folder, async () => addFiles(chosen(await choose({ folder: true })), id)),
      button(S.camera, () => cameraDialog(id)),
      button(S.delete, () => this.remove(), { class: 'plain danger', 'aria-label': S.deleteClass }));
    this.root = h('article', { class: 'card' }, h('header', {}, label, this.count), this.grid.root, this.picked, tools);
    this.root.dataset.id = id;
    this.name.addEventListener('change', () => this.rename());
    this.name.addEventListener('keydown', (event) => {
      if (event.key === 'Enter') this.name.blur();
      if (event.key === 'Escape') this.name.value = this.shown;
    });
    acceptDrops(this.root, () => id);
  }

  async rename() {
    try {
      await call('renameClass', { id: this.id, name: this.name.value });
    } catch (error) {
      this.name.value = this.shown;
      await attempt(Promise.reject(error));
    }
  }

  async remove() {
    const n = this.length;
    if (n && !(await confirm(S.deleteClassTitle(this.shown), S.deleteClassText(n), S.deleteClass))) return;
    await call('deleteClass', { id: this.id });
    say(S.deleted(this.shown));
    $('new-name').focus();
  }

  /** What can be done with selected pictures. */
  select(ids) {
    this.picked.hidden = !ids.length;
    if (!ids.length) return;
    const others = state.project.classes.filter(({ id }) => id !== this.id);
    const to = h('select', { 'aria-label': S.moveTo },
      h('option', { value: '', text: S.moveTo }), others.map(({ id, name }) => h('option', { value: id, text: name })));
    to.addEventListener('change', () => to.value && attempt(() => call('movePictures', { ids, class: Number(to.value) })));
    this.picked.replaceChildren(h('span', { text: S.selected(ids.length) }), others.length ? to : '',
      button(S.delete, () => this.grid.removeSelected(), { class: 'danger' }), button(S.clear, () => this.grid.clear()));
  }

  draw({ id, name, pictures }) {
    this.length = pictures.length;
    if (this.shown !== name) {
      if (document.activeElement !== this.name) this.name.value = name;
      this.shown = name;
      this.root.setAttribute('aria-label', name);
    }
    setText(this.count, S.pictures(pictures.length));
    this.root.style.setProperty('--hue', hue(id));
    inChunks(() => this.grid.show(pictures, name));
  }
}

function draw({ project }) {
  const box = $('cards');
  const ids = new Set(project.classes.map(({ id }) => id));
  for (const [id, card] of cards) {
    if (ids.has(id)) continue;
    card.grid.close();
    card.root.remove();
    cards.delete(id);
  }
  project.classes.forEach((one, at) => {
    let card = cards.get(one.id);
    if (!card) cards.set(one.id, (card = new Card(one)));
    if (box.children[at] !== card.root) box.insertBefore(card.root, box.children[at] ?? null);
    card.draw(one);
  });
  $('first').hidden = project.classes.length > 0 || !state.ready;
  setText(undoButton, project.undo ? S.undoWhat(project.undo) : S.undo);
  enable(undoButton, Boolean(project.undo));
}

export function setUpClasses() {
  undoButton = button(S.undo, undo, { 'aria-disabled': 'true', 'aria-keyshortcuts': 'Control+Z' });
  $('class-tools').append(
    button(S.openFolder, async () => addFiles(chosen(await choose({ folder: true })))),
    button(S.openFiles, async () => addFiles(chosen(await choose({ accept: PICTURES, multiple: true })))),
    undoButton);
  $('new-class').addEventListener('submit', (event) => {
    event.preventDefault();
    const input = $('new-name');
    attempt(async () => {
      const { id } = await call('addClass', { name: input.value });
      say(S.classMade(input.value));
      input.value = '';
      return id;
    });
  });
  document.addEventListener('keydown', (event) => {
    const typing = event.target.closest?.('input:not([type=range], [type=radio], [type=checkbox]), textarea');
    if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === 'z' && !typing) {
      event.preventDefault();
      attempt(undo);
    }
  });
  $('first').append(...S.first.map((text) => h('li', { text })));
  watch(['project', 'ready'], draw);
}

/** The class of the card that has the focus. */
export function focusedClass() {
  const card = document.activeElement?.closest?.('.card[data-id]');
  return card ? Number(card.dataset.id) : null;
}
