// Small helpers: elements, messages, formats.

import { S } from './strings.js';

export const $ = (id) => document.getElementById(id);

/** An element: `props` are attributes, `on...` listeners, `text`, or `class`. */
export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (key === 'text') node.textContent = value;
    else node.setAttribute(key, value === true ? '' : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** A button that does `work`, once at a time, and shows what goes wrong. */
export function button(text, work, props = {}) {
  const node = h('button', { type: 'button', text, ...props });
  node.addEventListener('click', (event) => {
    if (node.ariaDisabled === 'true') return;
    attempt(() => work(event), node);
  });
  return node;
}

/** Sets text only where it changes: no layout for nothing. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function enable(node, on) {
  if (node.getAttribute('aria-busy') === 'true') node.dataset.enabled = on ? 'yes' : 'no';
  else node.ariaDisabled = on ? null : 'true';
}

/** Does `work`; an error becomes a message. The button is busy meanwhile, but keeps the focus. */
export async function attempt(work, busy = null) {
  const found = work instanceof Function ? start(work) : work;
  if (busy) {
    busy.ariaDisabled = 'true';
    busy.setAttribute('aria-busy', 'true');
  }
  try {
    return await found;
  } catch (error) {
    toast(error?.message ?? String(error), true);
    return undefined;
  } finally {
    if (busy) {
      busy.removeAttribute('aria-busy');
      busy.ariaDisabled = busy.dataset.enabled === 'no' ? 'true' : null;
      delete busy.dataset.enabled;
    }
  }
}

const start = async (work) => work();

/** Shows a message above everything for a while; errors for longer. */
export function toast(message, bad = false) {
  const box = $('toasts');
  if ([...box.children].some((one) => one.firstChild.textContent === message)) return;
  const one = h('div', { class: bad ? 'toast bad' : 'toast' }, h('span', { text: message }));
  const close = () => {
    one.remove();
    if (!box.children.length) box.hidePopover?.();
  };
  one.append(h('button', { type: 'button', class: 'plain', 'aria-label': S.close, text: '×', onclick: close }));
  box.append(one);
  while (box.children.length > 4) box.firstChild.remove();
  // Shown anew, it lies above a dialog that was opened meanwhile.
  box.hidePopover?.();
  box.showPopover?.();
  setTimeout(close, bad ? 15_000 : 5_000);
}

/** A part of the page that does nothing without WebGPU. */
export function needsGpu(section, without) {
  const { classList } = section;
  if (classList.contains('off') === without) return;
  classList.toggle('off', without);
  if (without) section.firstElementChild.after(h('p', { class: 'needs', text: S.needsGpu }));
  else section.querySelector('.needs').remove();
  for (const child of section.children) child.inert = without && !child.matches('h2, .needs');
}

/** For screen readers alone. */
export function say(text) {
  $('said').textContent = text;
}

export function download(file, name) {
  const url = URL.createObjectURL(file);
  const link = h('a', { href: url, download: name, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Lets one choose files. */
export function choose({ accept = null, multiple = false, folder = false } = {}) {
  return new Promise((resolve) => {
    const input = h('input', { type: 'file', accept, multiple, webkitdirectory: folder, hidden: true });
    const done = (files) => {
      input.remove();
      resolve(files);
    };
    input.addEventListener('change', () => done([...input.files]));
    input.addEventListener('cancel', () => done([]));
    document.body.append(input);
    input.click();
  });
}

const number = (digits) => new Intl.NumberFormat(S.locale, { maximumFractionDigits: digits });
const [whole, one, three] = [number(0), number(1), number(3)];
export const count = (n) => whole.format(n);
export const percent = (x) => `${(x < 0.1 || x > 0.99) && x > 0 && x < 1 ? one.format(100 * x) : whole.format(100 * x)} %`;
const small = new Intl.NumberFormat(S.locale, { maximumSignificantDigits: 2 });
export const decimal = (x) => (x === null || x === undefined ? '–' : (Math.abs(x) < 0.01 ? small : three).format(x));

export function bytes(n) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let at = 0;
  for (; n >= 1000 && at < units.length - 1; at += 1) n /= 1000;
  return `${at && n < 100 ? one.format(n) : whole.format(n)} ${units[at]}`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  if (seconds < 90) return S.seconds(Math.max(1, Math.round(seconds)));
  if (seconds < 5400) return S.minutes(Math.round(seconds / 60));
  return S.hours(one.format(seconds / 3600));
}

/** Lets the browser draw and listen. */
export const pause = () => new Promise((resolve) => setTimeout(resolve));

/** Work of many small parts: a few milliseconds of it in each task. */
const later = [];
let going = false;
export function inChunks(part) {
  later.push(part);
  if (going) return;
  going = true;
  const next = () => {
    const end = performance.now() + 8;
    while (later.length && performance.now() < end) later.shift()();
    if (later.length) setTimeout(next);
    else going = false;
  };
  setTimeout(next);
}

/** A bar of progress with a button to cancel: `show(null)` hides it. */
export function progressBar(box, what, cancel) {
  const bar = h('progress', { max: 1, value: 0 });
  const label = h('label', {}, h('span', { text: what }), bar);
  const text = h('span', { class: 'number' });
  box.replaceChildren(label, text, cancel ? button(S.cancel, cancel) : '');
  return (done, total) => {
    const on = done !== null;
    if (box.hidden === on) box.hidden = !on;
    if (!on) return;
    bar.value = total ? done / total : 0;
    setText(text, S.of(count(done), count(total)));
  };
}
