// Runs one of the servers: node -e SCRIPT NAME PORT, where they are installed. Wherever the server asks to listen, it is given
// descriptor 3: a socket that the test process has bound to PORT of 127.0.0.1. So none can listen elsewhere, and nobody takes
// the port first.
'use strict'
const net = require('node:net')

const listen = net.Server.prototype.listen
net.Server.prototype.listen = function (...args) {
  return listen.call(this, { fd: 3 }, args.find((arg) => typeof arg === 'function'))
}

// A client that is killed in the middle of a request is no reason to end: dynalite throws what it is told of that.
const { IncomingMessage } = require('node:http')
const emit = IncomingMessage.prototype.emit
IncomingMessage.prototype.emit = function (event, ...args) {
  if (event === 'error' && args[0]?.code === 'ECONNRESET') return false
  return emit.call(this, event, ...args)
}

const start = {
  // A table or queue that a test has dropped is gone at once, and a new one is there.
  dynalite: (port) => require('dynalite')({ createTableMs: 0, updateTableMs: 0, deleteTableMs: 0 }).listen(port),
  fauxqs: async (port) => (await import('fauxqs')).startFauxqs({ port, logger: false }),
  'local-aws-sqs': (port) => require('local-aws-sqs').createSqsServer({ port, hostname: '127.0.0.1' })
}

const [name, port] = process.argv.slice(1)
Promise.resolve(start[name](Number(port))).catch((err) => {
  console.error(err)
  process.exit(1)
})
