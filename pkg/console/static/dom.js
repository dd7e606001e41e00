// Building pages. Text from anywhere becomes text nodes and attributes of fixed names, never markup.

// el makes an element. `on` holds listeners; an attribute that is false or null is left out. A listener stays with its element
// when a page is redrawn, so an element with listeners needs a data-key that says what it acts on.
export function el(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value === false || value === null || value === undefined) continue;
    if (key === 'on') {
      for (const [type, listener] of Object.entries(value)) node.addEventListener(type, listener);
    } else {
      node.setAttribute(key, value === true ? '' : value);
    }
  }
  node.append(...nodes(children));
  return node;
}

function svg(name, attributes, ...children) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function nodes(children) {
  return children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false).map((c) => (c instanceof Node ? c : document.createTextNode(String(c))));
}

// show makes these the children of parent. What is alike stays, with its focus, selection and listeners: by its data-key if it
// has one, else by its place. The focus of what goes is handed to what is there now.
export function show(parent, ...children) {
  const focused = document.activeElement;
  const fresh = nodes(children);
  const wanted = new Set(fresh.map(keyOf));
  const known = new Map([...parent.childNodes].filter(keyOf).map((node) => [keyOf(node), node]));
  let at = parent.firstChild;
  for (const node of fresh) {
    while (at && keyOf(at) && !wanted.has(keyOf(at))) at = drop(at);
    const key = keyOf(node);
    const same = key && known.get(key);
    known.delete(key);
    if (same && same !== at) {
      parent.insertBefore(same, at);
      morph(same, node);
    } else if (!at || keyOf(at) !== key) {
      parent.insertBefore(node, at);
    } else {
      const next = at.nextSibling;
      morph(at, node);
      at = next;
    }
  }
  while (at) at = drop(at);
  if (focused && !focused.isConnected) refocus(parent);
}

// refocus puts a focus that nothing has any more on the first control of a place, if there is one.
function refocus(place) {
  if (document.activeElement === document.body) place.querySelector('a[href], button, input, select, textarea, summary')?.focus({ preventScroll: true });
}

function toContent() {
  if (document.activeElement === document.body) document.getElementById('main').focus({ preventScroll: true });
}

const keyOf = (node) => node.dataset?.key;

function drop(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

function morph(old, fresh) {
  if (old === fresh || old.isEqualNode(fresh)) return;
  const alike = old.nodeName === fresh.nodeName && old.dataset?.key === fresh.dataset?.key && old instanceof Element;
  if (!alike) {
    old.replaceWith(fresh);
    return;
  }
  if (old.ariaBusy === 'true') return;
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== 'open') old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  show(old, ...fresh.childNodes);
}

// poll calls f now and every so often while the page is visible, until the signal. What goes wrong is shown in notice, and what is
// beside it does not load any more.
export async function poll(signal, every, notice, f) {
  while (!signal.aborted) {
    try {
      const goOn = await f();
      if (signal.aborted) return;
      show(notice);
      if (goOn === false) return;
    } catch (err) {
      if (signal.aborted) return;
      show(notice, problem(err));
      notice.parentElement?.querySelector('.loading')?.remove();
    }
    await pause(every, signal);
    await visible(signal);
  }
}

// pause waits; the signal ends it early.
export function pause(ms, signal) {
  return new Promise((done) => {
    const timer = setTimeout(done, ms);
    signal?.addEventListener('abort', () => { clearTimeout(timer); done(); }, { once: true });
  });
}

function visible(signal) {
  if (!document.hidden) return Promise.resolve();
  return new Promise((done) => {
    const look = () => { if (!document.hidden) end(); };
    const end = () => { document.removeEventListener('visibilitychange', look); done(); };
    document.addEventListener('visibilitychange', look);
    signal.addEventListener('abort', end, { once: true });
  });
}

// sentence is what went wrong, as a sentence.
export function sentence(err) {
  const text = String(err?.message ?? err);
  return /[.!?]$/.test(text) ? text : text + '.';
}

// problem is what went wrong, with a button to put it away if there is a way to do that.
export function problem(err, dismiss) {
  if (!dismiss) return el('p', { class: 'notice bad', role: 'alert' }, sentence(err));
  return el('div', { class: 'notice bad' }, el('p', { role: 'alert' }, sentence(err)), button('Dismiss', dismiss, { class: 'small' }));
}

export function good(...children) {
  return el('p', { class: 'notice good', role: 'status' }, children);
}

export function empty(...children) {
  return el('p', { class: 'empty' }, children);
}

export function loading() {
  return el('p', { class: 'empty loading' }, 'Loading …');
}

export function button(label, act, attributes) {
  return el('button', { type: 'button', 'data-key': label, ...attributes, on: { click: act } }, label);
}

export function field(label, input, hint) {
  return el('label', { class: 'field' }, el('span', { class: 'label' }, label), input, hint && el('span', { class: 'hint' }, hint));
}

// busy runs what a button does, which does nothing more meanwhile; were it disabled it would lose the focus. What goes wrong is
// shown in notice until the next press or until it is dismissed, so no poll may have the same one. A form or a dialog goes away
// itself, and shows no button for that.
export async function busy(control, notice, f) {
  if (control.ariaBusy === 'true') return undefined;
  control.ariaBusy = 'true';
  control.ariaDisabled = 'true';
  show(notice);
  try {
    return await f();
  } catch (err) {
    show(notice, problem(err, !notice.closest('form, dialog') && (() => { show(notice); control.focus(); })));
    return undefined;
  } finally {
    control.ariaBusy = null;
    control.ariaDisabled = null;
    if (!control.isConnected) toContent();
  }
}

// table has columns [{title, class, cell(row)}]. On a narrow screen each row is a card, whose cells carry their titles.
export function table(columns, rows, key) {
  return el('div', { class: 'table' }, el('table', null,
    el('thead', null, el('tr', null, columns.map((c) => el('th', { scope: 'col', class: c.class }, c.title)))),
    el('tbody', null, rows.map((row) => el('tr', { 'data-key': key(row) },
      columns.map((c) => el('td', { class: c.class, 'data-title': c.title }, c.cell(row))))))));
}

// dialog shows a modal dialog; closed is called when it is left, however. The focus goes back to what has opened it, or to what
// stands there by then.
export function dialog(title, content, closed) {
  const place = document.activeElement.parentElement;
  const box = el('dialog', { 'aria-labelledby': 'dialog-title' }, el('h2', { id: 'dialog-title' }, title), content);
  box.addEventListener('close', () => {
    box.remove();
    closed?.();
    if (place?.isConnected) refocus(place);
    toContent();
  });
  document.body.append(box);
  box.showModal();
  return box;
}

// confirm asks before something is done. It resolves when the dialog is closed; act does it, and may show its progress in
// the notice. The dialog stays open with the problem if act fails, and as it is if act returns false. Enter in a field is the
// press of the button.
export function confirm(title, content, label, act, style = 'primary') {
  return new Promise((done) => {
    const notice = el('div');
    const go = el('button', { type: 'submit', class: style }, label);
    const form = el('form', { novalidate: true, on: { submit: (e) => {
      e.preventDefault();
      busy(go, notice, async () => { if ((await act()) !== false) box.close(); });
    } } }, content, notice, el('div', { class: 'actions' }, button('Never mind', () => box.close()), go));
    const box = dialog(title, form, done);
  });
}

// Words for values.

const numbers = new Intl.NumberFormat('en');
export const count = (n) => numbers.format(n ?? 0);
export const plural = (n, one, many = one + 's') => `${count(n)} ${n === 1 ? one : many}`;
export const money = (usd) => '$' + (usd !== 0 && usd < 1 ? usd.toFixed(4) : usd.toFixed(2));

export function duration(s) {
  s = Math.max(0, Math.round(s));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 48 * 3600) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
}

// ago is how long ago a Unix time was, roughly, so that a list does not flicker.
export function ago(at) {
  if (!at) return '–';
  const s = Math.max(0, Date.now() / 1000 - at);
  let text = 'just now';
  if (s >= 86400 * 2) text = `${Math.floor(s / 86400)} d ago`;
  else if (s >= 3600) text = `${Math.floor(s / 3600)} h ago`;
  else if (s >= 60) text = `${Math.floor(s / 60)} min ago`;
  else if (s >= 10) text = `${Math.floor(s / 10) * 10} s ago`;
  return time(at, text);
}

export function time(at, text) {
  const when = new Date(at * 1000);
  const full = when.toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'medium' });
  return el('time', { datetime: when.toISOString(), title: full }, text ?? full);
}

const looks = {
  completed: 'good', answered: 'good', delivered: 'good', ok: 'good',
  failed: 'bad', expired: 'bad', refused: 'bad', dead: 'bad', failing: 'bad',
  paused: 'held', cancelling: 'held', stopped: 'held', waiting: 'held', held: 'held',
  cancelled: 'off',
};

// badge is a state: a word, with a colour that only repeats it.
export function badge(state) {
  return el('span', { class: `badge ${looks[state] ?? 'busy'}` }, state.replaceAll('_', ' '));
}

// bar shows what of total was answered and what has failed.
export function bar({ total, completed, failed }) {
  const part = (n) => (total > 0 ? (100 * n) / total : 0);
  const done = Math.floor(part(completed + failed));
  return el('div', { class: 'bar', role: 'progressbar', 'aria-label': 'Progress', 'aria-valuemin': 0, 'aria-valuemax': 100, 'aria-valuenow': done },
    svg('svg', { viewBox: '0 0 100 1', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
      svg('rect', { class: 'answered', width: part(completed), height: 1 }),
      svg('rect', { class: 'failed', x: part(completed), width: part(failed), height: 1 })));
}

export function code(text) {
  return el('code', null, text);
}
