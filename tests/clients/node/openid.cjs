// Code with PKCE, refresh, userinfo, revocation and logout through the openid-client package of npm. Prints what an
// application would have seen, as JSON. Reads API_URL and SESSION_TOKEN, the session of a browser that is signed in.
'use strict'

const { pathToFileURL } = require('node:url')

const api = process.env.API_URL
const redirectUri = 'http://localhost:5173/auth/callback'

// The package is an ES module, and those do not look at NODE_PATH.
const load = name => import(pathToFileURL(require.resolve(name)).href)

// What the browser does with the address: it goes there with its session and is sent back.
async function visit(address) {
  const headers = { authorization: `Bearer ${process.env.SESSION_TOKEN}` }
  const answer = await fetch(address, { redirect: 'manual', headers })
  return new URL(answer.headers.get('location') ?? (await answer.json()).url)
}

const refusal = error => ({ code: error.code, error: error.error, status: error.status })

async function main() {
  const oidc = await load('openid-client')
  const discover = (algorithm) => oidc.discovery(new URL(`${api}/api/auth`), 'airi-stage-web', undefined, oidc.None(), {
    algorithm,
    execute: [oidc.allowInsecureRequests],
  })
  const config = await discover('oidc')
  const other = await discover('oauth2')
  const told = { issuer: config.serverMetadata().issuer, sameIssuer: other.serverMetadata().issuer === config.serverMetadata().issuer }

  const verifier = oidc.randomPKCECodeVerifier()
  const state = oidc.randomState()
  const nonce = oidc.randomNonce()
  const address = oidc.buildAuthorizationUrl(config, {
    redirect_uri: redirectUri,
    scope: 'openid profile email offline_access',
    code_challenge: await oidc.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    state,
    nonce,
  })
  const arrived = await visit(address)
  const checks = { pkceCodeVerifier: verifier, expectedState: state, expectedNonce: nonce, idTokenExpected: true }
  const tokens = await oidc.authorizationCodeGrant(config, arrived, checks, { resource: api })
  const claims = tokens.claims()
  told.claims = { ...claims, iat: undefined, exp: undefined, auth_time: undefined, sid: undefined, nonce: claims.nonce === nonce }
  told.expiresIn = tokens.expires_in
  told.segments = tokens.access_token.split('.').length
  told.userinfo = await oidc.fetchUserInfo(config, tokens.access_token, claims.sub)

  told.reused = await oidc.authorizationCodeGrant(config, arrived, checks).then(() => 'accepted', refusal)
  // A reused code takes its tokens back, so the conversation goes on with another one.
  const again = await oidc.authorizationCodeGrant(config, await visit(address), checks, { resource: api })
  const refreshed = await oidc.refreshTokenGrant(config, again.refresh_token, { resource: api })
  told.rotated = refreshed.refresh_token !== again.refresh_token && refreshed.access_token.split('.').length === 3
  const session = await fetch(`${api}/api/auth/get-session`, { headers: { authorization: `Bearer ${refreshed.access_token}` } })
  told.session = (await session.json()).user.email

  const logout = oidc.buildEndSessionUrl(config, { id_token_hint: again.id_token })
  told.logout = (await fetch(logout)).status
  told.afterLogout = await oidc.refreshTokenGrant(config, refreshed.refresh_token).then(() => 'accepted', refusal)
  process.stdout.write(JSON.stringify(told))
}

main().catch((error) => {
  console.error(error, error.cause)
  process.exit(1)
})
