// A person with Chromium and no scripts on our pages: signs up, reads the mail, verifies, is sent back to the web client
// with a code; resets the password; deletes the account. The web client's own page has scripts and redeems the code from
// another origin. At last a person of Google's signs in; Google is this script, on PROVIDER_PORT. Prints what was seen, as
// JSON. Reads API_URL, CHROMIUM and PICTURES, where screenshots go.
'use strict'

const { createHash, randomBytes } = require('node:crypto')
const { createServer } = require('node:http')
const path = require('node:path')
const { chromium } = require('playwright-core')

const { API_URL: api, CHROMIUM: executablePath, PICTURES: pictures } = process.env
const email = 'ada@e2e.test'
let client, redirectUri
const verifier = randomBytes(32).toString('base64url')

const authorizeUrl = (extra = {}) => `${api}/api/auth/oauth2/authorize?${new URLSearchParams({
  response_type: 'code',
  client_id: 'airi-stage-web',
  redirect_uri: redirectUri,
  scope: 'openid profile email offline_access',
  state: 'st',
  code_challenge: createHash('sha256').update(verifier).digest('base64url'),
  code_challenge_method: 'S256',
  ...extra,
})}`

const picture = (page, name) => page.screenshot({ path: path.join(pictures, `${name}.png`), fullPage: true })

// The web client: whatever is asked of it, an empty page of its origin.
async function hostClient() {
  const server = createServer((_, answer) => answer.setHeader('content-type', 'text/html').end('<!doctype html><title>client</title>'))
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  client = `http://localhost:${server.address().port}`
  redirectUri = `${client}/auth/callback`
  return server
}

// Google, as far as a browser and a server see it: everybody agrees at once.
async function hostProvider() {
  const server = createServer((request, answer) => {
    const url = new URL(request.url, 'http://localhost')
    if (url.pathname === '/authorize') {
      const back = new URL(url.searchParams.get('redirect_uri'))
      back.search = new URLSearchParams({ code: 'c-1', state: url.searchParams.get('state') })
      return answer.writeHead(302, { location: back.href }).end()
    }
    const claims = { sub: 'g-1', aud: 'our-id', email: 'grace@e2e.test', name: 'Grace Hopper', email_verified: true }
    const idToken = `e30.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.x`
    answer.writeHead(200, { 'content-type': 'application/json' })
    answer.end(JSON.stringify({ access_token: 'at', token_type: 'Bearer', expires_in: 3599, scope: 'openid email', id_token: idToken }))
  })
  await new Promise(resolve => server.listen(Number(process.env.PROVIDER_PORT), '127.0.0.1', resolve))
  return server
}

async function newestLink(context) {
  const outbox = await context.newPage()
  await outbox.goto(`${api}/dev/outbox`)
  await picture(outbox, 'outbox')
  const link = await outbox.locator('article a').first().getAttribute('href')
  await outbox.close()
  return link
}

async function fill(page, fields) {
  for (const [label, text] of Object.entries(fields))
    await page.getByLabel(label, { exact: true }).fill(text)
}

const submit = (page, name) => Promise.all([page.waitForLoadState(), page.getByRole('button', { name }).click()])

// Every input has a label and the page says its language: what a screen reader needs first.
async function judge(page) {
  const heading = await page.getByRole('heading', { level: 1 }).innerText()
  const unlabelled = await page.locator('input:not([type=hidden])').evaluateAll(inputs => inputs.filter(input => input.labels.length === 0).length)
  return { heading, unlabelled, language: await page.locator('html').getAttribute('lang') }
}

async function redeem(page, arrived) {
  // In the client's page, without cookies, as its own code does it.
  return page.evaluate(async ({ api, code, redirectUri, verifier }) => {
    const ask = (path, fields) => fetch(`${api}/api/auth/${path}`, { method: 'POST', credentials: 'omit', body: new URLSearchParams(fields) })
    const common = { client_id: 'airi-stage-web', resource: api }
    const tokens = await (await ask('oauth2/token', { ...common, grant_type: 'authorization_code', code, redirect_uri: redirectUri, code_verifier: verifier })).json()
    const session = await (await fetch(`${api}/api/auth/get-session`, { credentials: 'omit', headers: { authorization: `Bearer ${tokens.access_token}` } })).json()
    const refresh = token => ask('oauth2/token', { ...common, grant_type: 'refresh_token', refresh_token: token })
    const refreshed = await (await refresh(tokens.refresh_token)).json()
    const ended = await fetch(`${api}/api/auth/oauth2/end-session?${new URLSearchParams({ id_token_hint: tokens.id_token })}`, { credentials: 'omit' })
    const after = await refresh(refreshed.refresh_token)
    return { session: session.user.email, refreshed: refreshed.token_type, ended: ended.status, after: after.status }
  }, { api, code: arrived.searchParams.get('code'), redirectUri, verifier })
}

async function main() {
  const host = await hostClient()
  const provider = await hostProvider()
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] })
  const told = {}
  try {
    const person = await browser.newContext({ javaScriptEnabled: false, locale: 'en-GB' })
    const page = await person.newPage()

    await page.goto(authorizeUrl())
    told.signIn = await judge(page)
    await picture(page, 'sign-in')
    await page.getByRole('link', { name: 'Create an account' }).click()
    told.signUp = await judge(page)
    await picture(page, 'sign-up')
    await fill(page, { Name: 'Ada Lovelace', Email: email, Password: 'hunter22hunter22' })
    await submit(page, 'Create account')
    told.inbox = await judge(page)
    await picture(page, 'verify-email')

    await page.goto(await newestLink(person))
    told.verified = await judge(page)
    await picture(page, 'verified')
    await page.getByRole('link', { name: 'Continue' }).click()
    await page.waitForURL(`${client}/**`)
    const arrived = new URL(page.url())
    told.arrived = { path: arrived.pathname, state: arrived.searchParams.get('state'), iss: arrived.searchParams.get('iss') === `${api}/api/auth` }

    const application = await browser.newContext()
    const clientPage = await application.newPage()
    await clientPage.goto(client)
    Object.assign(told, await redeem(clientPage, arrived))

    // The session ended with the application's logout.
    await page.goto(`${api}/auth/`)
    told.signedOut = new URL(page.url()).pathname

    await page.getByRole('link', { name: 'Forgot your password?' }).click()
    told.forgot = await judge(page)
    await picture(page, 'forgot-password')
    await fill(page, { Email: email })
    await submit(page, 'Send the link')
    await picture(page, 'forgot-password-sent')
    await page.goto(await newestLink(person))
    told.reset = await judge(page)
    await picture(page, 'reset-password')
    await fill(page, { 'New password': 'correct horse battery' })
    await submit(page, 'Save the password')
    await picture(page, 'reset-password-done')

    await page.goto(authorizeUrl({ prompt: 'login' }))
    await fill(page, { Email: email, Password: 'hunter22hunter22' })
    await submit(page, 'Sign in')
    told.oldPassword = await page.getByRole('alert').innerText()
    await picture(page, 'sign-in-refused')
    await fill(page, { Email: email, Password: 'correct horse battery' })
    await page.getByRole('button', { name: 'Sign in' }).click()
    await page.waitForURL(`${client}/**`)
    told.newPassword = new URL(page.url()).searchParams.has('code')

    await page.goto(`${api}/auth/`)
    told.home = await judge(page)
    await picture(page, 'home')
    const cookies = (await person.cookies(api)).map(cookie => `${cookie.name}=${cookie.value}`).join('; ')
    const asked = await fetch(`${api}/api/auth/delete-user`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'cookie': cookies, 'origin': api },
      body: JSON.stringify({ callbackURL: `${api}/auth/delete-account` }),
    })
    told.deletionAsked = asked.status
    // Another browser, without a session: a page that asks, because scanners of mail follow links.
    const elsewhere = await browser.newContext({ javaScriptEnabled: false })
    const stranger = await elsewhere.newPage()
    await stranger.goto(await newestLink(elsewhere))
    told.deletion = await judge(stranger)
    await picture(stranger, 'delete-account')
    await submit(stranger, 'Delete my account for good')
    told.deleted = await judge(stranger)
    await picture(stranger, 'deleted')
    await page.goto(`${api}/auth/`)
    told.gone = new URL(page.url()).pathname

    await stranger.goto(`${api}/api/auth/error?error=access_denied`)
    told.error = await judge(stranger)
    await picture(stranger, 'error')

    const grace = await browser.newContext({ javaScriptEnabled: false })
    const front = await grace.newPage()
    await front.goto(authorizeUrl())
    await picture(front, 'sign-in-with-google')
    await front.getByRole('link', { name: 'Continue with Google' }).click()
    await front.waitForURL(`${client}/**`)
    told.google = new URL(front.url()).searchParams.has('code')
    await front.goto(`${api}/auth/`)
    told.googlePerson = await front.locator('main').innerText().then(text => text.includes('grace@e2e.test'))

    const dark = await browser.newContext({ javaScriptEnabled: false, locale: 'zh-CN', colorScheme: 'dark', viewport: { width: 390, height: 700 } })
    const chinese = await dark.newPage()
    await chinese.goto(`${api}/auth/sign-in?error=INVALID_EMAIL_OR_PASSWORD`)
    told.chinese = await judge(chinese)
    await picture(chinese, 'sign-in-zh-dark-narrow')

    // The desktop client's listener, as far as this browser can tell.
    const desktop = await browser.newContext({ javaScriptEnabled: false })
    let relayed
    await desktop.route('http://127.0.0.1:19721/**', (route) => {
      relayed = route.request().url()
      return route.fulfill({ contentType: 'text/html', body: '<!doctype html><title>desktop</title>' })
    })
    const relay = await desktop.newPage()
    await relay.goto(`${api}/api/auth/oidc/electron-callback?code=abc&state=19721:x`)
    await relay.waitForURL('http://127.0.0.1:19721/**')
    told.relayed = relayed
    await relay.goto(`${api}/api/auth/oidc/electron-callback?code=abc&state=x@evil.example:1`)
    told.refusedRelay = await relay.getByRole('heading', { level: 1 }).innerText()
    await picture(relay, 'relay-refused')
  }
  finally {
    await browser.close()
    host.close()
    provider.close()
  }
  process.stdout.write(JSON.stringify(told))
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
