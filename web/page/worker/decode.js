// Pictures to pixels, by the browser's own decoders.

import { Fault } from './fault.js';

/** The largest square that is resized by the engine; the browser makes larger ones smaller first. */
const MOST = 4096;
/** Longer side of a thumbnail. */
const THUMBNAIL = 96;

/** A decoded picture; close it. */
export async function decode(blob, name) {
  try {
    return await createImageBitmap(blob, { colorSpaceConversion: 'none', premultiplyAlpha: 'none' });
  } catch {
    throw new Fault('data', `${name} is no picture that this browser can read`);
  }
}

/** Pixels of the middle square of a bitmap, `{rgba, side}`: what the engine resizes. */
export function middle(bitmap) {
  const short = Math.min(bitmap.width, bitmap.height);
  const [left, top] = [Math.floor((bitmap.width - short) / 2), Math.floor((bitmap.height - short) / 2)];
  const side = Math.min(short, MOST);
  const canvas = new OffscreenCanvas(side, side);
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.imageSmoothingQuality = 'high';
  context.drawImage(bitmap, left, top, short, short, 0, 0, side, side);
  return { rgba: new Uint8Array(context.getImageData(0, 0, side, side).data.buffer), side };
}

/** A small picture for people, as the bytes of a WebP or PNG file. */
export async function thumbnail(bitmap) {
  const scale = Math.min(1, THUMBNAIL / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((x) => Math.max(1, Math.round(x * scale)));
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d');
  context.imageSmoothingQuality = 'high';
  context.drawImage(bitmap, 0, 0, width, height);
  const blob = await canvas.convertToBlob({ type: 'image/webp', quality: 0.8 });
  return new Uint8Array(await blob.arrayBuffer());
}

/** A decoded picture as the bytes of a PNG file. */
export async function png(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext('2d').drawImage(bitmap, 0, 0);
  return new Uint8Array(await (await canvas.convertToBlob({ type: 'image/png' })).arrayBuffer());
}
