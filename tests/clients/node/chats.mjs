// Two devices of one user and one of another, each with the eventa package as AIRI's client sets it up. Prints what they
// saw, as JSON. Arguments: the package. Environment: WS_URLS (one or two servers, with spaces between), ALICE, BOB, CHAT.
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const [, , library] = process.argv
const require = createRequire(`${process.env.NODE_PATH}/`)
const from = async path => import(pathToFileURL(`${process.env.NODE_PATH}/${library}/dist/${path}`).href)
const WebSocket = require('ws')
const { defineEventa, defineInvoke, defineInvokeEventa } = await from('index.mjs')
const { createContext, wsConnectedEvent } = await from('adapters/websocket/native/index.mjs')

// A push that never comes would be waited for without end.
setTimeout(() => process.exit(2), 20_000)

const sendMessages = defineInvokeEventa('chat:send-messages')
const pullMessages = defineInvokeEventa('chat:pull-messages')
const newMessages = defineEventa('chat:new-messages')
const chatId = process.env.CHAT
const [here, there = here] = process.env.WS_URLS.split(' ')

async function device(url, token) {
  const socket = new WebSocket(`${url}/ws/chat?token=${token}`)
  const { context } = createContext(socket)
  const heard = []
  let wake = () => {}
  context.on(newMessages, (event) => {
    heard.push(event.body)
    wake()
  })
  await new Promise((resolve, reject) => {
    context.on(wsConnectedEvent, () => resolve())
    socket.addEventListener('error', reject)
  })
  return {
    socket,
    heard,
    send: messages => defineInvoke(context, sendMessages)({ chatId, messages }),
    pull: afterSeq => defineInvoke(context, pullMessages)({ chatId, afterSeq }),
    until: async (toSeq) => {
      while (!heard.some(push => push.toSeq >= toSeq)) {
        await new Promise((resolve) => { wake = resolve })
      }
    },
  }
}

const texts = messages => messages.map(({ seq, role, content }) => `${seq} ${role} ${content}`)
const closed = socket => new Promise(resolve => socket.addEventListener('close', resolve))

const [phone, desk, bob] = await Promise.all([
  device(here, process.env.ALICE), device(there, process.env.ALICE), device(there, process.env.BOB),
])
const said = {}
said.empty = await desk.pull(0)
said.sent = await phone.send([
  { id: 'm-1', role: 'user', content: 'hello' },
  { id: 'm-2', role: 'assistant', content: 'hi there' },
])
await Promise.all([desk.until(2), bob.until(2)])
said.pushed = [desk, bob].map(({ heard }) => heard.map(push => texts(push.messages)))
said.own = phone.heard.length

// The desk goes away, misses three messages, comes back and catches up from what it had.
const gone = closed(desk.socket)
desk.socket.close()
await gone
for (const n of [3, 4, 5]) {
  await bob.send([{ id: `m-${n}`, role: 'user', content: `word ${n}` }])
}
const again = await device(there, process.env.ALICE)
const page = await again.pull(2)
said.caughtUp = { messages: texts(page.messages), seq: page.seq, hasMore: page.hasMore }
await phone.send([{ id: 'm-6', role: 'user', content: 'welcome back' }])
await again.until(6)
said.afterwards = again.heard.map(push => texts(push.messages))

said.refused = await again.send([{ id: 'm-7', role: 'wizard', content: '' }]).catch(error => error)
said.refused = JSON.parse(JSON.stringify(said.refused.error ?? said.refused))
const stranger = new WebSocket(`${here}/ws/chat?token=nobody`)
const { code, reason } = await closed(stranger)
said.stranger = { code, reason }

for (const { socket } of [phone, bob, again]) {
  socket.close()
}
console.log(JSON.stringify(said))
process.exit(0)
