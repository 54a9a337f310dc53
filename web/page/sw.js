// Keeps the files of the page so that it works without a network. The build fills in the list and the version; a new
// version is fetched whole beside the old one and waits until the page, which has loaded all that it needs, tells it to take over.
const FILES = /*FILES*/[];
const VERSION = /*VERSION*/"";
// Pages of one server in different folders keep different files.
const PREFIX = `ieq-wgpu ${encodeURIComponent(new URL('.', self.location).pathname)} `;
const NAME = PREFIX + VERSION;

self.addEventListener('install', (event) => {
  const keep = async () => {
    const cache = await caches.open(NAME);
    // Past the browser's own cache, which may hold files of an older version.
    await cache.addAll(['./', ...FILES].map((file) => new Request(file, { cache: 'reload' })));
  };
  event.waitUntil(keep());
});

self.addEventListener('message', ({ data }) => {
  if (data === 'take over') self.skipWaiting();
});

self.addEventListener('activate', (event) => {
  const clear = async () => {
    const old = (await caches.keys()).filter((name) => name.startsWith(PREFIX) && name !== NAME);
    await Promise.all(old.map((name) => caches.delete(name)));
    await self.clients.claim();
  };
  event.waitUntil(clear());
});

self.addEventListener('fetch', (event) => {
  const { request } = event;
  if (request.method !== 'GET' || new URL(request.url).origin !== self.location.origin) return;
  const answer = async () => {
    const cache = await caches.open(NAME);
    return (await cache.match(request, { ignoreSearch: true })) ?? fetch(request);
  };
  event.respondWith(answer());
});
