// The audit log: what was done by hand.

import { get } from './api.js';
import { busy, button, code, count, el, empty, loading, poll, show, table, time } from './dom.js';

const page = 50;
const every = 10_000;

export function auditPage(main, { signal }) {
  const notice = el('div');
  const list = el('div', null, loading());
  const pressed = el('div'); // what "Older" has met
  const more = el('div');
  let older = [];
  show(main, el('h1', null, 'Audit'), el('p', { class: 'hint' }, 'What was done by hand, newest first. It is kept for 400 days.'), notice, list, pressed, more);
  const draw = (found) => {
    const all = [...found, ...older];
    show(list, all.length > 0 ? auditTable(all) : empty('Nothing was done by hand yet.'));
  };
  poll(signal, every, notice, async () => {
    if (older.length > 0) return; // who reads on is not moved about
    const found = await get('/fanout/v1/audit', { limit: page }, signal);
    if (signal.aborted) return;
    draw(found.data);
    show(more, found.has_more && next(found));
  });
  const next = (last) => el('p', { class: 'actions' }, button('Older', (e) => busy(e.currentTarget, pressed, async () => {
    const found = await get('/fanout/v1/audit', { limit: page, after: last.last_id }, signal);
    older = [...older, ...(older.length === 0 ? last.data : []), ...found.data];
    draw([]);
    show(more, found.has_more && next(found));
  }), { 'data-key': last.last_id }));
}

function auditTable(records) {
  return table([
    { title: 'When', cell: (r) => time(r.at) },
    { title: 'What', class: 'main', cell: (r) => [code(r.action), r.why && el('div', { class: 'sub' }, r.why)] },
    { title: 'Of', cell: (r) => [r.of === null ? el('span', { class: 'faint' }, '–') : target(r.of), r.tenant !== null && el('div', { class: 'sub' }, r.tenant)] },
    { title: 'How many', class: 'number', cell: (r) => (r.count > 0 ? count(r.count) : el('span', { class: 'faint' }, '–')) },
    { title: 'By', cell: (r) => r.by },
  ], records, (r) => r.id);
}

function target(of) {
  return of.startsWith('batch_') ? el('a', { href: `#/jobs/${encodeURIComponent(of)}` }, code(of)) : code(of);
}
