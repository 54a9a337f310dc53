// The device: what it is, whether its kernels are right, and how fast they are.

import { S } from './strings.js';
import { $, button, bytes, count, decimal, download, enable, h, progressBar } from './dom.js';
import { call, on } from './link.js';
import { state, watch } from './state.js';

let ui;

function table(head, rows, caption) {
  return h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': caption }, h('table', { class: 'plain' },
    h('thead', {}, h('tr', {}, head.map((text) => h('th', { scope: 'col', text })))),
    h('tbody', {}, rows.map((cells) => h('tr', {}, cells.map((text, i) => (i ? h('td', { text }) : h('th', { scope: 'row', text }))))))));
}

function drawFacts() {
  const { gpu } = state;
  enable(ui.check, Boolean(gpu));
  enable(ui.bench, Boolean(gpu));
  if (!gpu) {
    ui.facts.replaceChildren(h('p', { text: state.ready ? S.noGpu(state.why) : '' }));
    return;
  }
  const known = [[S.adapterName, gpu.name], [S.vendor, gpu.vendor], [S.architecture, gpu.architecture], [S.description, gpu.description],
    [S.backend, gpu.backend], [S.kind, gpu.software ? S.software : S.hardware]].filter(([, value]) => value);
  const large = (name, value) => (/size$/i.test(name) && value >= 1e6 ? bytes(value) : count(value));
  ui.facts.replaceChildren(table([S.what, S.value], known, S.adapterName),
    h('details', {}, h('summary', { text: S.limits }), table([S.limit, S.value], Object.entries(gpu.limits).map(([name, value]) => [name, large(name, value)]), S.limits)),
    h('details', {}, h('summary', { text: S.features(gpu.features.length) }), h('p', {}, h('code', { text: gpu.features.join(', ') || '–' }))));
}

async function check() {
  ui.checked.replaceChildren();
  try {
    const { cases, passed, failed, seconds } = await call('check');
    const all = passed + failed.length;
    const right = () => (all < cases ? S.checkStopped(count(all), count(cases)) : S.checkPassed(count(passed), decimal(Math.round(10 * seconds) / 10)));
    const text = failed.length ? S.checkFailed(count(failed.length), count(all)) : right();
    ui.checked.append(h('p', { class: failed.length ? 'bad' : all < cases ? 'hint' : 'good', text }));
    const number = (x) => (typeof x === 'number' ? x.toExponential(2) : x ?? '–');
    if (failed.length) ui.checked.append(table([S.kernel, S.error, S.tolerance, S.worst], failed.map(({ name, error, tolerance, worst }) => [name, number(error), number(tolerance), number(worst)]), S.check));
  } finally {
    ui.checking(null);
  }
}

async function bench() {
  ui.measured.replaceChildren();
  try {
    const found = await call('bench');
    const json = new Blob([JSON.stringify(found, null, 2)], { type: 'application/json' });
    const ms = (spread) => (spread ? decimal(1e3 * spread.median) : '–');
    const rate = (amount, spread) => (spread && amount ? decimal(Math.round(amount / spread.median / 1e7) / 100) : '–');
    const kernels = [...(found.kernels ?? [])].sort((a, b) => (b.seconds?.median ?? 0) - (a.seconds?.median ?? 0));
    for (const step of found.steps ?? []) {
      ui.measured.append(h('p', {}, h('b', { text: S.stepTime(step.preset, decimal(step.images_per_second?.median && Math.round(step.images_per_second.median)), ms(step.seconds)) })));
    }
    ui.measured.append(button(S.downloadJson, () => download(json, S.benchFile), { class: 'primary' }),
      table([S.kernel, S.shape, S.milliseconds, S.gflops, S.gbytes], kernels.map(({ name, shape, seconds, flops, bytes: moved }) => [name, shape, ms(seconds), rate(flops, seconds), rate(moved, seconds)]), S.bench));
  } finally {
    ui.benching(null);
  }
}

export function setUpDevice() {
  const checking = h('div', { class: 'work', hidden: true });
  const benching = h('div', { class: 'work', hidden: true });
  ui = {
    facts: h('div', {}), checked: h('div', { role: 'status' }), measured: h('div', {}),
    check: button(S.check, check), bench: button(S.bench, bench),
    checking: progressBar(checking, S.checking, () => call('cancel', { what: 'check' })),
    benching: progressBar(benching, S.benching, () => call('cancel', { what: 'bench' })),
  };
  on('progress', ({ what, done, total }) => {
    if (what === 'check') ui.checking(done < total ? done : null, total);
    if (what === 'bench') ui.benching(done < total ? done : null, total);
  });
  $('device').append(h('h2', { text: S.device }), h('div', { class: 'panel' }, ui.facts),
    h('div', { class: 'panel' }, h('h3', { text: S.check }), h('p', { class: 'hint', text: S.checkHint }), ui.check, checking, ui.checked),
    h('div', { class: 'panel' }, h('h3', { text: S.bench }), h('p', { class: 'hint', text: S.benchHint }), ui.bench, benching, ui.measured));
  watch(['gpu', 'ready'], drawFacts);
}
