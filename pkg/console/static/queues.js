// Queues: what they hold, and moving their dead letters back as they are.

import { get, post, remove } from './api.js';
import { ago, badge, button, confirm, count, duration, el, field, loading, plural, poll, sentence, show, table } from './dom.js';

const every = 2000;

export function queuesPage(main, { signal }) {
  const notice = el('div');
  const list = el('div', null, loading());
  show(main, el('h1', null, 'Queues'), el('p', { class: 'hint' }, 'Work goes through them from the top down. Numbers of a queue on AWS are approximate.'), notice, list);
  poll(signal, every, notice, async () => {
    const found = await get('/fanout/v1/queues', {}, signal);
    if (!signal.aborted) show(list, queuesTable(found.data));
  });
}

function queuesTable(queues) {
  const number = (title, key) => ({ title, class: 'number', cell: (q) => el('span', { class: q[key] > 0 ? '' : 'faint' }, count(q[key])) });
  return table([
    { title: 'Queue', class: 'main', cell: (q) => el('strong', null, q.id) },
    number('Waiting', 'waiting'), number('In flight', 'in_flight'), number('Delayed', 'delayed'),
    { title: 'Oldest', class: 'number', cell: (q) => (q.oldest_seconds === null ? el('span', { class: 'faint' }, '–') : duration(q.oldest_seconds)) },
    { title: 'Dead', class: 'number', cell: (q) => el('span', { class: q.dead > 0 ? 'bad' : 'faint' }, count(q.dead)) },
    { title: 'Last move', class: 'wide', cell: (q) => lastMove(q.moves[0]) },
    { title: 'Dead letters', cell: act },
  ], queues, (q) => q.id);
}

function lastMove(m) {
  if (!m) return el('span', { class: 'faint' }, 'none');
  return [badge(m.state), el('div', { class: 'sub' }, `${count(m.moved)} of about ${count(m.total)}, begun `, ago(m.began), m.why && `: ${sentence(m.why)}`)];
}

function act(q) {
  const path = `/fanout/v1/queues/${encodeURIComponent(q.id)}/move`;
  if (q.moves[0]?.state === 'running') {
    return button('Stop the move', () => confirm('Stop the move?', el('p', null, 'What was moved stays moved; the rest stays in the dead letters.'), 'Stop the move', () => remove(path)), { 'data-key': `stop ${q.id}` });
  }
  if (q.dead === 0) return el('span', { class: 'faint' }, 'none');
  return button('Move all back …', () => {
    const wrong = el('div', { id: 'wrong-rate', class: 'bad', role: 'alert' });
    const rate = el('input', { name: 'rate', type: 'number', min: 1, step: 1, placeholder: 'its own pace', 'aria-describedby': 'wrong-rate' });
    confirm(`Move the dead letters of ${q.id}?`, [
      el('p', null, `About ${plural(q.dead, 'letter')} would go back into the queue as they are, whatever they are. To choose among dead chunks, redrive them instead.`),
      el('div', null, field('Rate', rate, 'letters a second'), wrong)],
    'Move all back', () => {
      const whole = rate.validity.valid;
      show(wrong, !whole && 'The rate is a whole number from 1, or empty for the queue’s own pace.');
      rate.setAttribute('aria-invalid', !whole);
      if (!whole) {
        rate.focus();
        return false;
      }
      return post(path, rate.value ? { rate: Number(rate.value) } : {});
    });
  }, { 'data-key': `move ${q.id} ${q.dead}` });
}
