"""Verifies an ID token from discovery through the authlib package of PyPI, and prints what an application would know.

Reads API_URL and SESSION_TOKEN, the session of a browser that is signed in.
"""

import json
import os
import warnings

warnings.simplefilter("ignore")

import requests
from authlib.integrations.requests_client import OAuth2Session
from authlib.jose import JsonWebKey, JsonWebToken
from authlib.oidc.core import CodeIDToken

API = os.environ["API_URL"]
REDIRECT = "http://localhost:5173/auth/callback"

document = requests.get(f"{API}/api/auth/.well-known/openid-configuration", timeout=30).json()
algorithms = document["id_token_signing_alg_values_supported"]
keys = JsonWebKey.import_key_set(requests.get(document["jwks_uri"], timeout=30).json())

client = OAuth2Session(
    "airi-stage-web",
    redirect_uri=REDIRECT,
    scope="openid profile email offline_access",
    code_challenge_method="S256",
    token_endpoint_auth_method="none",
)
verifier = "x" * 64
address, state = client.create_authorization_url(document["authorization_endpoint"], code_verifier=verifier, nonce="n-1")
browser = requests.get(
    address, headers={"Authorization": f"Bearer {os.environ['SESSION_TOKEN']}"}, allow_redirects=False, timeout=30
)
token = client.fetch_token(
    document["token_endpoint"],
    authorization_response=browser.headers["Location"],
    state=state,
    code_verifier=verifier,
    resource=API,
)
claims = JsonWebToken(algorithms).decode(
    token["id_token"],
    keys,
    claims_cls=CodeIDToken,
    claims_options={
        "iss": {"essential": True, "value": document["issuer"]},
        "aud": {"essential": True, "value": "airi-stage-web"},
    },
    claims_params={"nonce": "n-1", "client_id": "airi-stage-web"},
)
claims.validate()

tampered = token["id_token"].split(".")
tampered[1] = tampered[1][:-2] + ("AA" if tampered[1][-2:] != "AA" else "BB")
try:
    JsonWebToken(algorithms).decode(".".join(tampered), keys)
    forged = "accepted"
except Exception:
    forged = "refused"

told = {
    "algorithm": claims.header["alg"],
    "email": claims["email"],
    "name": claims["name"],
    "forged": forged,
    "userinfo": client.get(document["userinfo_endpoint"], timeout=30).json()["email"],
    "refreshed": client.refresh_token(document["token_endpoint"], refresh_token=token["refresh_token"])["token_type"],
}
print(json.dumps(told))
