// Uses OpenAI's Node client as it comes from npm, and prints one line of JSON for each feature: its name, and what is wrong.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { createHash } from 'node:crypto'
import { createServer } from 'node:http'
const require = createRequire(process.env.CLIENT_PACKAGES + '/')
const { default: OpenAI, toFile, NotFoundError, AuthenticationError, BadRequestError } = require('openai')

const { BASE_URL, LOSSY_URL, API_KEY, LINES, REFUSED, SLOW } = process.env
const client = new OpenAI({ baseURL: BASE_URL, apiKey: API_KEY })
const upload = (text, name = 'input.jsonl') => toFile(Buffer.from(text), name).then(file => client.files.create({ file, purpose: 'batch' }))
const create = (input_file_id, more = {}) => client.batches.create({ input_file_id, endpoint: '/v1/chat/completions', completion_window: '24h', ...more })

async function ended(id) {
  for (let n = 0; n < 1200; n++) {
    const batch = await client.batches.retrieve(id)
    if (['completed', 'failed', 'expired', 'cancelled'].includes(batch.status)) return batch
    await new Promise(done => setTimeout(done, 50))
  }
  throw new Error(`batch ${id} does not end`)
}

async function walk(pages) {
  const ids = []
  for await (const object of pages) ids.push(object.id)
  return ids
}

const features = {
  async 'files: upload, retrieve, content, delete'() {
    const file = await upload(LINES)
    assert.equal((await client.files.retrieve(file.id)).bytes, LINES.length)
    assert.equal(await (await client.files.content(file.id)).text(), LINES)
    assert.equal((await client.files.delete(file.id)).deleted, true)
    await assert.rejects(client.files.retrieve(file.id), NotFoundError)
  },
  async 'files: upload that expires'() {
    const file = await client.files.create({ file: await toFile(Buffer.from('x'), 'x.jsonl'), purpose: 'batch', expires_after: { anchor: 'created_at', seconds: 3600 } })
    assert.equal(file.expires_at - file.created_at, 3600)
  },
  async 'files: list, three pages, both orders'() {
    const made = []
    for (let n = 0; n < 5; n++) made.push((await upload(LINES, `page-${n}.jsonl`)).id)
    const newest = (await walk(client.files.list({ limit: 2, purpose: 'batch' }))).slice(0, 5)
    assert.deepEqual(newest, made.toReversed())
    const oldest = await walk(client.files.list({ limit: 2, purpose: 'batch', order: 'asc' }))
    assert.deepEqual(oldest.slice(-5), made)
  },
  async 'uploads: parts, complete, cancel'() {
    const half = LINES.length >> 1
    const u = await client.uploads.create({ bytes: LINES.length, filename: 'parts.jsonl', mime_type: 'text/jsonl', purpose: 'batch' })
    const part = async text => (await client.uploads.parts.create(u.id, { data: await toFile(Buffer.from(text), 'part') })).id
    const second = await part(LINES.slice(half)), first = await part(LINES.slice(0, half))
    const done = await client.uploads.complete(u.id, { part_ids: [first, second], md5: createHash('md5').update(LINES).digest('hex') })
    assert.equal(done.status, 'completed')
    assert.equal(await (await client.files.content(done.file.id)).text(), LINES)
    const other = await client.uploads.create({ bytes: 1, filename: 'x', mime_type: 'text/jsonl', purpose: 'batch' })
    assert.equal((await client.uploads.cancel(other.id)).status, 'cancelled')
  },
  async 'batches: create, poll, read output and errors'() {
    const made = await create((await upload(LINES + REFUSED)).id, { metadata: { team: 'blue' }, output_expires_after: { anchor: 'created_at', seconds: 7200 } })
    assert.equal(made.status, 'validating')
    assert.equal(made.errors, null)
    const batch = await ended(made.id)
    assert.equal(batch.status, 'completed')
    assert.deepEqual(batch.metadata, { team: 'blue' })
    const n = LINES.trim().split('\n').length
    assert.deepEqual(batch.request_counts, { total: n + 1, completed: n, failed: 1 })
    assert.ok(batch.usage.total_tokens > 0 && batch.model)
    const output = (await (await client.files.content(batch.output_file_id)).text()).trim().split('\n').map(line => JSON.parse(line))
    assert.deepEqual(output.map(line => line.custom_id), LINES.trim().split('\n').map(line => JSON.parse(line).custom_id))
    assert.ok(output.every(line => line.response.status_code === 200 && line.response.request_id && line.error === null))
    const [failed] = (await (await client.files.content(batch.error_file_id)).text()).trim().split('\n').map(line => JSON.parse(line))
    assert.equal(failed.response.status_code, 400)
    const file = await client.files.retrieve(batch.output_file_id)
    assert.equal(file.purpose, 'batch_output')
    assert.equal(file.expires_at - file.created_at, 7200)
  },
  async 'batches: an invalid file fails with lines'() {
    const batch = await ended((await create((await upload('no JSON\n' + LINES)).id)).id)
    assert.equal(batch.status, 'failed')
    assert.equal(batch.errors.data[0].code, 'invalid_json_line')
    assert.equal(batch.errors.data[0].line, 1)
  },
  async 'batches: list, three pages'() {
    const file = await upload(LINES)
    const made = []
    for (let n = 0; n < 5; n++) made.push((await create(file.id)).id)
    const found = []
    for await (const batch of client.batches.list({ limit: 2 })) {
      found.push(batch.id)
      if (found.length === 5) break
    }
    assert.deepEqual(found, made.toReversed())
  },
  async 'batches: cancel'() {
    const made = await create((await upload(SLOW)).id)
    const cancelled = await client.batches.cancel(made.id)
    assert.ok(['cancelling', 'cancelled'].includes(cancelled.status))
    assert.equal((await ended(made.id)).status, 'cancelled')
  },
  async 'batches: a create whose answer is lost makes one batch'() {
    const lossy = new OpenAI({ baseURL: LOSSY_URL, apiKey: API_KEY })
    const file = await upload(LINES)
    const made = await lossy.batches.create({ input_file_id: file.id, endpoint: '/v1/chat/completions', completion_window: '24h' })
    const of = []
    for await (const batch of client.batches.list({ limit: 100 })) if (batch.input_file_id === file.id) of.push(batch.id)
    assert.deepEqual(of, [made.id])
  },
  async 'webhooks: unwrap verifies an event'() {
    const came = []
    let wake = () => {}
    const receiver = createServer(async (request, response) => {
      let body = ''
      for await (const piece of request) body += piece
      came.push({ body, headers: request.headers })
      response.end()
      wake()
    })
    await new Promise(done => receiver.listen(0, '127.0.0.1', done))
    const operate = async (method, path, body) => {
      const answer = await fetch(BASE_URL.replace(/\/v1$/, '/fanout/v1') + path, { method, body: JSON.stringify(body), headers: { Authorization: `Bearer ${API_KEY}`, 'Content-Type': 'application/json' } })
      assert.ok(answer.ok, `${method} ${path}: ${answer.status}`)
      return answer.json()
    }
    const hook = await operate('POST', '/hooks', { url: `http://127.0.0.1:${receiver.address().port}/`, events: ['batch.completed'] })
    try {
      const made = await create((await upload(LINES)).id)
      for (;;) {
        if (came.length === 0) await new Promise(done => (wake = done))
        const { body, headers } = came.shift()
        const event = await client.webhooks.unwrap(body, headers, hook.secret)
        if (event.data.id !== made.id) continue
        assert.equal(event.type, 'batch.completed')
        await assert.rejects(client.webhooks.unwrap(body + ' ', headers, hook.secret))
        break
      }
    } finally {
      await operate('DELETE', `/hooks/${hook.id}`)
      receiver.close()
    }
  },
  async 'errors: typed, and not repeated'() {
    await assert.rejects(client.batches.retrieve('batch_none'), NotFoundError)
    await assert.rejects(create('file-none'), error => error instanceof BadRequestError && error.param === 'input_file_id' && error.headers.get('x-should-retry') === 'false')
    await assert.rejects(new OpenAI({ baseURL: BASE_URL, apiKey: 'wrong' }).files.list(), AuthenticationError)
    await assert.rejects(client.batches.list({ after: 'batch_none' }), BadRequestError)
  },
  async 'models: list, retrieve'() {
    const ids = await walk(client.models.list())
    assert.ok(ids.length > 0)
    assert.equal((await client.models.retrieve(ids[0])).id, ids[0])
  },
}

for (const [feature, check] of Object.entries(features)) {
  let wrong = ''
  try {
    await check()
  } catch (error) {
    wrong = String(error.stack || error)
  }
  console.log(JSON.stringify({ feature, wrong }))
}
