// Lets the openai package of npm speak a text into a file. Prints what an application would have seen, as JSON.
// Reads OPENAI_BASE_URL, OPENAI_API_KEY (as the package itself does), TEXT and OUTPUT.
'use strict'

const { createWriteStream } = require('node:fs')
const { Readable } = require('node:stream')
const { pipeline } = require('node:stream/promises')
const { OpenAI } = require('openai')

async function main() {
  const openai = new OpenAI({ maxRetries: 0 })
  const wanted = { model: 'auto', voice: 'alloy', input: process.env.TEXT, response_format: 'wav', speed: 1.25 }
  const spoken = await openai.audio.speech.create(wanted)
  await pipeline(Readable.fromWeb(spoken.body), createWriteStream(process.env.OUTPUT))
  let refused
  try {
    await openai.audio.speech.create({ ...wanted, input: '   ' })
  } catch (error) {
    refused = { status: error.status, kind: error.constructor.name }
  }
  const header = name => spoken.headers.get(name)
  process.stdout.write(JSON.stringify({
    type: header('content-type'),
    units: header('x-airi-billed-units'),
    timing: header('server-timing'),
    refused,
  }))
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
