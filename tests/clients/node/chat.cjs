// One conversation through the openai package of npm. Prints what an application would have seen, as JSON.
// Reads OPENAI_BASE_URL, OPENAI_API_KEY (as the package itself does) and POOR_TOKEN.
'use strict'

const { OpenAI } = require('openai')

const messages = [{ role: 'user', content: 'hello' }]
const tools = [{
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'the weather of a city',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  },
}]

// What the server sent last, for refusals: the package keeps only a part of them.
let last
const watching = async (url, init) => {
  const response = await fetch(url, init)
  last = response.clone()
  return response
}

const usageOf = usage => usage ? { prompt: usage.prompt_tokens, completion: usage.completion_tokens } : null

async function plain(openai) {
  const answer = await openai.chat.completions.create({ model: 'auto', messages })
  const [choice] = answer.choices
  return { content: choice.message.content, finish: choice.finish_reason, usage: usageOf(answer.usage) }
}

async function streamed(openai, options) {
  const told = { content: '', finish: null, usage: null, bare: 0 }
  for await (const event of await openai.chat.completions.create({ model: 'auto', messages, stream: true, ...options })) {
    if (event.usage) told.usage = usageOf(event.usage)
    const [choice] = event.choices
    if (!choice) {
      told.bare += 1
      continue
    }
    told.content += choice.delta.content ?? ''
    told.finish = choice.finish_reason ?? told.finish
  }
  return told
}

async function toolCall(openai) {
  const { choices: [choice] } = await openai.chat.completions.create({ model: 'auto', messages, tools })
  const [call] = choice.message.tool_calls
  return { id: call.id, name: call.function.name, arguments: JSON.parse(call.function.arguments), finish: choice.finish_reason }
}

async function streamedToolCall(openai) {
  const runner = openai.chat.completions.stream({ model: 'auto', messages, tools })
  const { choices: [choice] } = await runner.finalChatCompletion()
  const [call] = choice.message.tool_calls
  return { id: call.id, name: call.function.name, arguments: JSON.parse(call.function.arguments), finish: choice.finish_reason }
}

async function refusal(openai) {
  try {
    await openai.chat.completions.create({ model: 'auto', messages, tools })
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error
    return { status: error.status, body: await last.json() }
  }
  throw new Error('the call was not refused')
}

async function main() {
  const openai = new OpenAI()
  const told = {
    plain: await plain(openai),
    streamed: await streamed(openai, {}),
    streamedWithUsage: await streamed(openai, { stream_options: { include_usage: true } }),
    tools: await toolCall(openai),
    streamedTools: await streamedToolCall(openai),
    refused: await refusal(new OpenAI({ apiKey: process.env.POOR_TOKEN, fetch: watching })),
    rejected: await refusal(new OpenAI({ fetch: watching })),
  }
  process.stdout.write(JSON.stringify(told))
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
