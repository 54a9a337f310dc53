// Thumbnails: asked of the worker when they come into view, a few at a time.

import { call } from './link.js';

const AT_ONCE = 6;
const KEPT = 1200;
/** Files of thumbnails by picture, the least recently used first. */
const kept = new Map();
let waiting = [];
let under = 0;

/** @returns {Promise<Blob>} the thumbnail of a picture. */
export async function thumbnail(id) {
  const found = kept.get(id);
  if (found) {
    kept.delete(id);
    kept.set(id, found);
    return found;
  }
  const blob = await call('thumbnail', { id });
  kept.set(id, blob);
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  return blob;
}

function next() {
  while (under < AT_ONCE && waiting.length) {
    const image = waiting.shift();
    if (!image.isConnected || image.dataset.shown) continue;
    image.dataset.shown = 'yes';
    under += 1;
    thumbnail(Number(image.dataset.id)).then((blob) => show(image, blob), () => image.classList.add('missing')).finally(() => {
      under -= 1;
      next();
    });
  }
}

/** The address of a picture is given back as soon as it is drawn. */
export function show(image, blob) {
  const url = URL.createObjectURL(blob);
  const done = () => URL.revokeObjectURL(url);
  image.addEventListener('load', done, { once: true });
  image.addEventListener('error', done, { once: true });
  image.src = url;
}

const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) {
      waiting = waiting.filter((image) => image !== target);
    } else if (!target.dataset.shown) {
      waiting.push(target);
    }
  }
  next();
}, { rootMargin: '150px' });

/** An image that shows a picture once it is in view. */
export function thumb(id, alt = '') {
  const image = document.createElement('img');
  image.className = 'thumb';
  image.alt = alt;
  image.decoding = 'async';
  image.draggable = false;
  image.dataset.id = id;
  seen.observe(image);
  return image;
}

/** To be called for images that leave the page. */
export function forget(image) {
  seen.unobserve(image);
}
