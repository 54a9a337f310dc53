// Training: what a run would do, its curves, and the networks to use.

import { S } from './strings.js';
import { $, attempt, button, bytes, count, decimal, duration, enable, h, needsGpu, percent, progressBar, say, setText, toast } from './dom.js';
import { call, on } from './link.js';
import { state, update, watch } from './state.js';
import { confirm } from './dialog.js';
import { Chart } from './chart.js';

let ui;
let suggested = null;
let asking = false;

/** The settings that a run would have: asked for when this part is looked at, one question at a time. */
export async function suggest() {
  const wanted = () => {
    const from = ui.from();
    return { from, key: `${from} ${state.network} ${state.project.classes.map(({ id, pictures }) => `${id}:${pictures.length}`)}` };
  };
  if (asking || !state.gpu || state.run?.state === 'training' || suggested?.key === wanted().key) return;
  asking = true;
  enable(ui.start, false);
  setText(ui.plan, S.lookingAtPictures);
  try {
    // Again where the pictures have changed meanwhile.
    while (suggested?.key !== wanted().key && state.run?.state !== 'training') {
      const { from, key } = wanted();
      suggested = { key, ...(await call('suggestRun', { from })) };
    }
    if (suggested) drawPlan();
  } catch (error) {
    setText(ui.plan, error.message);
    throw error;
  } finally {
    asking = false;
  }
}

function drawPlan() {
  const { refused, steps, rows, classes, images, settings } = suggested;
  setText(ui.plan, refused ?? S.plan(count(images), count(classes), count(steps), count(rows)));
  ui.plan.classList.toggle('bad', Boolean(refused));
  enable(ui.start, !refused);
  ui.steps.placeholder = steps || '';
  ui.why.hidden = !settings.length;
  fillSettings(ui.settings, settings);
}

function fillSettings(list, settings) {
  list.replaceChildren(...settings.flatMap(({ key, value, why }) => [h('dt', {}, h('code', { text: value === '' ? key : `${key} = ${value}` })), h('dd', { text: why })]));
}

async function start() {
  if (state.run && !(await confirm(S.newRun, S.newRunText, S.start))) return;
  const steps = ui.steps.value === '' ? null : Number(ui.steps.value);
  if (steps !== null && !(Number.isInteger(steps) && steps > 0)) throw new Error(S.stepsWrong);
  const seed = Number(ui.seed.value);
  if (!(Number.isInteger(seed) && seed >= 0 && seed < 2 ** 32)) throw new Error(S.seedWrong);
  setText(ui.plan, S.preparing);
  try {
    await call('train', { from: ui.from(), steps, seed });
    say(S.trainingBegan);
  } finally {
    ui.prepared(null);
    suggested = null;
    attempt(suggest);
  }
}

function drawRun() {
  const { run } = state;
  ui.running.hidden = !run;
  const training = run?.state === 'training';
  ui.setup.hidden = training;
  if (!run) return;
  const status = S.runState[run.state] ?? run.state;
  if (ui.state.textContent !== status) {
    ui.state.textContent = status;
    say(status);
  }
  ui.bar.max = run.steps || 1;
  ui.bar.value = run.step;
  const facts = [S.step(count(run.step), count(run.steps)), S.speed(decimal(run.imagesPerSecond && Math.round(10 * run.imagesPerSecond) / 10)), S.left(duration(run.secondsLeft))];
  setText(ui.facts, (training ? facts : facts.slice(0, 1)).join(' · '));
  setText(ui.saved, run.state === 'done' ? S.doneText : run.savedStep ? S.savedAt(count(run.savedStep)) : S.notSaved);
  setText(ui.message, run.message ?? '');
  ui.message.hidden = !run.message;
  ui.pause.hidden = !training;
  ui.resume.hidden = training || run.state === 'done';
  enable(ui.resume, Boolean(state.gpu));
  ui.drop.hidden = training;
  ui.loss.draw(run.points, run.steps);
  ui.accuracy.draw(run.points, run.steps);
  const key = `${run.from} ${run.settings.length} ${run.steps}`;
  if (ui.ran.dataset.key !== key) {
    ui.ran.dataset.key = key;
    fillSettings(ui.ran, run.settings);
  }
}

function drawNetworks() {
  ui.networks.replaceChildren(...state.networks.map(({ name, title, side, width, bytes: size }) => {
    const radio = h('input', { type: 'radio', name: 'network', value: name, checked: name === state.network });
    // Not change: the one in use is chosen again to go on where it was cancelled.
    radio.addEventListener('click', () => attempt(async () => {
      ui.embedding(0, state.project.pictures);
      try {
        await call('useNetwork', { name });
        update({ network: name });
        toast(S.networkUsed(title));
      } finally {
        ui.embedding(null);
        drawNetworks();
      }
    }));
    return h('label', { class: 'choice' }, radio, h('span', {}, h('b', { text: title }), h('small', { text: S.networkFacts(side, width, bytes(size)) })));
  }));
  const current = state.networks.find(({ name }) => name === state.network);
  ui.current.hidden = state.network === 'shipped' || !current;
  if (ui.current.hidden && ui.current.querySelector('input').checked) ui.choices.querySelector('input').checked = true;
}

export function setUpTrain() {
  const options = ['shipped', 'scratch', 'current'].map((from, at) => {
    const radio = h('input', { type: 'radio', name: 'from', value: from, checked: at === 0, onchange: () => attempt(suggest) });
    return h('label', { class: 'choice' }, radio, h('span', {}, h('b', { text: S.from[from] }), h('small', { text: S.fromText[from] })));
  });
  const choices = h('fieldset', {}, h('legend', { text: S.startFrom }), options);
  ui = {
    choices, current: options[2],
    from: () => choices.querySelector('input:checked').value,
    plan: h('p', { role: 'status' }),
    settings: h('dl', { class: 'settings' }), ran: h('dl', { class: 'settings' }),
    steps: h('input', { type: 'number', min: 1, step: 1, inputmode: 'numeric', id: 'steps' }),
    seed: h('input', { type: 'number', min: 0, step: 1, value: 0, inputmode: 'numeric', id: 'seed' }),
    start: button(S.start, start, { class: 'primary' }),
    pause: button(S.pause, () => call('pause')), resume: button(S.resume, () => call('resume'), { class: 'primary' }),
    drop: button(S.dropRun, async () => {
      if (await confirm(S.dropRun, S.dropRunText, S.dropRun)) await call('dropRun');
    }, { class: 'plain danger' }),
    state: h('h3', {}), facts: h('p', { class: 'number' }), saved: h('p', { class: 'hint' }), message: h('p', { class: 'bad', hidden: true }),
    bar: h('progress', { 'aria-label': S.progress }),
    networks: h('div', {}),
    loss: new Chart(S.loss, [{ key: 'loss', name: S.training }], { format: decimal }),
    accuracy: new Chart(S.accuracy, [{ key: 'accuracy', name: S.training }, { key: 'validation', name: S.validation }], { format: percent, top: 1 }),
  };
  ui.why = h('details', { hidden: true }, h('summary', { text: S.whySettings }), ui.settings);
  const preparing = h('div', { class: 'work', hidden: true });
  const embedding = h('div', { class: 'work', hidden: true });
  ui.prepared = progressBar(preparing, S.preparing, null);
  ui.embedding = progressBar(embedding, S.embedding, () => call('cancel', { what: 'embedding' }));
  on('progress', ({ what, done, total }) => {
    if (what === 'preparing') ui.prepared(done < total ? done : null, total);
    if (what === 'embedding') ui.embedding(done < total ? done : null, total);
  });
  ui.setup = h('div', { class: 'panel' }, choices, h('div', { class: 'row fields' }, h('label', { for: 'steps' }, S.steps), ui.steps, h('label', { for: 'seed' }, S.seed), ui.seed, ui.start),
    ui.plan, preparing, ui.why);
  ui.running = h('div', { class: 'panel', hidden: true }, ui.state, ui.bar, ui.facts, ui.message,
    h('div', { class: 'row tools' }, ui.pause, ui.resume, ui.drop), ui.saved, h('div', { class: 'charts' }, ui.loss.root, ui.accuracy.root),
    h('details', {}, h('summary', { text: S.ranSettings }), ui.ran));
  $('train').append(h('h2', { text: S.train }), h('p', { class: 'hint', text: S.trainHint }), ui.running, ui.setup,
    h('div', { class: 'panel' }, h('fieldset', {}, h('legend', { text: S.networkInUse }), ui.networks), embedding));
  watch(['run', 'gpu'], drawRun);
  watch(['network', 'networks'], drawNetworks);
  watch(['gpu', 'ready'], () => needsGpu($('train'), state.ready && !state.gpu));
  watch(['project', 'run', 'network'], () => {
    if (document.body.dataset.view === 'train' && state.run?.state !== 'training') attempt(suggest);
  });
}
