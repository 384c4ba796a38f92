//! Client libraries of the identity side, unmodified, as their users would set them up.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::foreign_clients::script;
use crate::server::{Mode, Server, in_both_modes};
use crate::stores::{exported, free_port};

in_both_modes!(openid_client, better_auth, authlib);

const PASSWORD: &str = "hunter22hunter22";

/// A running server with one person who has a password, and the token of a session of theirs.
async fn with_ada(mode: Mode) -> (Server, String) {
    let mut server = Server::install(mode).await;
    let url = server.url();
    server.set("API_SERVER_URL", &url);
    let email = ["--email", "ada@e2e.test"];
    let words = ["user", "create", "--name", "Ada Lovelace", "--password", PASSWORD, "--verified"];
    server.ask(&[&words[..], &email].concat());
    let token = server.ask(&[&["user", "token"][..], &email].concat());
    server.start().await;
    (server, token)
}

fn node(name: &str) -> Command {
    let mut client = Command::new("node");
    client.arg(script(name)).env("NODE_PATH", exported("TEST_NODE_MODULES"));
    client
}

/// What a client printed when its conversation was over.
async fn told(server: &Server, mut client: Command) -> Value {
    client.env("API_URL", server.url()).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || client.output()).await.unwrap();
    let output = output.expect("the client could not be started; run ./scripts/test");
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{said}\n{complained}", output.status);
    serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}\n{complained}"))
}

/// Pages are looked at by people: what they looked like lies in `target/pictures` afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_with_a_browser_and_no_scripts() {
    let mut server = Server::install(Mode::Embedded).await;
    let url = server.url();
    server.set("API_SERVER_URL", &url);
    let provider = {
        // The server's own port is free, too, until it starts.
        let _held = std::net::TcpListener::bind(url.strip_prefix("http://").unwrap()).unwrap();
        free_port()
    };
    server.set("AUTH_GOOGLE_CLIENT_ID", "our-id");
    server.set("AUTH_GOOGLE_CLIENT_SECRET", "our-secret");
    server.set("AUTH_GOOGLE_AUTHORIZE_URL", &format!("http://127.0.0.1:{provider}/authorize"));
    server.set("AUTH_GOOGLE_TOKEN_URL", &format!("http://127.0.0.1:{provider}/token"));
    server.start().await;
    let pictures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/pictures");
    std::fs::create_dir_all(&pictures).unwrap();
    let mut client = node("node/browser.cjs");
    client.env("CHROMIUM", exported("TEST_CHROMIUM")).env("PICTURES", pictures);
    client.env("PROVIDER_PORT", provider.to_string());
    let page = |heading: &str| json!({ "heading": heading, "unlabelled": 0, "language": "en" });
    assert_eq!(
        told(&server, client).await,
        json!({
            "signIn": page("Sign in"),
            "signUp": page("Create an account"),
            "inbox": page("Check your inbox"),
            "verified": page("Your email is verified"),
            "arrived": { "path": "/auth/callback", "state": "st", "iss": true },
            "session": "ada@e2e.test",
            "refreshed": "Bearer",
            "ended": 200,
            "after": 400,
            "signedOut": "/auth/sign-in",
            "forgot": page("Forgot your password?"),
            "reset": page("Choose a new password"),
            "oldPassword": "Email or password is not right.",
            "newPassword": true,
            "home": page("Your account"),
            "deletionAsked": 200,
            "deletion": page("Delete your account"),
            "deleted": page("Your account is deleted"),
            "gone": "/auth/sign-in",
            "error": page("Something went wrong"),
            "google": true,
            "googlePerson": true,
            "chinese": { "heading": "登录", "unlabelled": 0, "language": "zh-CN" },
            "relayed": "http://127.0.0.1:19721/callback?code=abc&state=x",
            "refusedRelay": "This sign-in cannot be finished",
        })
    );
    let log = server.log();
    for secret in ["hunter22hunter22", "correct horse battery"] {
        assert!(!log.contains(secret), "a password reached the log");
    }
}

async fn openid_client(mode: Mode) {
    let (server, token) = with_ada(mode).await;
    let mut client = node("node/openid.cjs");
    client.env("SESSION_TOKEN", token);
    let told = told(&server, client).await;
    let issuer = format!("{}/api/auth", server.url());
    assert_eq!((&told["issuer"], &told["sameIssuer"]), (&json!(issuer), &json!(true)));
    assert_eq!(told["claims"]["iss"], issuer);
    assert_eq!(told["claims"]["aud"], "airi-stage-web");
    assert_eq!(told["claims"]["nonce"], true);
    for who in [&told["claims"], &told["userinfo"]] {
        assert_eq!((&who["email"], &who["email_verified"]), (&json!("ada@e2e.test"), &json!(true)));
        assert_eq!(who["name"], "Ada Lovelace");
        assert_eq!((&who["given_name"], &who["family_name"]), (&json!("Ada"), &json!("Lovelace")));
    }
    assert_eq!((&told["expiresIn"], &told["segments"]), (&json!(3_600), &json!(3)));
    assert_eq!(told["reused"]["status"], 401);
    assert_eq!((&told["rotated"], &told["session"]), (&json!(true), &json!("ada@e2e.test")));
    assert_eq!(told["logout"], 200);
    assert_eq!((&told["afterLogout"]["error"], &told["afterLogout"]["status"]), (&json!("invalid_grant"), &json!(400)));
}

async fn better_auth(mode: Mode) {
    let (server, _) = with_ada(mode).await;
    let mut client = node("node/better-auth.cjs");
    client.env("EMAIL", "ada@e2e.test").env("PASSWORD", PASSWORD);
    let told = told(&server, client).await;
    assert_eq!(
        told,
        json!({
            "nobody": null,
            "wrong": { "status": 401, "code": "INVALID_EMAIL_OR_PASSWORD" },
            "signedIn": { "redirect": false, "email": "ada@e2e.test" },
            "session": { "email": "ada@e2e.test", "verified": true, "sameToken": true, "dates": true,
                "picture": "https://www.gravatar.com/avatar/digest" },
            "updated": { "status": true },
            "name": "Ada L.",
            "accounts": ["credential"],
            "lastOne": { "status": 400, "code": "FAILED_TO_UNLINK_LAST_ACCOUNT" },
            "sessions": 2,
            "shortPassword": { "status": 400, "code": "PASSWORD_TOO_SHORT" },
            "changed": "string",
            "before": null,
            "after": "ada@e2e.test",
            "signedOut": { "success": true },
            "gone": null,
        })
    );
    let log = server.log();
    assert!(!log.contains(PASSWORD), "a password reached the log");
}

async fn authlib(mode: Mode) {
    let (server, token) = with_ada(mode).await;
    let mut client = Command::new(exported("TEST_PYTHON"));
    client.arg(script("python/identity.py")).env("PYTHONDONTWRITEBYTECODE", "1").env("SESSION_TOKEN", token);
    assert_eq!(
        told(&server, client).await,
        json!({
            "algorithm": "RS256", "email": "ada@e2e.test", "name": "Ada Lovelace", "forged": "refused",
            "userinfo": "ada@e2e.test", "refreshed": "Bearer",
        })
    );
}
