// One picture and those most like it.

import { S } from './strings.js';
import { attempt, h, percent } from './dom.js';
import { call } from './link.js';
import { className, state } from './state.js';
import { openDialog } from './dialog.js';
import { thumb } from './thumbs.js';

/** A row of pictures with their class and how like they are; each opens its own neighbours. */
export function neighbourList(neighbours, open = showPicture) {
  return h('ul', { class: 'near' }, neighbours.map(({ id, class: own, similarity }) => h('li', {},
    h('button', { type: 'button', class: 'plain', onclick: () => attempt(() => open(id)) },
      thumb(id), h('span', { text: className(own) }), ' ', h('small', { text: percent(similarity) }), ' ', h('span', { class: 'sr', text: S.likeThis })))));
}

const classOf = (id) => state.project.classes.find(({ pictures }) => pictures.includes(id))?.id ?? null;

/** A dialog with a picture and its neighbours. */
export async function showPicture(id) {
  const body = h('div', {});
  const dialog = openDialog(S.neighbours, body, { wide: true });
  const fill = async (shown) => {
    body.replaceChildren(h('figure', { class: 'one' }, thumb(shown), h('figcaption', { text: className(classOf(shown)) })),
      h('p', { class: 'hint', text: state.gpu ? S.looking : S.needsGpu }));
    if (!state.gpu) return;
    const { neighbours } = await call('neighbours', { id: shown });
    body.lastChild.replaceWith(neighbours.length ? neighbourList(neighbours, fill) : h('p', { class: 'hint', text: S.noNeighbours }));
    dialog.querySelector('.head button').focus();
  };
  await fill(id);
}
