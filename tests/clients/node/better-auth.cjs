// Signs in and manages an account through the better-auth package of npm, as the AIRI clients do. Prints what an
// application would have seen, as JSON. Reads API_URL, EMAIL and PASSWORD.
'use strict'

const { pathToFileURL } = require('node:url')

const { API_URL: api, EMAIL: email, PASSWORD: password } = process.env
const load = name => import(pathToFileURL(require.resolve(name)).href)

const refusal = ({ error }) => error && { status: error.status, code: error.code }

async function main() {
  const { createAuthClient } = await load('better-auth/client')
  let token
  const auth = createAuthClient({
    baseURL: api,
    fetchOptions: {
      // A browser says where a page comes from; this runtime says only that it fetches.
      headers: { origin: 'http://localhost:5173' },
      auth: { type: 'Bearer', token: () => token },
    },
  })
  const told = {}
  told.nobody = (await auth.getSession()).data
  told.wrong = refusal(await auth.signIn.email({ email, password: 'not the password' }))
  const signedIn = await auth.signIn.email({ email, password })
  token = signedIn.data.token
  told.signedIn = { redirect: signedIn.data.redirect, email: signedIn.data.user.email }

  const session = (await auth.getSession()).data
  told.session = {
    email: session.user.email,
    verified: session.user.emailVerified,
    sameToken: session.session.token === token,
    // The package turns ISO texts into dates.
    dates: [session.session.expiresAt, session.user.createdAt].every(date => date instanceof Date),
    picture: session.user.image.split('?')[0].replace(/[0-9a-f]{64}/, 'digest'),
  }
  told.updated = (await auth.updateUser({ name: 'Ada L.' })).data
  told.name = (await auth.getSession()).data.user.name
  told.accounts = (await auth.listAccounts()).data.map(account => account.providerId)
  told.lastOne = refusal(await auth.unlinkAccount({ providerId: 'credential' }))
  told.sessions = (await auth.listSessions()).data.length
  told.shortPassword = refusal(await auth.changePassword({ currentPassword: password, newPassword: 'short' }))
  const changed = await auth.changePassword({ currentPassword: password, newPassword: `${password}2`, revokeOtherSessions: true })
  told.changed = typeof changed.data.token
  told.before = (await auth.getSession()).data
  token = changed.data.token
  told.after = (await auth.getSession()).data.user.email
  told.signedOut = (await auth.signOut()).data
  told.gone = (await auth.getSession()).data
  process.stdout.write(JSON.stringify(told))
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
