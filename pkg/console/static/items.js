// The items of a job that have an outcome: page by page, or one by its custom id.

import { jobPath, request, withQuery } from './api.js';
import { badge, button, busy, code, count, el, empty, field, show } from './dom.js';

const page = 50;
const longest = 100_000; // characters of a payload that are shown

const endings = {
  more: '', complete: 'These are all.',
  pending: 'What comes next in the input has no outcome yet.',
};

export function itemsSection(id, signal) {
  const path = jobPath(id, '/results');
  const notice = el('div');
  const list = el('div', { tabindex: -1 }, empty('Press “Show items” to read the results that are there.'));
  const status = el('select', { name: 'status' }, [['', 'Any'], ['completed', 'Answered'], ['failed', 'Failed']].map(([value, label]) => el('option', { value }, label)));
  const search = el('input', { name: 'custom_id', type: 'search', placeholder: 'custom id', autocomplete: 'off', spellcheck: 'false' });
  const go = el('button', { type: 'submit' }, 'Show items');
  let way = ['']; // cursors of the pages so far
  let which = ''; // outcomes that they are of

  const read = async (query) => {
    const answer = await request(withQuery(path, query), { signal });
    const lines = (await answer.text()).split('\n').filter(Boolean).map((line) => JSON.parse(line));
    return { lines, after: answer.headers.get('Fanout-Results-After'), state: answer.headers.get('Fanout-Results-State') };
  };
  const turn = async (control, cursors) => busy(control, notice, async () => {
    const after = cursors.at(-1);
    if (cursors.length === 1) which = status.value;
    const asked = which;
    const found = await read({ limit: page, after, status: asked });
    way = cursors;
    show(list);
    show(list,
      found.lines.length > 0 ? rows(found.lines, (line, n) => whole(line, n, after, asked)) : empty(way.length > 1 ? 'There is nothing on this page.' : 'Nothing has such an outcome yet.'),
      el('div', { class: 'actions' }, way.length > 1 && button('Previous', (e) => turn(e.currentTarget, way.slice(0, -1))),
        found.state === 'more' && button('Next', (e) => turn(e.currentTarget, [...way, found.after])),
        found.state === 'pending' && button('Look again', (e) => turn(e.currentTarget, way)),
        el('span', { class: 'hint' }, `Page ${count(way.length)}. ${endings[found.state] ?? ''}`)));
    if (!control.isConnected) list.focus({ preventScroll: true }); // the button that was pressed is gone
  });
  // whole reads the line that is number n of a page, from 0, with its input. Custom ids do not find it: some lines have none,
  // and some have one that is another's.
  const whole = async (line, n, after, asked) => {
    let at = after;
    for (let left = n; left > 0;) {
      const before = await read({ limit: left, after: at, status: asked });
      if (before.lines.length === 0) return undefined;
      left -= before.lines.length;
      at = before.after;
    }
    return same(line, await read({ limit: 1, after: at, status: asked, include: 'input' }));
  };
  const find = (control, custom) => busy(control, notice, async () => {
    show(list, empty('Searching …'));
    const asked = status.value;
    let after = '';
    for (;;) {
      const from = after;
      const found = await read({ custom_id: custom, after, status: asked });
      if (found.lines.length > 0) {
        show(list, rows(found.lines, async (line) => same(line, await read({ custom_id: custom, include: 'input', after: from, status: asked }))));
        return;
      }
      if (found.state !== 'more') {
        show(list, empty(found.state === 'pending' ? 'No item up to the first open one has this custom id.' : 'No item with such an outcome has this custom id.'));
        return;
      }
      after = found.after;
    }
  });
  return el('section', { class: 'card' }, el('h2', null, 'Items'),
    el('form', { class: 'filter', on: { submit: (e) => { e.preventDefault(); search.value ? find(go, search.value) : turn(go, ['']); } } },
      field('Outcome', status), field('Custom id', search), go),
    notice, list);
}

// same is the line that was read again, if it is that one: a redrive may have given it, or one before it, another outcome.
function same(line, { lines: [found] }) {
  return found?.id === line.id ? found : undefined;
}

// rows shows results without their payloads: what people have asked is nobody's business until somebody needs to see it.
function rows(lines, whole) {
  return el('ol', { class: 'items' }, lines.map((line, n) => row(line, () => whole(line, n))));
}

function row(line, whole) {
  const failed = line.error !== null || (line.response?.status_code ?? 200) >= 400;
  const error = line.error ?? line.response?.body?.error;
  const payload = el('div', { class: 'payload' });
  const notice = el('div');
  const toggle = button('Show', () => {
    if (payload.childNodes.length > 0) {
      show(payload);
      toggle.textContent = 'Show';
      toggle.setAttribute('aria-expanded', 'false');
      return undefined;
    }
    return busy(toggle, notice, async () => {
      const found = await whole();
      if (!found) throw new Error('The item is not at its place any more: outcomes have changed since. Show the items again.');
      show(payload, part('Question', found.input?.body ?? found.input), part('Answer', found.response?.body ?? found.error));
      toggle.textContent = 'Hide';
      toggle.setAttribute('aria-expanded', 'true');
    });
  }, { class: 'small', 'aria-expanded': 'false', 'aria-label': `Show or hide what was asked and answered in ${line.custom_id || 'an item without a custom id'}` });
  const used = line.response?.body?.usage?.total_tokens;
  return el('li', null,
    el('div', { class: 'item' }, line.custom_id ? code(line.custom_id) : el('span', { class: 'faint' }, 'no custom id'), badge(failed ? 'failed' : 'answered'),
      failed && error && el('span', { class: 'sub why' }, error.code && code(error.code), ' ', error.message),
      !failed && Number.isFinite(used) && el('span', { class: 'faint' }, `${count(used)} tokens`), toggle),
    notice, payload);
}

function part(title, body) {
  const text = textOf(body);
  const raw = body === undefined || body === null ? 'There is none.' : JSON.stringify(body, null, 2);
  return el('div', { class: 'part' }, el('h3', null, title), text && el('p', { class: 'said' }, cut(text)),
    text ? el('details', null, el('summary', null, 'JSON'), el('pre', null, cut(raw))) : el('pre', null, cut(raw)));
}

// textOf is what was said in a chat completion or its request, where that is plain to see.
function textOf(body) {
  const said = body?.choices?.[0]?.message?.content ?? body?.messages?.at?.(-1)?.content;
  return typeof said === 'string' ? said : '';
}

function cut(text) {
  return text.length > longest ? `${text.slice(0, longest)}\n… and ${count(text.length - longest)} characters more` : text;
}
