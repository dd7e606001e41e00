// The API, and whose key it is called with.

const keyName = 'fanout.key';

// me is who looks: their key, and what it may. The key is kept for this tab only, and sent in a header only.
export const me = { key: sessionStorage.getItem(keyName) ?? '', operate: false, submit: false, read: false };

export class Refusal extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

// request calls the API and returns its Response. A refusal is thrown with the server's sentence.
export async function request(path, { method = 'GET', json, form, signal } = {}) {
  const headers = {};
  if (me.key) headers.Authorization = `Bearer ${me.key}`;
  if (json !== undefined) headers['Content-Type'] = 'application/json';
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: json === undefined ? form : JSON.stringify(json), signal, credentials: 'omit', cache: 'no-store' });
  } catch (err) {
    if (signal?.aborted) throw err;
    throw new Error('The server cannot be reached.');
  }
  if (answer.ok) return answer;
  let told = {};
  try {
    told = (await answer.json()).error ?? {};
  } catch { /* something before the API has answered */ }
  if (answer.status === 401) window.dispatchEvent(new CustomEvent('signed-out', { detail: told.message }));
  throw new Refusal(answer.status, told.code, told.message ?? `The server answered ${answer.status}.`);
}

export async function get(path, query, signal) {
  return (await request(withQuery(path, query), { signal })).json();
}

export async function post(path, json = {}, signal) {
  return (await request(path, { method: 'POST', json, signal })).json();
}

export async function remove(path) {
  return (await request(path, { method: 'DELETE' })).json();
}

// withQuery leaves out what is empty.
export function withQuery(path, query = {}) {
  const q = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) {
    if (value !== '' && value !== null && value !== undefined) q.set(key, value);
  }
  return q.size > 0 ? `${path}?${q}` : path;
}

// enter finds out what the key may. It throws if it may nothing here.
export async function enter(key) {
  me.key = key;
  me.operate = me.submit = me.read = false;
  me.operate = await allowed(() => get('/fanout/v1/jobs', { limit: 1 }));
  if (me.operate && !key) {
    me.read = me.submit = true; // a server without keys lets everybody do everything
  } else {
    me.read = await allowed(() => get('/v1/batches', { limit: 1 }));
    me.submit = await allowed(() => post('/v1/batches?dry_run=true', {})); // what asks for nothing is refused for that, if the key may
  }
  if (!me.operate && !me.read) throw new Error('This key may neither read nor operate, so there is nothing to show.');
  if (key) sessionStorage.setItem(keyName, key);
}

async function allowed(ask) {
  try {
    await ask();
    return true;
  } catch (err) {
    if (!(err instanceof Refusal)) throw err;
    if (err.status === 400) return true;
    if (err.code === 'insufficient_scope' || err.status === 404) return false;
    throw err;
  }
}

export function leave() {
  me.key = '';
  me.operate = me.submit = me.read = false;
  sessionStorage.removeItem(keyName);
}

// jobPath is where a job is read: operators see those of every tenant.
export function jobPath(id, rest = '') {
  return `${me.operate ? '/fanout/v1/jobs' : '/v1/batches'}/${encodeURIComponent(id)}${rest}`;
}

// download saves a file of the API. One that lies elsewhere has a URL that needs no key, and the browser goes there itself: the
// policy lets no script fetch from another origin. Any other passes through memory, since a link could not carry the key.
export async function download(id, name) {
  const path = `/v1/files/${encodeURIComponent(id)}/content`;
  let found;
  try {
    found = await request(withQuery(path, { redirect: 'false' }));
  } catch (err) {
    if (err.status !== 400 && err.status !== 404) throw err;
    found = await request(path); // a server that knows no URLs
  }
  if (found.headers.get('Content-Type')?.startsWith('application/json')) {
    const { url } = await found.json();
    if (url !== null) return save(elsewhere(url), name);
    found = await request(path);
  }
  const url = URL.createObjectURL(await found.blob());
  save(url, name);
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  return undefined;
}

function elsewhere(url) {
  if (!['https:', 'http:'].includes(new URL(url).protocol)) throw new Error('The server has named no address of the file.');
  return url;
}

function save(url, name) {
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.rel = 'noreferrer';
  link.click();
}
