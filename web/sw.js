// Keeps a whole visit of the page, so that the next one needs no network. tools/build_site.py writes version and files.
// The version is the digest of all of them: a new build is another copy, and the old one goes when no page uses it.

const VERSION = "brainseg-__VERSION__";
const FILES = __FILES__;

// With these a page may use threads; hosts such as GitHub Pages cannot send them.
const ISOLATED = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp", "Cross-Origin-Resource-Policy": "same-origin" };

addEventListener("install", (event) => event.waitUntil(caches.open(VERSION).then((cache) => cache.addAll(FILES))));

addEventListener("activate", (event) => event.waitUntil(forgetOthers().then(() => clients.claim())));

addEventListener("fetch", (event) => {
  if (event.request.method === "GET" && new URL(event.request.url).origin === location.origin) event.respondWith(answer(event.request));
});

async function forgetOthers() {
  const old = (await caches.keys()).filter((name) => name.startsWith("brainseg-") && name !== VERSION);
  await Promise.all(old.map((name) => caches.delete(name)));
}

async function answer(request) {
  const cache = await caches.open(VERSION);
  const found = await cache.match(request, { ignoreSearch: request.mode === "navigate" });
  const response = found ?? (await fetch(request));
  if (response.type === "opaque" || response.status === 0) return response;
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(ISOLATED)) headers.set(name, value);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
