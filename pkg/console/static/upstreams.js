// Upstreams: who answers, how many calls each gets, and holding one.

import { get, post } from './api.js';
import { ago, badge, button, code, confirm, count, el, empty, field, poll, sentence, show, table } from './dom.js';

const every = 2000;

export function upstreamsPage(main, { signal }) {
  const notice = el('div');
  const list = el('div', null, empty('Loading …'));
  show(main, el('h1', null, 'Upstreams'), el('p', { class: 'hint' }, 'Each model of an upstream that has been paused, throttled or has failed. One that has never been in trouble is not listed.'), notice, list);
  poll(signal, every, notice, async () => {
    const found = await get('/fanout/v1/upstreams', {}, signal);
    if (!signal.aborted) show(list, found.data.length > 0 ? upstreamsTable(found.data) : empty('No upstream is in any trouble.'), pauseAnother());
  });
}

function stateOf(u) {
  if (u.pause) return 'paused';
  return u.failing_since === null ? 'answering' : 'failing';
}

function upstreamsTable(upstreams) {
  return table([
    { title: 'Model', class: 'main', cell: (u) => [code(u.model), el('div', { class: 'sub' }, u.upstream)] },
    { title: 'State', class: 'wide', cell: (u) => [badge(stateOf(u)), u.pause && el('div', { class: 'sub' }, ago(u.pause.at), `: ${sentence(u.pause.message)}`), u.failing_since !== null && el('div', { class: 'sub' }, 'Failing since ', ago(u.failing_since), u.why && `: ${sentence(u.why)}`)] },
    { title: 'Calls at once', class: 'number', cell: (u) => (u.width === null ? el('span', { class: 'faint' }, 'no limit of its own') : count(u.width)) },
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

// pauseAnother holds one that is not listed.
function pauseAnother() {
  const input = (name, attributes) => el('input', { name, autocomplete: 'off', spellcheck: 'false', maxlength: 200, ...attributes });
  return el('p', { class: 'actions' }, button('Pause another …', () => {
    const upstream = input('upstream', { placeholder: 'as jobs name it, such as builtin' });
    const model = input('model');
    const reason = input('reason', { maxlength: 500 });
    confirm('Pause an upstream?', [el('p', null, 'No call to this model is begun any more, for any job, until it is resumed.'), field('Upstream', upstream), field('Model', model), field('Reason', reason)], 'Pause',
      () => post('/fanout/v1/upstreams/pause', { upstream: upstream.value.trim(), model: model.value.trim(), reason: reason.value.trim() }));
  }));
}
