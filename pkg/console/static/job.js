// One job: how far it is, what it costs, what fails, and its items.

import { download, get, jobPath, me, post } from './api.js';
import { ago, badge, bar, busy, button, code, confirm, count, duration, el, field, loading, money, plural, poll, sentence, show, table, time } from './dom.js';
import { itemsSection } from './items.js';
import { ended, stateOf } from './jobs.js';
import { Plot } from './plot.js';

const every = 2000;
const troublesEvery = 5000;
const recent = 60; // seconds that the throughput is taken from

export function jobPage(main, { id, signal }) {
  const notice = el('div');
  const trouble = el('div'); // what reading the troubles has met
  const pressed = el('div'); // what a download has
  const parts = { head: el('div', null, loading()), figures: el('div'), plot: el('div', { class: 'plot' }), files: el('div'), about: el('div'), troubles: el('div') };
  const plot = new Plot(parts.plot, signal);
  const seen = [];
  let fileName = ''; // of the input, once that is known
  show(main, el('p', { class: 'crumbs' }, el('a', { href: '#/jobs' }, '← Jobs')), notice, parts.head, parts.figures,
    el('section', { class: 'card' }, el('h2', null, 'Progress'), parts.plot), parts.troubles, itemsSection(id, signal),
    el('section', { class: 'card' }, el('h2', null, 'About'), parts.files, pressed, parts.about));

  const refresh = async () => {
    const job = await get(jobPath(id), {}, signal);
    if (signal.aborted) return undefined;
    note(seen, job);
    const points = merged(job, seen);
    show(parts.head, heading(job, act), stops(job));
    show(parts.figures, figures(job, points));
    show(parts.files, files(job, pressed));
    show(parts.about, about(job, fileName));
    plot.draw(points, job.request_counts.total);
    if (!me.operate) show(parts.troubles, errorCounts(job.fanout.errors));
    else if (!trouble.isConnected) show(parts.troubles, trouble); // a job that is not there has one notice, not two
    return job;
  };
  const named = async () => {
    const job = await refresh();
    if (!job || !me.read || !job.input_file_id?.startsWith('file-')) return;
    fileName = await get(`/v1/files/${encodeURIComponent(job.input_file_id)}`, {}, signal).then((f) => f.filename, () => ''); // another tenant's is not found
    if (fileName && !signal.aborted) show(parts.about, about(job, fileName));
  };
  // act does something to the job by hand, and shows what it is then.
  const act = async (path, json) => {
    await post(path, json);
    await refresh().catch(() => {}); // it is done; what is wrong with looking at it, the poll tells
  };
  let first = true;
  poll(signal, every, notice, async () => {
    if (!first) return void await refresh();
    await named();
    first = false;
    return undefined;
  });
  if (me.operate) {
    poll(signal, troublesEvery, trouble, async () => {
      const found = await get(jobPath(id, '/errors'), {}, signal);
      if (!signal.aborted) show(parts.troubles, troubles(id, found.data), trouble);
    });
  }
}

// note keeps where the job was when it was looked at, to the second.
function note(seen, job) {
  const at = Date.now() / 1000;
  const { completed, failed } = job.request_counts;
  const last = seen.at(-1);
  if (last && ended(job) && last.completed === completed && last.failed === failed) return;
  seen.push({ at, completed, failed });
  if (seen.length > 2000) seen.splice(1, 1);
}

// merged is what the server kept of the way, and what was seen since.
function merged(job, seen) {
  const kept = job.fanout.history;
  const points = job.in_progress_at ? [{ at: job.in_progress_at, completed: 0, failed: 0 }] : [];
  for (const p of kept) if (p.at >= (points[0]?.at ?? 0)) points.push(p);
  const since = points.at(-1)?.at ?? 0;
  const end = endOf(job);
  for (const p of seen) if (p.at > since && (!end || p.at <= end)) points.push(p);
  const { completed, failed } = job.request_counts;
  if (end && points.length > 0) points.push({ at: Math.max(end, since), completed, failed });
  return points;
}

function endOf(job) {
  return ended(job) ? job.completed_at ?? job.cancelled_at ?? job.expired_at ?? job.failed_at : null;
}

// paceOf is items a second: of late while it runs, on the whole when it has ended. Once it was stopped, items fail that were never
// asked, so only answers count.
function paceOf(job, points) {
  const last = points.at(-1);
  if (!last || points.length < 2) return null;
  const first = ended(job) ? points[0] : points.find((p) => p.at >= last.at - recent) ?? points[0];
  const took = last.at - first.at;
  const done = last.completed - first.completed + (stopping(job) ? 0 : last.failed - first.failed);
  if (took < 1) return ended(job) && done > 0 ? done : null;
  return done / took;
}

// stopping tells whether a job ends, or has ended, before all its items were asked.
function stopping(job) {
  return job.fanout.stop !== null || ['cancelling', 'cancelled', 'expired'].includes(job.status);
}

function heading(job, act) {
  const cancel = (me.submit || me.operate) && !ended(job) && job.status !== 'cancelling';
  const hold = me.operate && ['validating', 'in_progress'].includes(job.status);
  return [
    el('div', { class: 'heading' },
      el('div', null, el('h1', { class: 'id' }, code(job.id)),
        el('p', { class: 'sub' }, badge(stateOf(job)), ' ', [job.model ?? 'several models', me.operate && `tenant ${job.fanout.tenant}`].filter(Boolean).join(' · '), ' · made ', ago(job.created_at))),
      el('div', { class: 'actions' },
        hold && !job.fanout.pause && button('Pause', () => pauseDialog(job, act)),
        me.operate && job.fanout.pause && !ended(job) && button('Resume', () => resumeDialog(job, act), { class: 'primary', 'data-key': `resume ${job.fanout.pause.at} ${job.fanout.pause.message}` }),
        cancel && button('Cancel job', () => cancelDialog(job, act), { class: 'danger' }))),
    el('div', { class: 'progress' }, bar(job.request_counts),
      el('p', { class: 'sub' }, `${count(job.request_counts.completed + job.request_counts.failed)} of ${plural(job.request_counts.total, 'item')}`)),
  ];
}

function stops(job) {
  const { pause, stop } = job.fanout;
  return [
    pause && !ended(job) && el('p', { class: 'notice held', role: 'status' }, el('strong', null, 'Paused'), ` (${pause.reason.replaceAll('_', ' ')}) `, ago(pause.at), `: ${sentence(pause.message)}`),
    stop && el('p', { class: 'notice bad', role: 'status' }, el('strong', null, 'Stopped'), ` (${stop.code}) `, ago(stop.at), `: ${sentence(stop.reason)}`),
    job.errors?.data?.length > 0 && el('div', { class: 'notice bad' }, el('p', null, el('strong', null, 'The input breaks the rules.')),
      el('ul', null, job.errors.data.slice(0, 20).map((e) => el('li', null, e.line !== null && `Line ${count(e.line)}: `, sentence(e.message)))),
      job.errors.data.length > 20 && el('p', null, `And ${count(job.errors.data.length - 20)} more.`)),
  ];
}

function figures(job, points) {
  const { total, completed, failed } = job.request_counts;
  const left = total - completed - failed;
  const pace = paceOf(job, points);
  const f = job.fanout;
  const at = endOf(job);
  const all = [
    ['Answered', count(completed), 'good'],
    ['Failed', count(failed), failed > 0 ? 'bad' : ''],
    ended(job) ? null : ['Still open', count(left)],
    ['Throughput', pace === null ? '–' : `${pace < 10 ? pace.toFixed(1) : count(Math.round(pace))} /s`],
    ended(job) ? ['Took', at && job.in_progress_at ? (at > job.in_progress_at ? duration(at - job.in_progress_at) : 'under 1 s') : '–'] : ['Time left', f.pause ? 'paused' : pace > 0 && left > 0 && !stopping(job) ? `about ${duration(left / pace)}` : '–'],
    ['Latency p50, p90, p99', f.latency ? spread(f.latency) : '–'],
    ['Tokens in / out', `${count(job.usage.input_tokens)} / ${count(job.usage.output_tokens)}`],
    f.cost_usd !== null || f.max_cost_usd !== null ? ['Cost', money(f.cost_usd ?? 0) + (f.max_cost_usd !== null ? ` of ${money(f.max_cost_usd)}` : '')] : null,
    f.dead > 0 ? ['Dead chunks', me.operate ? el('a', { href: `#/dead?job=${encodeURIComponent(job.id)}` }, count(f.dead)) : count(f.dead), 'bad'] : null,
    f.parked > 0 ? ['Parked chunks', count(f.parked)] : null,
  ];
  return el('dl', { class: 'figures' }, all.filter(Boolean).map(([name, value, look]) => el('div', { class: look }, el('dt', null, name), el('dd', null, value))));
}

// spread writes three times in the unit that suits the longest.
function spread({ p50, p90, p99 }) {
  const all = [p50, p90, p99];
  if (p99 < 1) return `${all.map((s) => Math.round(s * 1000)).join(' / ')} ms`;
  return `${all.map((s) => s.toFixed(p99 < 100 ? 1 : 0)).join(' / ')} s`;
}

// files are the buttons that save what has come of the job.
function files(job, pressed) {
  if (!job.output_file_id && !job.error_file_id) return null;
  const file = (id, name, label) => id && el('li', null, button(label, (e) => busy(e.currentTarget, pressed, () => fetchFile(job, id, name)), { 'data-key': id }));
  return el('ul', { class: 'actions files' }, file(job.output_file_id, `${job.id}.output.jsonl`, 'Download answers'), file(job.error_file_id, `${job.id}.errors.jsonl`, 'Download errors'));
}

function about(job, fileName) {
  const moment = (name, at) => at && [el('dt', null, name), el('dd', null, time(at))];
  const pairs = Object.entries(job.metadata ?? {});
  const job_ = (id) => el('a', { href: `#/jobs/${encodeURIComponent(id)}` }, code(id));
  return el('dl', { class: 'about' },
    el('dt', null, 'Endpoint'), el('dd', null, code(job.endpoint)),
    el('dt', null, 'Input'), el('dd', null, fileName && [fileName, ' '], el('span', { class: 'faint' }, code(job.input_file_id))),
    el('dt', null, 'Tenant'), el('dd', null, job.fanout.tenant),
    job.fanout.parent && [el('dt', null, 'Failed items of'), el('dd', null, job_(job.fanout.parent))],
    job.fanout.children.length > 0 && [el('dt', null, 'Asked again in'), el('dd', null, job.fanout.children.map((c) => [job_(c), ' ']))],
    moment('Made', job.created_at), moment('Began', job.in_progress_at), moment('Ended', endOf(job)), !ended(job) && moment('Ends at the latest', job.expires_at),
    pairs.map(([key, value]) => [el('dt', { class: 'given' }, key), el('dd', null, value)]));
}

async function fetchFile(job, id, name) {
  try {
    await download(id, name);
  } catch (err) {
    if (err.status !== 404 && err.status !== 403) throw err;
    throw new Error(`Your key does not reach this file: it belongs to the tenant ${job.fanout.tenant}, and keys read the files of their own.`);
  }
}

// troubles are the groups that operators see: with samples, and what is in the dead letters.
function troubles(id, groups) {
  if (groups.length === 0) return null;
  return el('section', { class: 'card' }, el('h2', null, 'What fails'), table([
    { title: 'Error', class: 'main', cell: (t) => [code(t.code), t.status !== null && el('span', { class: 'faint' }, ` HTTP ${t.status}`), el('div', { class: 'sub' }, t.message)] },
    { title: 'Failed', class: 'number', cell: (t) => count(t.failed) },
    { title: 'Open', class: 'number', cell: (t) => count(t.open) },
    { title: 'Dead', class: 'number', cell: (t) => (t.dead > 0 ? el('a', { href: `#/dead?${new URLSearchParams({ job: id })}` }, count(t.dead)) : count(0)) },
    { title: 'For example', cell: (t) => el('ul', { class: 'plain' }, t.samples.map((s) => el('li', null, code(s.custom_id), el('span', { class: 'faint' }, ` line ${count(s.line)}`)))) },
  ], groups, (t) => t.code + t.message));
}

function errorCounts(groups) {
  if (groups.length === 0) return null;
  return el('section', { class: 'card' }, el('h2', null, 'What fails'), table([
    { title: 'Error', class: 'main', cell: (t) => [code(t.code), el('div', { class: 'sub' }, t.message)] },
    { title: 'Items', class: 'number', cell: (t) => count(t.count) },
  ], groups, (t) => t.code + t.message));
}

function pauseDialog(job, act) {
  const reason = el('input', { name: 'reason', maxlength: 500, autocomplete: 'off', placeholder: 'What others should know' });
  confirm('Pause this job?', [el('p', null, 'Within five seconds nothing of it is begun any more. Its time runs on.'), field('Reason', reason)], 'Pause',
    () => act(jobPath(job.id, '/pause'), { reason: reason.value.trim() }));
}

function resumeDialog(job, act) {
  confirm('Resume this job?', el('p', null, `It was paused: ${sentence(job.fanout.pause.message)}`), 'Resume', () => act(jobPath(job.id, '/resume'), {}));
}

function cancelDialog(job, act) {
  confirm('Cancel this job?', el('p', null, 'What is in flight is finished, what was answered is kept, and the rest is never asked. This cannot be undone.'), 'Cancel job',
    () => act(jobPath(job.id, '/cancel'), {}), 'danger');
}
