// The list of jobs, and how one is made.

import { get, me, post } from './api.js';
import { ago, badge, bar, busy, button, code, count, dialog, el, empty, field, loading, money, poll, show, table } from './dom.js';
import { bring } from './upload.js';

const every = 2000;
const page = 50;

export function jobsPage(main, { query, signal }) {
  const tenant = query.get('tenant') ?? '';
  const after = query.get('after') ?? '';
  const notice = el('div');
  const list = el('div', { 'aria-live': 'off' }, loading());
  show(main,
    el('div', { class: 'heading' }, el('h1', null, 'Jobs'), me.submit && button('Submit a file', submitDialog, { class: 'primary' })),
    me.operate ? tenantForm(tenant) : el('p', { class: 'hint' }, 'The jobs of your tenant, newest first.'),
    notice, list);
  poll(signal, every, notice, async () => {
    const found = me.operate ? await get('/fanout/v1/jobs', { tenant, after, limit: page }, signal) : await get('/v1/batches', { after, limit: page }, signal);
    if (signal.aborted) return;
    show(list, found.data.length > 0 ? jobsTable(found.data) : nothing(tenant), pager(found, tenant, after));
  });
}

function nothing(tenant) {
  if (me.operate && !tenant) return empty('No job runs, and none has ended within the hour. Older ones are listed by tenant.');
  return empty(tenant ? `There are no jobs of ${tenant}.` : 'There are no jobs yet.');
}

function pager(found, tenant, after) {
  if (!found.has_more && !after) return null;
  const link = (cursor) => {
    const q = new URLSearchParams({ ...(tenant && { tenant }), ...(cursor && { after: cursor }) });
    return `#/jobs?${q}`;
  };
  return el('p', { class: 'actions' }, after && el('a', { href: link('') }, 'Newest'), found.has_more && el('a', { href: link(found.last_id) }, 'Older'));
}

function tenantForm(tenant) {
  const input = el('input', { name: 'tenant', value: tenant, placeholder: 'all that run, or ended within the hour', autocomplete: 'off', spellcheck: 'false' });
  const go = (name) => { location.hash = name ? `#/jobs?${new URLSearchParams({ tenant: name })}` : '#/jobs'; };
  return el('form', { class: 'filter', on: { submit: (e) => { e.preventDefault(); go(input.value.trim()); } } },
    field('Tenant', input), el('button', { type: 'submit' }, 'Show'), tenant && button('Show all', () => go('')));
}

// stateOf is a job's status in one word: a hold is more to know than that it is in progress.
export function stateOf(job) {
  return job.fanout.pause && !ended(job) ? 'paused' : job.status;
}

export function ended(job) {
  return ['completed', 'failed', 'expired', 'cancelled'].includes(job.status);
}

function jobsTable(jobs) {
  return table([
    { title: 'Job', class: 'main', cell: (j) => [el('a', { href: `#/jobs/${encodeURIComponent(j.id)}` }, code(j.id)), el('div', { class: 'sub' }, [j.model ?? (j.request_counts.total > 0 && 'several models'), me.operate && j.fanout.tenant].filter(Boolean).join(' · '))] },
    { title: 'Status', cell: (j) => [badge(stateOf(j)), why(j)] },
    { title: 'Progress', class: 'wide', cell: (j) => [bar(j.request_counts), el('div', { class: 'sub' }, `${count(j.request_counts.completed + j.request_counts.failed)} of ${count(j.request_counts.total)}`)] },
    { title: 'Failed', class: 'number', cell: (j) => el('span', { class: j.request_counts.failed > 0 ? 'bad' : 'faint' }, count(j.request_counts.failed)) },
    { title: 'Dead chunks', class: 'number', cell: (j) => el('span', { class: j.fanout.dead > 0 ? 'bad' : 'faint' }, count(j.fanout.dead)) },
    { title: 'Cost', class: 'number', cell: (j) => (j.fanout.cost_usd === null ? el('span', { class: 'faint' }, '–') : money(j.fanout.cost_usd)) },
    { title: 'Made', class: 'number', cell: (j) => ago(j.created_at) },
  ], jobs, (j) => j.id);
}

function why(job) {
  if (job.fanout.pause && !ended(job)) return el('div', { class: 'sub' }, job.fanout.pause.message);
  if (job.fanout.stop) return el('div', { class: 'sub' }, job.fanout.stop.reason);
  return null;
}

// submitDialog takes a file and makes a job of it. Who closes it ends what it does.
function submitDialog() {
  const notice = el('div');
  const over = new AbortController();
  const file = el('input', { type: 'file', name: 'file', accept: '.jsonl,.gz,application/jsonl', required: true });
  const time = el('input', { name: 'window', value: '24h', required: true, autocomplete: 'off' });
  const metadata = el('textarea', { name: 'metadata', rows: 3, placeholder: 'name=value', spellcheck: 'false' });
  const go = el('button', { type: 'submit', class: 'primary' }, 'Submit');
  const tell = (text, done) => show(notice, el('p', { class: 'notice', role: 'status' }, text), done);
  const brought = { file: null, id: '' }; // what is there is not brought twice if the rest is refused
  const submit = async () => {
    const chosen = file.files[0];
    const options = { completion_window: time.value.trim(), metadata: pairs(metadata.value) };
    tell('Reading the first line …');
    const endpoint = await endpointOf(chosen);
    if (brought.file !== chosen) {
      const bringing = (bytes) => tell(`Bringing ${chosen.name} …`, share(bytes, chosen.size));
      bringing(0);
      Object.assign(brought, { id: await bring(chosen, over.signal, bringing), file: chosen });
    }
    tell('Making the job …');
    const made = await post('/v1/batches', { input_file_id: brought.id, endpoint, ...options }, over.signal);
    location.hash = `#/jobs/${made.id}`;
    box.close();
  };
  const form = el('form', { on: { submit: (e) => {
    e.preventDefault();
    busy(go, notice, submit);
  } } },
  field('File', file, 'JSON lines, one request a line, as for OpenAI’s Batch API; plain or gzipped.'),
  field('Time to end in', time, 'A duration from 1m to 336h.'),
  field('Metadata', metadata, 'One name=value a line. Names that begin with fanout_ are options, such as fanout_max_attempts=3.'),
  notice,
  el('div', { class: 'actions' }, button('Never mind', () => box.close()), go));
  const box = dialog('Submit a file', form, () => over.abort());
}

// share is how much of a file is there.
function share(bytes, size) {
  const mega = (n) => count(Math.round(n / 1e6));
  if (size < 1e6) return null;
  return el('p', { class: 'share' }, el('progress', { max: size, value: bytes, 'aria-label': 'Brought' }), el('span', { class: 'hint' }, `${mega(bytes)} of ${mega(size)} MB`));
}

function pairs(text) {
  const found = {};
  for (const line of text.split('\n').map((l) => l.trim()).filter(Boolean)) {
    const at = line.indexOf('=');
    if (at < 1) throw new Error(`“${line}” is not name=value.`);
    found[line.slice(0, at).trim()] = line.slice(at + 1).trim();
  }
  return found;
}

const longestLine = 20 << 20; // bytes, as the server has it

// endpointOf is the url of the first request: all of a file have the same.
async function endpointOf(file) {
  const magic = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  let bytes = file.stream();
  if (magic[0] === 0x1f && magic[1] === 0x8b) bytes = bytes.pipeThrough(new DecompressionStream('gzip'));
  const reader = bytes.getReader();
  const decoder = new TextDecoder();
  let text = '';
  for (let over = false; !over;) {
    const { value, done } = await reader.read();
    text = (text + (value ? decoder.decode(value, { stream: true }) : '')).trimStart(); // blank lines are no requests
    over = done || text.includes('\n');
    if (text.length > longestLine) throw new Error('The first line is longer than a request can be.');
  }
  reader.cancel();
  return urlOf(text.split('\n', 1)[0]);
}

function urlOf(line) {
  let url;
  try {
    url = JSON.parse(line).url;
  } catch {
    throw new Error('The first line is not JSON.');
  }
  if (typeof url !== 'string') throw new Error('The first line names no url, such as /v1/chat/completions.');
  return url;
}
