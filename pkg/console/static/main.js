// The frame: who looks, where they are, and which page that is.

import { enter, leave, me, Refusal } from './api.js';
import { busy, button, el, empty, field, problem, show } from './dom.js';
import { auditPage } from './audit.js';
import { deadChunkPage, deadPage } from './dead.js';
import { jobPage } from './job.js';
import { jobsPage } from './jobs.js';
import { queuesPage } from './queues.js';
import { upstreamsPage } from './upstreams.js';

// pages are [first word of the hash, title, the page, the page of one thing]. Only operators see those after the first.
const pages = [
  ['jobs', 'Jobs', jobsPage, jobPage],
  ['dead', 'Dead letters', deadPage, deadChunkPage],
  ['queues', 'Queues', queuesPage],
  ['upstreams', 'Upstreams', upstreamsPage],
  ['audit', 'Audit', auditPage],
];

const top = document.getElementById('top');
const main = document.getElementById('main');
let shown = new AbortController(); // ends what the page that is shown has begun
let inside = false;

window.addEventListener('hashchange', () => { if (inside) route(); });
document.querySelector('.skip').addEventListener('click', (e) => {
  e.preventDefault(); // the hash is the page
  main.focus();
});
window.addEventListener('signed-out', (e) => { if (inside) signIn(e.detail); });
open();

// open goes in with the key of this tab, or without one where none is needed.
async function open() {
  const had = me.key;
  try {
    await enter(had);
    begin();
  } catch (err) {
    if (err instanceof Refusal && err.status === 401) signIn(had ? err : '');
    else show(main, problem(err), button('Try again', open), had && button('Use another key', () => signIn('')));
  }
}

function begin() {
  inside = true;
  route();
}

function turn() {
  shown.abort();
  shown = new AbortController();
  main.replaceChildren();
  for (const box of document.querySelectorAll('dialog')) box.close();
}

function route() {
  const hash = location.hash.startsWith('#/') ? location.hash.slice(2) : 'jobs';
  const [path, search] = hash.split('?');
  const [word, id] = path.split('/').map(plain);
  const allowed = me.operate ? pages : pages.slice(0, 1);
  const found = allowed.find(([name]) => name === word);
  turn();
  head(allowed, word);
  document.title = `${found?.[1] ?? 'Not found'} · fanout`;
  const render = id ? found?.[3] : found?.[2];
  if (!render) {
    show(main, el('h1', null, 'Not found'), empty('There is no such page, or your key does not open it. ', el('a', { href: '#/jobs' }, 'To the jobs')));
    return;
  }
  render(main, { id, query: new URLSearchParams(search), signal: shown.signal });
  main.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

// plain is a part of the address as it was before it was put there.
function plain(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // somebody has typed it
  }
}

function head(allowed, here) {
  top.replaceChildren(brand(),
    el('nav', { 'aria-label': 'Pages' }, allowed.map(([name, title]) => el('a', { href: `#/${name}`, 'aria-current': name === here && 'page' }, title))),
    el('div', { class: 'who' }, el('span', { class: 'role' }, role()),
      me.key && button('Sign out', () => { leave(); signIn(''); })));
}

function brand() {
  return el('a', { class: 'brand', href: '#/jobs' }, el('img', { src: 'icon.svg', alt: '', width: 22, height: 22 }), 'fanout');
}

function role() {
  if (me.operate) return 'Operator';
  return me.submit ? 'Own jobs' : 'Read only';
}

// signIn asks for a key. why is a problem or a sentence, '' = nobody has tried one yet.
function signIn(why) {
  inside = false;
  turn();
  leave();
  top.replaceChildren(brand());
  document.title = 'Sign in · fanout';
  const notice = el('div');
  const input = el('input', { type: 'password', name: 'key', autocomplete: 'off', spellcheck: 'false', required: true, placeholder: 'fanout_…', 'aria-describedby': 'about-key' });
  const go = el('button', { type: 'submit', class: 'primary' }, 'Sign in');
  const form = el('form', { class: 'card sign-in', on: { submit: (e) => {
    e.preventDefault();
    busy(go, notice, async () => {
      await enter(input.value.trim());
      begin();
    });
  } } },
  el('h1', null, 'Sign in'),
  field('API key', input),
  el('p', { class: 'hint', id: 'about-key' }, 'It stays in this tab until you close it or sign out. With the scope operate the console shows every tenant; any other key sees its own jobs.'),
  notice, go);
  if (why) show(notice, problem(why));
  show(main, form);
  input.focus();
}
