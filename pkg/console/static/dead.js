// Dead letters: what fails across all jobs, the chunks that were given up, and bringing them back.

import { get, post, Refusal } from './api.js';
import { ago, badge, busy, button, code, confirm, count, dialog, el, empty, field, good, loading, pause, plural, poll, problem, sentence, show, table } from './dom.js';

const every = 5000;
const page = 50;
const followEvery = 1000;
const atOnce = 1000; // chunks that are asked for together
const canaryWait = 30 * 60_000; // how long to wait for the chunks that go first

const units = [['3600', 'hours'], ['60', 'minutes'], ['86400', 'days']];

export function deadPage(main, { query, signal }) {
  const selection = selectionOf(query);
  const after = query.get('after') ?? '';
  const troubleNotice = el('div');
  const groups = el('div', null, loading());
  const notice = el('div');
  const list = el('div', null, loading());
  show(main,
    el('h1', null, 'Dead letters'),
    el('section', { class: 'card' }, el('h2', null, 'What fails, in all jobs'), troubleNotice, groups),
    el('section', { class: 'card' }, el('h2', null, 'Dead chunks'), filterForm(selection), notice, list),
    actions(selection));
  poll(signal, every, troubleNotice, async () => {
    const found = await get('/fanout/v1/errors', {}, signal);
    if (!signal.aborted) show(groups, found.data.length > 0 ? groupsTable(found.data) : empty('Nothing fails.'));
  });
  poll(signal, every, notice, async () => {
    const found = await get('/fanout/v1/dead-letters', { ...selection, after, limit: page }, signal);
    if (signal.aborted) return;
    show(list, found.data.length > 0 ? chunksTable(found.data) : empty(Object.keys(selection).length > 0 ? 'No dead chunk is like that.' : 'There are no dead chunks.'),
      (after || found.has_more) && el('p', { class: 'actions' }, after && el('a', { href: link(selection) }, 'First'), found.has_more && el('a', { href: link({ ...selection, after: found.last_id }) }, 'More')));
  });
}

const link = (query) => `#/dead?${new URLSearchParams(query)}`;

// selectionOf is which chunks are meant, as the address says: what is shown, counted and moved is the same.
function selectionOf(query) {
  const s = {};
  for (const key of ['job', 'tenant', 'code']) if (query.get(key)) s[key] = query.get(key);
  const age = Number(query.get('older_than'));
  if (Number.isInteger(age) && age > 0) s.older_than = age;
  return s;
}

function describe(s) {
  const parts = [s.code && ['with the error ', code(s.code)], s.job && ['of the job ', code(s.job)], s.tenant && ['of the tenant ', code(s.tenant)], s.older_than && `dead for more than ${ageText(s.older_than)}`].filter(Boolean);
  if (parts.length === 0) return ['all dead chunks'];
  return ['dead chunks ', parts.map((p, i) => [i > 0 && ', ', p])];
}

function ageText(seconds) {
  const [size, name] = unitOf(seconds);
  return `${count(seconds / size)} ${name}`;
}

function unitOf(seconds) {
  const [size, name] = ['86400', '3600', '60'].map((u) => units.find(([v]) => v === u)).find(([v]) => seconds % Number(v) === 0) ?? ['1', 'seconds'];
  return [Number(size), name];
}

function groupsTable(groups) {
  return table([
    { title: 'Error', class: 'main', cell: (g) => [code(g.code), el('div', { class: 'sub' }, g.message)] },
    { title: 'Items', class: 'number', cell: (g) => count(g.requests) },
    { title: 'Jobs', class: 'number', cell: (g) => count(g.batches) },
    { title: 'For example', cell: (g) => el('ul', { class: 'plain' }, g.samples.map((id) => el('li', null, el('a', { href: `#/jobs/${encodeURIComponent(id)}` }, code(id))))) },
    { title: 'Dead chunks', cell: (g) => el('a', { href: link({ code: g.code }) }, 'Show those with it') },
  ], groups, (g) => g.code + g.message);
}

function chunksTable(chunks) {
  return table([
    { title: 'Chunk', class: 'main', cell: (c) => [el('a', { href: `#/dead/${encodeURIComponent(c.id)}` }, `Lines ${count(c.line)} to ${count(c.line + c.lines - 1)}`), el('div', { class: 'sub' }, 'of ', el('a', { href: `#/jobs/${encodeURIComponent(c.batch)}` }, code(c.batch)), ` · ${c.tenant}`)] },
    { title: 'Error', class: 'wide', cell: (c) => [code(c.code), el('div', { class: 'sub' }, c.message)] },
    { title: 'Open items', class: 'number', cell: (c) => count(c.open) },
    { title: 'Burials', class: 'number', cell: (c) => count(c.burials) },
    { title: 'Dead', class: 'number', cell: (c) => ago(c.dead_at) },
    { title: 'State', cell: (c) => [badge(c.state), c.why && el('div', { class: 'sub' }, c.why)] },
  ], chunks, (c) => c.id);
}

function filterForm(s) {
  const text = (name, label, placeholder) => field(label, el('input', { name, value: s[name] ?? '', placeholder, autocomplete: 'off', spellcheck: 'false' }));
  const [size, unit] = s.older_than ? unitOf(s.older_than) : [3600, 'hours'];
  const age = el('input', { name: 'age', type: 'number', min: 0, step: 'any', value: s.older_than ? s.older_than / size : '', placeholder: 'any' });
  const choices = units.some(([v]) => Number(v) === size) ? units : [...units, [String(size), unit]];
  const select = el('select', { name: 'unit', 'aria-label': 'Unit of the age' }, choices.map(([value, name]) => el('option', { value, selected: Number(value) === size }, name)));
  return el('form', { class: 'filter', on: { submit: (e) => {
    e.preventDefault();
    const given = new FormData(e.currentTarget);
    const chosen = {};
    for (const key of ['code', 'job', 'tenant']) if (given.get(key).trim()) chosen[key] = given.get(key).trim();
    const seconds = Math.round(Number(given.get('age')) * Number(given.get('unit')));
    if (seconds > 0) chosen.older_than = seconds;
    location.hash = link(chosen);
  } } },
  text('code', 'Error code', 'any'), text('job', 'Job', 'any'), text('tenant', 'Tenant', 'any'),
  el('div', { class: 'field' }, el('label', { class: 'label', for: 'age' }, 'Dead for more than'), el('span', { class: 'pair' }, (age.id = 'age', age), select)),
  el('button', { type: 'submit' }, 'Filter'), Object.keys(s).length > 0 && button('Show all', () => { location.hash = '#/dead'; }));
}

// actions are what can be done to the chunks that the filter means.
function actions(selection) {
  const notice = el('div');
  const number = (name, placeholder, attributes) => el('input', { name, type: 'number', min: 0, step: 1, placeholder, ...attributes });
  const max = number('max', 'all', { min: 1 });
  const rate = number('rate', 'as fast as it goes', { step: 'any', max: 10000 });
  const canary = number('canary', 'none');
  const go = el('button', { type: 'submit', class: 'primary' }, 'Redrive …');
  const purge = button('Purge …', () => max.reportValidity() && busy(purge, notice, () => purgeDialog(withMax(selection, max))), { class: 'danger' }); // it submits no form that would look
  return el('section', { class: 'card' }, el('h2', null, 'Bring them back'),
    el('p', { class: 'hint' }, 'Redriving asks again for the items without an outcome; those that were answered are not asked again. It moves ', describe(selection), '. First it is counted.'),
    el('form', { class: 'filter', on: { submit: (e) => {
      e.preventDefault();
      busy(go, notice, () => redriveDialog({ ...withMax(selection, max), ...(Number(rate.value) > 0 && { rate: Number(rate.value) }) }, Number(canary.value)));
    } } },
    field('At most', max, 'chunks'), field('Rate', rate, 'chunks a second'), field('Canary', canary, 'go first, and must be answered'), el('div', { class: 'actions' }, go, purge)),
    notice);
}

function withMax(selection, max) {
  return { ...selection, ...(Number(max.value) > 0 && { max: Number(max.value) }) };
}

function refusals(refused) {
  const all = Object.entries(refused);
  return all.length > 0 && el('ul', null, all.map(([reason, n]) => el('li', null, `${plural(n, 'chunk stays', 'chunks stay')} where ${n === 1 ? 'it is' : 'they are'}: `, code(reason))));
}

async function redriveDialog(query, canary) {
  const would = await post('/fanout/v1/dead-letters/redrive', { ...query, dry_run: true });
  if (would.chunks === 0) {
    const box = dialog('Nothing to redrive', [el('p', null, 'None of these chunks waits to be moved: they are on their way already, or their jobs take nothing back.'), refusals(would.refused), el('div', { class: 'actions' }, button('Close', () => box.close()))]);
    return;
  }
  const first = Math.min(canary, query.max ?? canary);
  const over = new AbortController();
  const total = { chunks: 0, requests: 0, refused: {} }; // that was moved
  const told = el('div', { 'aria-live': 'polite' });
  const plan = el('div', null,
    el('dl', { class: 'figures' }, [['Chunks', would.chunks], ['Items to be asked', would.requests], ['Jobs', would.batches]].map(([name, n]) => el('div', null, el('dt', null, name), el('dd', null, count(n))))),
    refusals(would.refused),
    would.next !== null && el('p', { class: 'notice held' }, 'These are those that could be counted in 15 seconds; there are more, and they would be moved too.'),
    el('p', { class: 'hint' }, 'It moves ', describe(query), query.max && `, at most ${count(query.max)}`, query.rate && `, ${count(query.rate)} a second`, '.',
      first > 0 && ` ${plural(first, 'chunk goes', 'chunks go')} first; the rest only if ${first === 1 ? 'it is' : 'all of these are'} answered.`));
  const leave = button('Never mind', () => box.close());
  const go = button(`Redrive ${plural(would.chunks, 'chunk')}`, async () => {
    go.hidden = true;
    leave.textContent = 'Stop';
    try {
      const done = await redrive(query, first, total, over.signal, (...what) => show(told, el('p', { class: 'notice', role: 'status' }, what)));
      show(told, done);
    } catch (err) {
      show(told, problem(err), el('p', null, hadMoved(total), err.unsure && ' Whether the last call has moved any is not known: count again before you go on.'));
    }
    leave.textContent = 'Close';
    leave.focus();
  }, { class: 'primary' });
  const box = dialog('Redrive dead chunks', [plan, told, el('div', { class: 'actions' }, leave, go)], () => over.abort());
  go.focus();
}

// redrive moves the canary, if there is one, sees what becomes of it, and then moves the rest, all of it counted in total. It
// returns what to tell.
async function redrive(query, canary, total, signal, tell) {
  const report = () => tell(`Moved ${plural(total.chunks, 'chunk')} with ${plural(total.requests, 'item')} …`);
  const rest = { ...query };
  if (canary > 0) {
    const first = await move({ ...query, max: canary }, total, signal, report);
    const failed = await follow(first, signal, (pending) => tell(`Moved ${plural(total.chunks, 'chunk')} first. Waiting for what becomes of ${pending === 1 ? 'it' : 'them'}: ${count(pending)} still open …`));
    if (signal.aborted) return stopped(total);
    if (failed > 0) {
      return el('p', { class: 'notice bad', role: 'alert' }, el('strong', null, 'The canary failed.'), ` ${count(failed)} of ${plural(first.length, 'chunk')} failed again, so nothing more was moved.`);
    }
    if (rest.max) rest.max -= total.chunks;
    total.refused = {}; // they are met again
  }
  if (rest.max !== 0) await move(rest, total, signal, report);
  if (signal.aborted) return stopped(total);
  return el('div', null, good(`Redrove ${plural(total.chunks, 'chunk')} with ${plural(total.requests, 'item')}.`), refusals(total.refused));
}

const hadMoved = (total) => `${plural(total.chunks, 'chunk')} had been moved.`;

function stopped(total) {
  return el('p', { class: 'notice held', role: 'status' }, 'Stopped. ', hadMoved(total));
}

// move goes on, call after call, until all is moved.
async function move(query, total, signal, report) {
  const followed = [];
  const q = { ...query, dry_run: false };
  const began = Date.now();
  let moved = 0;
  while (!signal.aborted) {
    const done = await post('/fanout/v1/dead-letters/redrive', q).catch((err) => {
      err.unsure = !(err instanceof Refusal) || err.status >= 500; // its answer may have been lost on the way
      throw err;
    });
    total.chunks += done.chunks;
    total.requests += done.requests;
    for (const [reason, n] of Object.entries(done.refused)) total.refused[reason] = (total.refused[reason] ?? 0) + n;
    followed.push(...done.followed);
    report();
    if (q.max) q.max -= done.chunks;
    if (done.next === null || q.max === 0) break;
    q.from = done.next;
    moved += done.chunks;
    const early = q.rate ? began + (1000 * moved) / q.rate - Date.now() : 0; // a call knows nothing of the one before
    if (early > 0) await pause(early, signal);
  }
  return followed;
}

// follow waits until none of the chunks is pending, or one has failed, and returns how many have failed.
async function follow(chunks, signal, tell) {
  const until = Date.now() + canaryWait;
  while (!signal.aborted && chunks.length > 0) {
    const states = [];
    for (let i = 0; i < chunks.length; i += atOnce) states.push(...(await post('/fanout/v1/dead-letters/follow', { chunks: chunks.slice(i, i + atOnce) }, signal)).states);
    const failed = states.filter((s) => s === 'failed').length;
    const pending = states.filter((s) => s === 'pending').length;
    if (failed > 0 || pending === 0) return failed;
    if (Date.now() > until) throw new Error(`After half an hour ${plural(pending, 'chunk has', 'chunks have')} not come to an end. Nothing more was moved.`);
    tell(pending);
    await pause(followEvery, signal);
  }
  return 0;
}

async function purgeDialog(query) {
  const would = await post('/fanout/v1/dead-letters/purge', { ...query, dry_run: true });
  if (would.purged === 0 && !would.more) {
    const box = dialog('Nothing to purge', [el('p', null, 'There is no such dead chunk.'), el('div', { class: 'actions' }, button('Close', () => box.close()))]);
    return;
  }
  let open = true;
  const told = el('div', { 'aria-live': 'polite' });
  confirm('Purge dead chunks?', [
    el('p', null, `${plural(would.purged, 'chunk')} would be cleared out of the dead letters for good: `, describe(query), '. Their items stay failed, and cannot be redriven from here any more.'),
    would.more && el('p', { class: 'notice held' }, 'These are those that could be counted in 15 seconds; there are more, and they would be purged too.'), told],
  `Purge ${plural(would.purged, 'chunk')}`, () => purge(query, () => open, (purged) => show(told, el('p', { class: 'notice' }, `Purged ${plural(purged, 'chunk')} …`))), 'danger').then(() => { open = false; });
}

// purge goes on, call after call, until all is purged or its dialog is closed.
async function purge(query, goesOn, tell) {
  const q = { ...query, dry_run: false };
  let purged = 0;
  for (;;) {
    const done = await post('/fanout/v1/dead-letters/purge', q);
    purged += done.purged;
    if (q.max) q.max -= done.purged;
    if (!done.more || q.max === 0 || !goesOn()) return;
    tell(purged);
  }
}

export function deadChunkPage(main, { id, signal }) {
  const notice = el('div');
  const body = el('div', null, loading());
  show(main, el('p', { class: 'crumbs' }, el('a', { href: '#/dead' }, '← Dead letters')), notice, body);
  poll(signal, every, notice, async () => {
    const c = await get(`/fanout/v1/dead-letters/${encodeURIComponent(id)}`, {}, signal);
    if (signal.aborted) return;
    show(body, el('h1', null, `Lines ${count(c.line)} to ${count(c.line + c.lines - 1)}`),
      el('p', { class: 'sub' }, badge(c.state), ' of ', el('a', { href: `#/jobs/${encodeURIComponent(c.batch)}` }, code(c.batch)), ` · tenant ${c.tenant} · dead `, ago(c.dead_at)),
      c.why && el('p', { class: 'notice held' }, sentence(c.why)),
      el('p', { class: 'notice bad' }, code(c.code), ' ', sentence(c.message)),
      el('dl', { class: 'figures' }, [['Open items', c.open], ['Attempts', c.attempts], ['Burials', c.burials]].map(([name, n]) => el('div', null, el('dt', null, name), el('dd', null, count(n))))),
      el('section', { class: 'card' }, el('h2', null, 'Its open items'), table([
        { title: 'Custom id', class: 'main', cell: (i) => [code(i.custom_id), el('div', { class: 'sub' }, `line ${count(i.line)}`)] },
        { title: 'Last error', class: 'wide', cell: (i) => [i.code && code(i.code), i.status !== null && el('span', { class: 'faint' }, ` HTTP ${i.status}`), el('div', { class: 'sub' }, i.message)] },
        { title: 'Calls', class: 'number', cell: (i) => count(i.calls) },
        { title: 'Crashes', class: 'number', cell: (i) => count(i.crashes) },
      ], c.items ?? [], (i) => String(i.line))));
  });
}
