// The page: its parts, what is shown of them, and what the worker says of itself.

import { S } from './strings.js';
import { $, attempt, button, h, pause, percent, say, setText, toast } from './dom.js';
import { call, leave, on } from './link.js';
import { state, update, watch } from './state.js';
import { addFiles, setUpAdding } from './add.js';
import { focusedClass, setUpClasses } from './classes.js';
import { ask, setUpAsk } from './ask.js';
import { setUpTrain, suggest } from './train.js';
import { see, setUpSee } from './see.js';
import { setUpDevice } from './device.js';
import { refreshStorage, setUpProject } from './project.js';
import { keepOffline } from './offline.js';

const VIEWS = ['classes', 'ask', 'train', 'see', 'device', 'project'];
/** What a part does when it comes into view. */
const SHOWN = { train: suggest, see, project: refreshStorage };
const wide = matchMedia('(min-width: 1000px)');
let lost = null;
let broken = null;

function show(view, focus = false) {
  if (!VIEWS.includes(view)) view = 'classes';
  // Beside the classes there is room for the question.
  if (wide.matches && view === 'ask') view = 'classes';
  document.body.dataset.view = view;
  for (const name of VIEWS) {
    const tab = $(`tab-${name}`);
    tab.setAttribute('aria-selected', String(name === view));
    tab.tabIndex = name === view ? 0 : -1;
    if (name === view && focus) tab.focus();
  }
  if (location.hash !== `#${view}`) history.replaceState(null, '', `#${view}`);
  if (state.ready && SHOWN[view]) attempt(() => SHOWN[view]());
}

function setUpTabs() {
  const tabs = $('tabs');
  for (const name of VIEWS) {
    tabs.append(h('button', { type: 'button', role: 'tab', id: `tab-${name}`, 'aria-controls': name, text: S[name], onclick: () => show(name) }));
  }
  tabs.addEventListener('keydown', (event) => {
    const there = VIEWS.filter((name) => $(`tab-${name}`).offsetParent);
    const at = there.indexOf(document.body.dataset.view);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: there.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(there[(to + there.length) % there.length], true);
  });
  // The way to the content is no part of the page.
  addEventListener('hashchange', () => show(VIEWS.includes(location.hash.slice(1)) ? location.hash.slice(1) : document.body.dataset.view));
  wide.addEventListener('change', () => show(document.body.dataset.view));
  show(location.hash.slice(1));
}

/** What has changed is written when the page goes out of sight: it may be closed. */
function setUpSaving() {
  document.addEventListener('visibilitychange', () => {
    if (document.hidden && state.ready) call('save').catch(() => {});
  });
  addEventListener('pagehide', ({ persisted }) => persisted && leave());
  addEventListener('pageshow', ({ persisted }) => persisted && location.reload());
}

/** Pictures from the clipboard go to the class with the focus, or are asked about. */
function setUpPaste() {
  document.addEventListener('paste', (event) => {
    const files = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith('image/'));
    if (!files.length) return;
    event.preventDefault();
    const to = focusedClass();
    attempt(async () => {
      if (to !== null || !state.gpu) return addFiles(files.map((file) => ({ file, name: file.name })), to);
      if (!wide.matches) show('ask');
      return ask(files[0]);
    });
  });
}

const sentence = (text) => (text ? text[0].toUpperCase() + text.slice(1) : '');

function drawBanner() {
  const box = $('banner');
  if (broken) {
    box.replaceChildren(h('p', {}, h('b', { text: S.workerBroken }), ` ${broken}`), button(S.reload, () => location.reload(), { class: 'primary' }));
  } else if (lost) {
    box.replaceChildren(h('p', {}, h('b', { text: S.lost }), ` ${lost}`), button(S.reopen, async () => opened(await call('reopen')), { class: 'primary' }));
  } else if (state.ready && !state.gpu) {
    box.replaceChildren(h('p', {}, h('b', { text: S.noWebGpu }), ` ${sentence(state.why)} ${S.stillWorks}`),
      h('details', {}, h('summary', { text: S.whichBrowsers }), h('ul', {}, S.browsers.map((text) => h('li', { text })))), button(S.tryAgain, async () => opened(await call('reopen'))));
  }
  box.hidden = !(broken || lost || (state.ready && !state.gpu));
}

function drawBadge() {
  const { gpu } = state;
  const badge = $('adapter');
  badge.textContent = !state.ready ? '' : gpu ? gpu.name || gpu.description || gpu.architecture || gpu.vendor || S.someAdapter : S.noAdapter;
  badge.title = gpu ? (gpu.software ? S.softwareHint : S.hardware) : '';
  badge.className = `badge ${!state.ready ? '' : gpu ? (gpu.software ? 'slow' : 'fine') : 'none'}`;
}

/** Takes over what `open` and `reopen` answer. */
function opened(answer) {
  lost = null;
  update({ ready: true, ...answer });
}

async function open(opening) {
  const box = $('opening');
  try {
    opened(await opening);
    box.hidden = true;
    const view = document.body.dataset.view;
    if (SHOWN[view]) attempt(() => SHOWN[view]());
  } catch (error) {
    box.classList.add('bad');
    box.textContent = S.notOpened(error.message);
  }
}

async function begin() {
  // The worker loads while the page is drawn.
  const opening = call('open');
  opening.catch(() => {});
  on('progress', ({ what, done, total }) => {
    if (what !== 'embedding') return;
    setText($('opening'), S.openingEmbedding(done, total));
    // Training has a bar of its own for that.
    $('opening').hidden = done >= total || (state.ready && document.body.dataset.view === 'train');
  });
  $('opening').textContent = S.opening;
  for (const node of document.querySelectorAll('[data-t]')) node.textContent = S[node.dataset.t];
  for (const node of document.querySelectorAll('[data-label]')) node.setAttribute('aria-label', S[node.dataset.label]);
  for (const node of document.querySelectorAll('[data-placeholder]')) node.placeholder = S[node.dataset.placeholder];
  document.documentElement.lang = S.locale;
  document.title = S.title;
  // Each in a task of its own, so that none is long.
  for (const setUp of [setUpTabs, setUpAdding, setUpClasses, setUpAsk, setUpTrain, setUpSee, setUpDevice, setUpProject, setUpPaste, setUpSaving]) {
    await pause();
    setUp();
  }
  watch(['ready', 'gpu', 'why', 'lost', 'broken'], () => {
    drawBanner();
    drawBadge();
  });
  on('project', ({ project }) => update({ project }));
  on('run', ({ run }) => update({ run }));
  on('step', ({ run }) => update({ run }));
  on('network', ({ network, networks }) => update({ network, networks }));
  on('lost', ({ message }) => {
    lost = message;
    update({ lost });
  });
  on('reopened', ({ state: answer }) => {
    opened(answer);
    $('opening').hidden = true;
    if (answer.gpu) toast(S.reopened);
    say(S.reopened);
  });
  on('trouble', ({ message }) => toast(message, true));
  on('broken', ({ message }) => {
    broken = message;
    update({ broken });
  });
  addEventListener('unhandledrejection', ({ reason }) => toast(reason?.message ?? String(reason), true));
  watch(['run'], ({ run }) => {
    setText($('tab-train'), run?.state === 'training' ? S.trainTab(percent(run.step / run.steps)) : S.train);
  });
  await open(opening);
  keepOffline().catch(() => {});
}

begin();
