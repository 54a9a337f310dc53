// Asking what a picture is, and saying what it is.

import { S } from './strings.js';
import { $, attempt, button, choose, h, needsGpu, percent, say, setText } from './dom.js';
import { call } from './link.js';
import { className, hue, state, update, watch } from './state.js';
import { acceptDrops } from './add.js';
import { Camera } from './camera.js';
import { neighbourList } from './picture.js';
import { show } from './thumbs.js';
import { chooseClass } from './dialog.js';

/** Milliseconds between questions to the live camera. */
const EVERY = 250;
const BARS = 8;
const camera = new Camera();
const bars = new Map();
let ui;
let live = false;
let asked = null;
let said = '';
/** The call under way: there is never more than one. */
let under = null;

/** Asks about a file; its answer is drawn. */
export async function ask(file, quiet = false) {
  while (under) await under.catch(() => {});
  const mine = call('ask', { file });
  under = mine;
  try {
    const answer = await mine;
    asked = answer;
    if (!quiet || !live) {
      ui.picture.alt = S.askedPicture;
      show(ui.picture, file);
      ui.picture.hidden = false;
      ui.drop.classList.add('small');
    }
    draw(answer, quiet);
    return answer;
  } finally {
    if (under === mine) under = null;
  }
}

function draw(answer, quiet) {
  ui.answer.hidden = false;
  const title = !answer.ready ? S.notReady : answer.none ? S.none : className(answer.class);
  setText(ui.title, title);
  ui.title.classList.toggle('none', answer.ready && answer.none);
  const near = answer.nearest === null ? '' : answer.none ? S.noneNear(className(answer.nearest), percent(answer.similarity)) : S.near(percent(answer.similarity));
  setText(ui.near, [answer.ready ? near : '', answer.why ?? ''].filter(Boolean).join(' '));
  drawBars(answer);
  if (!quiet || title !== said) {
    if (answer.ready) say(answer.none ? `${title}. ${near}` : S.saidAnswer(title, percent(answer.probabilities[0]?.probability ?? 0)));
    drawNear(answer);
  }
  said = title;
  drawCorrections();
}

/** Bars are kept from one answer to the next, so that a live one moves calmly. */
function drawBars({ probabilities, none }) {
  const shown = probabilities.slice(0, BARS);
  for (const [id, row] of bars) {
    if (shown.some((one) => one.class === id)) continue;
    row.remove();
    bars.delete(id);
  }
  shown.forEach(({ class: id, probability }, at) => {
    let row = bars.get(id);
    if (!row) {
      row = h('li', {}, h('span', { class: 'of' }), h('span', { class: 'bar', 'aria-hidden': 'true' }), h('span', { class: 'number' }));
      bars.set(id, row);
    }
    setText(row.children[0], className(id));
    setText(row.children[2], percent(probability));
    row.style.setProperty('--p', probability.toFixed(3));
    row.style.setProperty('--hue', hue(id));
    if (ui.bars.children[at] !== row) ui.bars.insertBefore(row, ui.bars.children[at] ?? null);
  });
  ui.bars.classList.toggle('faint', none);
}

function drawNear({ neighbours }) {
  ui.nearest.replaceChildren(neighbours.length ? h('h3', { text: S.mostLike }) : '', neighbours.length ? neighbourList(neighbours.slice(0, 8)) : '');
}

function drawCorrections() {
  const { classes } = state.project;
  const key = JSON.stringify(classes.map(({ id, name }) => [id, name]));
  ui.correct.hidden = !asked;
  if (ui.correct.dataset.key === key) return;
  ui.correct.dataset.key = key;
  ui.choices.replaceChildren(...classes.slice(0, 30).map(({ id, name }) => button(name, () => correct(id))),
    button(S.otherClass, async () => {
      const which = await chooseClass(S.thisIs, S.thisIsText);
      if (which !== null) await correct(which);
    }, { class: 'plain' }));
}

async function correct(which) {
  // The picture is that of the last answer.
  while (under) await under.catch(() => {});
  await call('correct', { class: which, number: asked?.number });
  asked = null;
  ui.correct.hidden = true;
  const name = typeof which === 'number' ? className(which) : which;
  setText(ui.near, S.learned(name));
  say(S.learned(name));
}

async function watchCamera() {
  while (live) {
    const began = performance.now();
    try {
      const file = document.hidden || !ui.camera.offsetParent ? null : await camera.take();
      if (file && live) await ask(file, true);
    } catch (error) {
      stopCamera();
      attempt(Promise.reject(error));
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, Math.max(30, EVERY - (performance.now() - began))));
  }
}

async function startCamera() {
  await camera.open();
  live = true;
  ui.camera.hidden = false;
  ui.picture.hidden = true;
  ui.drop.hidden = true;
  setText(ui.live, S.stopCamera);
  watchCamera();
}

function stopCamera() {
  live = false;
  camera.close();
  ui.camera.hidden = true;
  ui.drop.hidden = false;
  setText(ui.live, S.liveCamera);
}

export function setUpAsk() {
  ui = {
    picture: h('img', { class: 'asked', hidden: true, alt: '' }),
    answer: h('div', { class: 'answer', hidden: true }),
    title: h('p', { class: 'verdict' }),
    near: h('p', { class: 'hint' }),
    bars: h('ul', { class: 'bars', 'aria-label': S.probabilities }),
    nearest: h('div', {}),
    correct: h('div', { class: 'correct', hidden: true }),
    choices: h('div', { class: 'row' }),
    drop: h('p', { class: 'drop', text: S.dropToAsk }),
    live: button(S.liveCamera, () => (live ? stopCamera() : startCamera())),
  };
  const file = async () => {
    const [one] = await choose({ accept: 'image/*' });
    if (one) {
      if (live) stopCamera();
      await ask(one);
    }
  };
  ui.camera = h('div', { class: 'row', hidden: true }, camera.video, button(S.turnCamera, () => camera.turn()));
  ui.answer.append(ui.title, ui.near, ui.bars);
  ui.correct.append(h('h3', { text: S.thisIs }), ui.choices);
  const value = h('output', { class: 'number', for: 'unknown' });
  const slider = h('input', { type: 'range', id: 'unknown', min: 0, max: 50, step: 1, 'aria-describedby': 'unknown-hint' });
  const tell = () => setText(value, S.unknownValue(Number(slider.value)));
  slider.addEventListener('input', tell);
  slider.addEventListener('change', () => attempt(async () => {
    const rate = Number(slider.value) / 100;
    await call('setUnknown', { rate });
    update({ unknown: rate });
  }));
  const section = $('ask');
  section.append(h('h2', { text: S.ask }), h('p', { class: 'hint', text: S.askHint }),
    h('div', { class: 'row tools' }, button(S.choosePicture, file, { class: 'primary' }), ui.live),
    ui.camera, ui.drop, ui.picture, ui.answer, ui.correct, ui.nearest,
    h('div', { class: 'slider' }, h('label', { for: 'unknown', text: S.unknown }), slider, value, h('p', { class: 'hint', id: 'unknown-hint', text: S.unknownHint })));
  acceptDrops(section, null, async (files) => {
    if (live) stopCamera();
    if (files.length) await ask(files[0].file);
  });
  watch(['unknown'], () => {
    slider.value = Math.round(100 * state.unknown);
    tell();
  });
  watch(['project'], drawCorrections);
  watch(['gpu', 'ready'], () => {
    needsGpu(section, state.ready && !state.gpu);
    if (!state.gpu && live) stopCamera();
  });
}
