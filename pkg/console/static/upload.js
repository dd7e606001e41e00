// Bringing a file: in one piece, or in parts if it is too large for a front door.

import { post, Refusal, request } from './api.js';
import { pause, sentence } from './dom.js';

const least = 4 << 20; // bytes of a part: with the form around it, in base64, it stays below the 6 MB that a function is called with
const parts = 1000; // of an upload at most, as the server has it
const tries = 3; // of what may do better later

// bring makes a file of the API of one that was chosen, and returns its id. told learns how many bytes are there. Whoever ends
// it by the signal leaves no parts behind.
export async function bring(file, signal, told) {
  if (file.size <= least) {
    const form = new FormData();
    form.set('purpose', 'batch');
    form.set('file', file, file.name);
    return (await send('/v1/files', form, signal)).id;
  }
  const size = Math.max(least, Math.ceil(file.size / parts));
  const upload = await post('/v1/uploads', { bytes: file.size, filename: file.name, mime_type: 'application/jsonl', purpose: 'batch' }, signal);
  const path = `/v1/uploads/${encodeURIComponent(upload.id)}`;
  try {
    const ids = [];
    for (let at = 0; at < file.size; at += size) {
      told(at);
      const form = new FormData();
      form.set('data', file.slice(at, at + size), file.name);
      ids.push((await again(signal, () => send(`${path}/parts`, form, signal))).id);
    }
    told(file.size);
    return (await again(signal, () => post(`${path}/complete`, { part_ids: ids }, signal))).file.id; // twice is once
  } catch (err) {
    post(`${path}/cancel`).catch(() => {}); // it expires within the hour anyway
    if (size === least || signal.aborted) throw err;
    throw new Error(`${sentence(err)} A front door may take no parts of this size; “fanout file put” needs none.`);
  }
}

async function send(path, form, signal) {
  return (await request(path, { method: 'POST', form, signal })).json();
}

// again tries once more, a little later, what was lost on the way or refused for now.
async function again(signal, f) {
  for (let n = 1; ; n++) {
    try {
      return await f();
    } catch (err) {
      if (n === tries || signal.aborted || (err instanceof Refusal && err.status < 500 && err.status !== 429)) throw err;
    }
    await pause(n * 1000, signal);
  }
}
