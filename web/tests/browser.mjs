// A server of static files and a browser with WebGPU by SwiftShader, for the tests.

import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { chromium, firefox } from 'playwright-core';

const TYPES = {
  '.css': 'text/css', '.html': 'text/html', '.js': 'text/javascript', '.json': 'application/json', '.svg': 'image/svg+xml',
  '.wasm': 'application/wasm', '.webmanifest': 'application/manifest+json',
};

/** Serves a folder, and an empty page at /blank.html; `{url, close}`. `instead`: contents by path, in place of a file. */
export function serve(folder, instead = {}) {
  const server = http.createServer((request, answer) => {
    const name = decodeURIComponent(new URL(request.url, 'http://localhost').pathname);
    if (name === '/blank.html') {
      answer.setHeader('content-type', 'text/html');
      answer.end('<!doctype html><link rel="icon" href="data:,"><title>blank</title>');
      return;
    }
    const file = path.join(folder, name.endsWith('/') ? `${name}index.html` : name);
    if (instead[name]) {
      answer.setHeader('content-type', TYPES[path.extname(name)]);
      answer.end(instead[name]());
      return;
    }
    fs.readFile(file, (error, bytes) => {
      answer.statusCode = error ? 404 : 200;
      answer.setHeader('content-type', TYPES[path.extname(file)] ?? 'application/octet-stream');
      answer.end(bytes);
    });
  });
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve({ url: `http://localhost:${server.address().port}`, close: () => server.close() }));
  });
}

/** The browser of the tests: BROWSER=firefox is Debian's `firefox-esr` with WebGPU on whatever Vulkan has, lavapipe say. */
export const isFirefox = process.env.BROWSER === 'firefox';

/** A browser that keeps what pages store in `folder`. */
export function launch(folder = fs.mkdtempSync(path.join(os.tmpdir(), 'page-')), webgpu = true) {
  const viewport = { width: 1280, height: 900 };
  if (isFirefox) {
    const firefoxUserPrefs = { 'dom.webgpu.enabled': webgpu, 'gfx.webgpu.ignore-blocklist': true };
    return firefox.launchPersistentContext(folder, { channel: 'moz-firefox', executablePath: process.env.FIREFOX ?? '/usr/bin/firefox-esr', firefoxUserPrefs, viewport });
  }
  const quiet = ['--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
  const gpu = webgpu ? ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader', '--enable-features=Vulkan'] : [];
  return chromium.launchPersistentContext(folder, {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--headless=new', '--no-sandbox', ...quiet, ...gpu], viewport,
  });
}

/** Fails on what a page must not do: asks for another host, logs an error, breaks its policy. */
export function watch(page, url, expected = []) {
  const faults = [];
  page.on('request', (request) => {
    const at = request.url();
    if (!at.startsWith(url) && !at.startsWith('data:') && !at.startsWith('blob:')) faults.push(`asked for ${at}`);
  });
  page.on('console', (message) => {
    if (message.type() === 'error' && !expected.some((part) => message.text().includes(part))) faults.push(message.text());
  });
  page.on('pageerror', (error) => faults.push(error.message));
  return faults;
}

/**
 * Milliseconds of a processor of each task of a page's main thread while `work` is done, by a trace of Chromium: what a task waits
 * for a processor, or for the threads of a GPU that is a program, says nothing of the page.
 */
export async function tasks(browser, page, work) {
  await browser.startTracing(page, { categories: ['toplevel', 'blink.user_timing'] });
  await work();
  await page.evaluate(() => performance.mark('of this page'));
  const { traceEvents } = JSON.parse(await browser.stopTracing());
  const { pid, tid } = traceEvents.find(({ name }) => name === 'of this page');
  const own = traceEvents.filter((one) => one.pid === pid && one.tid === tid && one.ph === 'X' && one.name.endsWith('RunTask'));
  return own.map(({ tdur, dur }) => (tdur ?? dur ?? 0) / 1e3);
}

/** Runs in a page: gives it `draw(kind, i, [width, height], type)`, a picture of a class as a blob. */
export function drawing() {
  // Shapes in a colour, at places and under angles that differ from picture to picture.
  window.draw = async (kind, i, [width, height] = [40, 40], type = 'image/png') => {
    const canvas = new OffscreenCanvas(width, height);
    const pen = canvas.getContext('2d');
    const random = ((s) => () => ((s = (s * 1103515245 + 12345) % 2147483648) / 2147483648))(1000 * kind + i + 7);
    pen.fillStyle = `hsl(${random() * 360} 20% ${85 + random() * 15}%)`;
    pen.fillRect(0, 0, width, height);
    pen.translate(width / 2 + (random() - 0.5) * 6, height / 2 + (random() - 0.5) * 6);
    pen.rotate((random() - 0.5) * 0.5);
    pen.scale((width / 40) * (0.9 + random() * 0.2), (height / 40) * (0.9 + random() * 0.2));
    // From kind 100 on the colour says nothing, and there are strokes that belong to no class.
    const hue = kind < 100 ? (kind * 47) % 360 : random() * 360;
    pen.strokeStyle = pen.fillStyle = `hsl(${hue} ${50 + (kind % 3) * 20}% ${30 + (kind % 4) * 10}%)`;
    pen.lineWidth = 3;
    for (let stroke = 0; kind >= 100 && stroke < 5; stroke += 1) {
      pen.beginPath();
      pen.moveTo((random() - 0.5) * 40, (random() - 0.5) * 40);
      pen.lineTo((random() - 0.5) * 40, (random() - 0.5) * 40);
      pen.stroke();
    }
    for (let part = 0; part < 3; part += 1) {
      const form = (kind * 7 + part * 5) % 6;
      const [x, y] = [((kind * 13 + part * 11) % 17) - 8, ((kind * 5 + part * 7) % 17) - 8];
      pen.beginPath();
      if (form === 0) pen.arc(x, y, 7, 0, 7);
      if (form === 1) pen.rect(x - 6, y - 6, 12, 12);
      if (form === 2) { pen.moveTo(x - 8, y); pen.lineTo(x + 8, y + 4); }
      if (form === 3) { pen.moveTo(x, y - 8); pen.lineTo(x + 7, y + 6); pen.lineTo(x - 7, y + 6); pen.closePath(); }
      if (form === 4) pen.ellipse(x, y, 9, 4, 0, 0, 7);
      if (form === 5) { pen.moveTo(x - 7, y - 7); pen.lineTo(x, y + 7); pen.lineTo(x + 7, y - 7); }
      if (form < 2) pen.fill();
      else pen.stroke();
    }
    return canvas.convertToBlob({ type, quality: 0.9 });
  };
}
