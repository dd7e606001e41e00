// Upstreams: who answers, how many calls each gets, and holding one.

import { get, post } from './api.js';
import { ago, badge, button, code, confirm, count, el, empty, field, loading, poll, sentence, show, table } from './dom.js';

const every = 2000;

export function upstreamsPage(main, { signal }) {
  const notice = el('div');
  const list = el('div', null, loading());
  let listed = [];
  show(main, el('h1', null, 'Upstreams'), el('p', { class: 'hint' }, 'Each model of an upstream, for all jobs. Limit and calls in flight are those of one process, as the last that told had it.'), notice, list, pauseAnother(() => listed));
  poll(signal, every, notice, async () => {
    const found = await get('/fanout/v1/upstreams', {}, signal);
    if (signal.aborted) return;
    listed = found.data;
    show(list, listed.length > 0 ? upstreamsTable(listed) : empty('Nothing is known of any upstream yet.'));
  });
}

function stateOf(u) {
  if (u.pause) return 'held';
  return u.failing_since ? 'failing' : 'ok';
}

// unknown is what a server, or a process, does not tell.
const unknown = () => el('span', { class: 'faint' }, '–');
const known = (n) => (Number.isFinite(n) ? count(n) : unknown());

function upstreamsTable(upstreams) {
  return table([
    { title: 'Upstream', class: 'main', cell: (u) => code(u.upstream) },
    { title: 'Model', class: 'wide', cell: (u) => code(u.model) },
    { title: 'Limit', class: 'number', cell: (u) => (u.width === null ? el('span', { class: 'faint' }, 'at its ceiling') : known(u.width)) },
    { title: 'In flight', class: 'number', cell: (u) => known(u.in_flight) },
    { title: 'State', class: 'wide', cell: (u) => [badge(stateOf(u)), u.pause && el('div', { class: 'sub' }, ago(u.pause.at), `: ${sentence(u.pause.message)}`), u.failing_since && el('div', { class: 'sub' }, 'Failing since ', ago(u.failing_since), u.why && `: ${sentence(u.why)}`)] },
    { title: 'As of', class: 'number', cell: (u) => (u.seen_at ? ago(u.seen_at) : unknown()) },
    { title: 'Hold', cell: (u) => (u.pause ? resume(u) : pauseButton(u)) },
  ], upstreams, (u) => `${u.upstream}\n${u.model}`);
}

function resume(u) {
  return button('Resume', () => confirm('Resume this upstream?', el('p', null, 'Calls to ', code(u.model), ' begin again, for all jobs.'), 'Resume',
    () => post('/fanout/v1/upstreams/resume', { upstream: u.upstream, model: u.model })), { 'data-key': `resume ${u.upstream} ${u.model}` });
}

function pauseButton(u) {
  const reason = el('input', { name: 'reason', maxlength: 500, autocomplete: 'off' });
  return button('Pause', () => confirm('Pause this upstream?', [el('p', null, 'No call to ', code(u.model), ' is begun any more, for any job, until it is resumed.'), field('Reason', reason)], 'Pause',
    () => post('/fanout/v1/upstreams/pause', { upstream: u.upstream, model: u.model, reason: reason.value.trim() })), { 'data-key': `pause ${u.upstream} ${u.model}` });
}

// pauseAnother holds any, listed or not.
function pauseAnother(listed) {
  const input = (name, attributes) => el('input', { name, autocomplete: 'off', spellcheck: 'false', maxlength: 200, ...attributes });
  const choices = (id, values) => el('datalist', { id }, [...new Set(values)].map((value) => el('option', { value })));
  return el('p', { class: 'actions' }, button('Pause another …', () => {
    const upstream = input('upstream', { list: 'upstreams', placeholder: 'host, as the table lists it' });
    const model = input('model', { list: 'models' });
    const reason = input('reason', { maxlength: 500 });
    confirm('Pause an upstream?', [el('p', null, 'No call to this model is begun any more, for any job, until it is resumed.'),
      choices('upstreams', listed().map((u) => u.upstream)), choices('models', listed().map((u) => u.model)), field('Upstream', upstream), field('Model', model), field('Reason', reason)], 'Pause',
    () => post('/fanout/v1/upstreams/pause', { upstream: upstream.value.trim(), model: model.value.trim(), reason: reason.value.trim() }));
  }));
}
