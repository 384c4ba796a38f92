// Signs messages as the provider does: reads [{payload, secret, timestamp?}] and prints the headers.
const Stripe = require('stripe')

const { webhooks } = new Stripe('sk_test_signer')
let text = ''
process.stdin.setEncoding('utf8')
process.stdin.on('data', (piece) => { text += piece })
process.stdin.on('end', () => {
  const headers = JSON.parse(text).map((message) => webhooks.generateTestHeaderString(message))
  process.stdout.write(JSON.stringify(headers))
})
