// Dialogs: Esc closes them, the focus stays within and goes back afterwards.

import { S } from './strings.js';
import { button, h } from './dom.js';
import { state } from './state.js';

/** Opens a dialog with `content`; `closed` is called when it is gone. Returns the element. */
export function openDialog(title, content, { closed = null, wide = false } = {}) {
  const name = h('h2', { text: title });
  const dialog = h('dialog', { 'aria-label': title, class: wide ? 'wide' : null },
    h('div', { class: 'head' }, name, h('button', { type: 'button', class: 'plain', 'aria-label': S.close, text: '×', onclick: () => dialog.close() })),
    content);
  dialog.addEventListener('close', () => {
    dialog.remove();
    closed?.();
  });
  dialog.addEventListener('click', (event) => {
    if (event.target === dialog) dialog.close();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** Asks yes or no. @returns {Promise<boolean>} */
export function confirm(title, text, yes) {
  return new Promise((resolve) => {
    let answer = false;
    const done = (value) => () => {
      answer = value;
      dialog.close();
    };
    const no = button(S.keep, done(false));
    const dialog = openDialog(title, [h('p', { text }), h('div', { class: 'row end' }, no, button(yes, done(true), { class: 'danger' }))],
      { closed: () => resolve(answer) });
    no.focus();
  });
}

/** Asks for a class: an id, the name of a new one, or null. @returns {Promise<number|string|null>} */
export function chooseClass(title, text) {
  return new Promise((resolve) => {
    let answer = null;
    const { classes } = state.project;
    const select = h('select', { 'aria-label': S.className },
      classes.map(({ id, name }) => h('option', { value: id, text: name })), h('option', { value: 'new', text: S.newClassOption }));
    const name = h('input', { maxlength: 80, 'aria-label': S.newClass, placeholder: S.newClass });
    const show = () => {
      name.hidden = select.value !== 'new';
    };
    select.addEventListener('change', show);
    show();
    const form = h('form', {}, h('p', { text }), h('div', { class: 'row' }, select, name),
      h('div', { class: 'row end' }, button(S.cancel, () => dialog.close()), h('button', { class: 'primary', text: S.add })));
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      const value = select.value === 'new' ? name.value.trim() : classes.find(({ id }) => String(id) === select.value).id;
      if (value === '') {
        name.focus();
        return;
      }
      answer = value;
      dialog.close();
    });
    const dialog = openDialog(title, form, { closed: () => resolve(answer) });
    (name.hidden ? select : name).focus();
  });
}
