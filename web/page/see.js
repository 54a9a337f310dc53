// What the network sees: a map of the pictures, and which classes it takes for one another.

import { S } from './strings.js';
import { $, attempt, button, count, h, inChunks, needsGpu, percent, progressBar, say } from './dom.js';
import { call, on } from './link.js';
import { className, hue, state, watch } from './state.js';
import { PictureMap } from './map.js';

/** Classes in the table: those with the most mistakes. */
const SHOWN = 20;
let ui;
let stale = true;

/** Draws all anew where something changed since. */
export async function see(force = false) {
  if (!state.gpu || !(stale || force)) return;
  stale = false;
  ui.note.textContent = S.looking;
  try {
    const { points, explained } = await call('map');
    ui.map.set(points);
    ui.map.root.hidden = points.length < 2;
    ui.legend.replaceChildren(...(points.length < 2 ? [] : state.project.classes.slice(0, 40).map(({ id, name }) => {
      const item = h('li', {}, h('span', { class: 'dot' }), name);
      item.style.setProperty('--hue', hue(id));
      return item;
    })));
    const found = await call('confusions');
    drawTable(found);
    ui.note.textContent = points.length < 2 ? S.mapFew : S.mapNote(count(points.length), percent(explained[0] + explained[1]));
    say(ui.note.textContent);
  } catch (error) {
    stale = true;
    ui.note.textContent = '';
    throw error;
  }
}

function drawTable({ classes, counts, none, right, total }) {
  ui.table.replaceChildren();
  ui.score.textContent = total ? S.score(count(right), count(total), percent(right / total)) : S.scoreFew;
  if (!total) return;
  const sums = counts.map((row, i) => row.reduce((a, b) => a + b, 0) + none[i]);
  let shown = classes.map((_, i) => i);
  if (classes.length > SHOWN) {
    shown = shown.sort((a, b) => sums[b] - counts[b][b] - sums[a] + counts[a][a]).slice(0, SHOWN);
    ui.score.textContent += ` ${S.tableFew(SHOWN)}`;
  }
  const cell = (n, sum, right) => {
    const td = h('td', { class: right ? 'right' : null, text: n || '' });
    td.style.setProperty('--p', (n / (sum || 1)).toFixed(3));
    return td;
  };
  const head = h('tr', {}, h('td', {}), shown.map((i) => h('th', { scope: 'col' }, h('span', { text: className(classes[i]) }))), h('th', { scope: 'col' }, h('span', { text: S.none })));
  const body = h('tbody', {});
  ui.table.append(h('thead', {}, head), body);
  for (const i of shown) {
    inChunks(() => body.append(h('tr', {}, h('th', { scope: 'row', text: className(classes[i]) }), shown.map((j) => cell(counts[i][j], sums[i], i === j)), cell(none[i], sums[i], false))));
  }
}

export function setUpSee() {
  ui = {
    map: new PictureMap(), note: h('p', { class: 'hint', role: 'status' }), legend: h('ul', { class: 'legend' }),
    score: h('p', {}), table: h('table', { class: 'confusions' }),
  };
  ui.map.root.hidden = true;
  const answering = h('div', { class: 'work', hidden: true });
  const answered = progressBar(answering, S.confusing, () => call('cancel', { what: 'confusions' }));
  on('progress', ({ what, done, total }) => what === 'confusions' && answered(done < total ? done : null, total));
  $('see').append(h('h2', { text: S.see }), h('p', { class: 'hint', text: S.seeHint }), h('div', { class: 'row tools' }, button(S.refresh, () => see(true))),
    ui.note, h('div', { class: 'panel' }, h('h3', { text: S.map }), h('p', { class: 'hint', text: S.mapHint }), ui.map.root, ui.legend),
    h('div', { class: 'panel' }, h('h3', { text: S.confusions }), answering, ui.score, h('p', { class: 'hint', text: S.confusionsCaption }), h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': S.confusions }, ui.table)));
  watch(['project', 'network', 'unknown'], () => {
    stale = true;
  });
  watch(['gpu', 'ready'], () => {
    needsGpu($('see'), state.ready && !state.gpu);
    if (document.body.dataset.view === 'see') attempt(see);
  });
}
