// A server of static files and a browser with WebGPU by SwiftShader, for the tests.

import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { chromium } from 'playwright-core';

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

/** A browser that keeps what pages store in `folder`. */
export function launch(folder = fs.mkdtempSync(path.join(os.tmpdir(), 'page-')), webgpu = true) {
  const quiet = ['--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
  const gpu = webgpu ? ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader', '--enable-features=Vulkan'] : [];
  return chromium.launchPersistentContext(folder, {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--headless=new', '--no-sandbox', ...quiet, ...gpu],
    viewport: { width: 1280, height: 900 },
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
