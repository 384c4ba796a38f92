//! Accounts elsewhere: what a browser sees, over a complete in-memory world with a provider that says what it is told.

use std::sync::{Arc, Mutex};

use airi_server::core::model::accounts::Email;
use airi_server::core::model::social::{Arrived, Profile, Provider, ProviderTokens, Unknown};
use airi_server::ports::Ports;
use airi_server::ports::social::{Departure, Return, SocialLogin};
use async_trait::async_trait;
use serde_json::{Value, json};
use url::Url;

use crate::identity::{Answer, Counter, ORIGIN, PASSWORD, World, world_with};

/// Knows Google only; answers the code it is given next.
#[derive(Default)]
struct Scripted {
    next: Mutex<Option<Profile>>,
}

#[async_trait]
impl SocialLogin for Scripted {
    fn is_known(&self, provider: Provider) -> bool {
        provider == Provider::Google
    }

    fn address<'a>(&self, _: Provider, departure: &Departure<'a>) -> Option<String> {
        assert_eq!(departure.verifier.len(), 128, "contract §3.4");
        assert_eq!(departure.redirect_uri, format!("{ORIGIN}/api/auth/callback/google"));
        Some(format!("https://provider.example/?state={}", departure.state))
    }

    async fn exchange<'a>(&self, _: Provider, returned: &Return<'a>) -> Result<Arrived, Unknown> {
        match returned.code {
            "bad" => Err(Unknown::InvalidCode),
            "mute" => Err(Unknown::NoUserInfo),
            _ => {
                let profile = self.next.lock().unwrap().clone().unwrap();
                Ok(Arrived { profile, tokens: ProviderTokens::default() })
            }
        }
    }
}

fn profile(account_id: &str, email: Option<&str>, email_verified: bool) -> Profile {
    Profile {
        account_id: account_id.to_owned(),
        email: email.map(|email| Email::parse(email).unwrap()),
        email_verified,
        name: "Ann".to_owned(),
        image: Some("https://p.example/a.png".to_owned()),
    }
}

struct Flow {
    world: World,
    provider: Arc<Scripted>,
}

impl Flow {
    async fn new() -> Self {
        let provider = Arc::new(Scripted::default());
        let known = provider.clone();
        let world = world_with(Counter::default(), |ports| Ports { social: known, ..ports }).await;
        Self { world, provider }
    }

    /// The state a flow left with.
    async fn begin(&self, path: &str, headers: &[(&str, &str)], mut body: Value) -> String {
        body["provider"] = "google".into();
        let answer = self.world.post_as(path, headers, body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.location(), answer.body["url"]);
        state_of(answer.body["url"].as_str().unwrap())
    }

    async fn come_back(&self, query: &str, headers: &[(&str, &str)]) -> Answer {
        let answer = self.world.get(&format!("/api/auth/callback/google?{query}"), headers).await;
        assert_eq!(answer.status, 302, "{}", answer.text);
        answer
    }

    /// One whole sign-in.
    async fn sign_in(&self, profile: Profile) -> Answer {
        *self.provider.next.lock().unwrap() = Some(profile);
        let state =
            self.begin("sign-in/social", &[], json!({ "callbackURL": "/x", "newUserCallbackURL": "/new" })).await;
        self.come_back(&format!("code=c&state={state}"), &[]).await
    }
}

fn state_of(url: &str) -> String {
    let url = Url::parse(url).unwrap();
    url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned()
}

#[tokio::test]
async fn somebody_new_gets_an_account_and_is_known_the_next_time() {
    let flow = Flow::new().await;
    let first = flow.sign_in(profile("g1", Some("ann@example.com"), true)).await;
    assert_eq!(first.location(), "/new");
    let session = flow.world.get("/api/auth/get-session", &[("cookie", &first.cookie().unwrap())]).await;
    assert_eq!(session.body["user"]["email"], "ann@example.com");
    assert_eq!((&session.body["user"]["emailVerified"], &session.body["user"]["name"]), (&json!(true), &json!("Ann")));
    // The address at the provider may change; the identity stays.
    let second = flow.sign_in(profile("g1", Some("other@example.com"), true)).await;
    assert_eq!(second.location(), "/x");
    let again = flow.world.get("/api/auth/get-session", &[("cookie", &second.cookie().unwrap())]).await;
    assert_eq!(again.body["user"]["id"], session.body["user"]["id"]);
    assert_eq!(flow.world.letters(), 0);
}

#[tokio::test]
async fn an_address_the_provider_has_not_proved_is_asked_for_its_proof() {
    let flow = Flow::new().await;
    let answer = flow.sign_in(profile("g1", Some("ann@example.com"), false)).await;
    let session = flow.world.get("/api/auth/get-session", &[("cookie", &answer.cookie().unwrap())]).await;
    assert_eq!(session.body["user"]["emailVerified"], false);
    assert_eq!(flow.world.letters(), 1);
}

#[tokio::test]
async fn a_proved_person_keeps_their_password_and_an_unproved_password_ends() {
    let flow = Flow::new().await;
    flow.world.person("proved@example.com", true).await;
    flow.world.person("unproved@example.com", false).await;
    for (address, kept) in [("proved@example.com", true), ("unproved@example.com", false)] {
        let answer = flow.sign_in(profile(address, Some(address), true)).await;
        assert_eq!(answer.location(), "/x", "nobody new: {address}");
        let cookie = answer.cookie().unwrap();
        let accounts = flow.world.get("/api/auth/list-accounts", &[("cookie", &cookie)]).await;
        let providers: Vec<_> = accounts.body.as_array().unwrap().iter().map(|one| one["providerId"].clone()).collect();
        assert_eq!(providers.contains(&json!("credential")), kept, "{address}");
        assert!(providers.contains(&json!("google")));
        let by_password = flow.world.post("sign-in/email", json!({ "email": address, "password": PASSWORD })).await;
        assert_eq!(by_password.status == 200, kept, "{address}: {}", by_password.text);
    }
}

#[tokio::test]
async fn an_unproved_address_opens_nobody_elses_account() {
    let flow = Flow::new().await;
    flow.world.person("ann@example.com", true).await;
    let answer = flow.sign_in(profile("g1", Some("ann@example.com"), false)).await;
    assert_eq!(answer.location(), "/x?error=account_not_linked");
    assert!(answer.cookie().is_none());
    let answer = flow.sign_in(profile("g1", None, true)).await;
    assert_eq!(answer.location(), "/x?error=email_not_found");
}

#[tokio::test]
async fn an_identity_is_added_to_the_account_of_its_address_only() {
    let flow = Flow::new().await;
    for person in ["ann@example.com", "bob@example.com"] {
        flow.world.person(person, true).await;
    }
    let ann = flow.world.signed_in("ann@example.com").await;
    let bob = flow.world.signed_in("bob@example.com").await;
    let link = async |cookie: &str, profile: Profile, wish: Value| {
        *flow.provider.next.lock().unwrap() = Some(profile);
        let state = flow.begin("link-social", &[("cookie", cookie), ("origin", "http://localhost:5173")], wish).await;
        flow.come_back(&format!("code=c&state={state}"), &[]).await
    };
    let page = json!({ "callbackURL": "http://localhost:5173/settings" });
    let other = link(&ann, profile("g1", Some("someone@example.com"), true), page.clone()).await;
    assert_eq!(other.location(), "http://localhost:5173/settings?error=email_doesn%27t_match");
    let own = link(&ann, profile("g1", Some("Ann@Example.com"), true), page.clone()).await;
    assert_eq!(own.location(), "http://localhost:5173/settings");
    assert!(own.cookie().is_none(), "adding opens no session");
    let again = link(&ann, profile("g1", Some("ann@example.com"), true), page.clone()).await;
    assert_eq!(again.location(), "http://localhost:5173/settings");
    let foreign = link(&bob, profile("g1", Some("bob@example.com"), true), json!({ "errorCallbackURL": "/e" })).await;
    assert_eq!(foreign.location(), "/e?error=account_already_linked_to_different_user");
    let accounts = flow.world.get("/api/auth/list-accounts", &[("cookie", &ann)]).await;
    assert_eq!(accounts.body.as_array().unwrap().len(), 2);
    assert_eq!(flow.world.post("link-social", json!({ "provider": "google" })).await.code(), (401, "UNAUTHORIZED"));
}

#[tokio::test]
async fn a_state_is_good_once_and_for_the_browser_it_began_in() {
    let flow = Flow::new().await;
    *flow.provider.next.lock().unwrap() = Some(profile("g1", Some("ann@example.com"), true));
    let error = |code: &str| format!("{ORIGIN}/api/auth/error?error={code}");
    assert_eq!(
        flow.come_back("code=c", &[]).await.location(),
        format!("{ORIGIN}/api/auth/error?state=state_not_found")
    );
    assert_eq!(flow.come_back("code=c&state=made-up", &[]).await.location(), error("please_restart_the_process"));

    // A page of another origin keeps no cookie of ours: native clients come back in another browser.
    let state = flow.begin("sign-in/social", &[], json!({})).await;
    let answer = flow.come_back(&format!("code=c&state={state}"), &[]).await;
    assert!(answer.cookie().is_some(), "{}", answer.location());
    let replayed = flow.come_back(&format!("code=c&state={state}"), &[]).await;
    assert_eq!(replayed.location(), error("please_restart_the_process"));

    let begun = flow.world.get("/auth/sign-in?provider=google", &[]).await;
    assert_eq!(begun.status, 302, "{}", begun.text);
    let query = format!("code=c&state={}", state_of(begun.location()));
    assert_eq!(flow.come_back(&query, &[]).await.location(), error("state_mismatch"));
    let begun = flow.world.get("/auth/sign-in?provider=google", &[]).await;
    let line = begun.headers["set-cookie"].to_str().unwrap();
    assert!(line.starts_with("better-auth.state=") && line.contains("Max-Age=300"), "{line}");
    let cookie = line.split(';').next().unwrap();
    let query = format!("code=c&state={}", state_of(begun.location()));
    let answer = flow.come_back(&query, &[("cookie", cookie)]).await;
    assert_eq!(answer.location(), "/auth/");
    let lines: Vec<_> = answer.headers.get_all("set-cookie").iter().map(|line| line.to_str().unwrap()).collect();
    assert!(
        lines.iter().any(|line| line.starts_with("better-auth.state=;") && line.contains("Max-Age=0")),
        "{lines:?}"
    );
}

#[tokio::test]
async fn what_a_provider_refuses_is_told_where_the_flow_says() {
    let flow = Flow::new().await;
    let wish = json!({ "callbackURL": "/x", "errorCallbackURL": "/e?a=b" });
    for (query, told) in [
        ("error=access_denied&error_description=No%20thanks", "/e?a=b&error=access_denied&error_description=No+thanks"),
        ("code=bad", "/e?a=b&error=invalid_code"),
        ("code=mute", "/e?a=b&error=unable_to_get_user_info"),
        ("", "/e?a=b&error=no_code"),
    ] {
        let state = flow.begin("sign-in/social", &[], wish.clone()).await;
        assert_eq!(flow.come_back(&format!("state={state}&{query}"), &[]).await.location(), told);
    }
    let state = flow
        .begin("sign-in/social", &[], json!({ "callbackURL": format!("{ORIGIN}/api/auth/oauth2/authorize?a=b") }))
        .await;
    let told = flow.come_back(&format!("state={state}&error=access_denied"), &[]).await;
    assert_eq!(told.location(), format!("{ORIGIN}/api/auth/error?error=access_denied"), "authorize would send it on");
    let begun = flow.world.get("/auth/sign-in?provider=google&client_id=c&response_type=code", &[]).await;
    let cookie = begun.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let query = format!("error=access_denied&state={}", state_of(begun.location()));
    let told = flow.come_back(&query, &[("cookie", &cookie)]).await;
    let page = told.location().strip_prefix(ORIGIN).unwrap();
    assert_eq!(page, "/auth/sign-in?client_id=c&response_type=code&error=access_denied");
    assert!(flow.world.get(page, &[]).await.text.contains("You did not agree at the provider."));
}

#[tokio::test]
async fn what_is_not_a_sign_in_elsewhere_is_refused() {
    let flow = Flow::new().await;
    for (body, code) in [
        (json!({}), (400, "VALIDATION_ERROR")),
        (json!({ "provider": "steam" }), (404, "PROVIDER_NOT_FOUND")),
        (json!({ "provider": "github" }), (404, "PROVIDER_NOT_FOUND")),
        (json!({ "provider": "google", "scopes": "all" }), (400, "VALIDATION_ERROR")),
        (json!({ "provider": "google", "scopes": [1] }), (400, "VALIDATION_ERROR")),
        (json!({ "provider": "google", "idToken": { "token": "x" } }), (404, "ID_TOKEN_NOT_SUPPORTED")),
        (json!({ "provider": "google", "callbackURL": "https://evil.example/" }), (403, "INVALID_CALLBACK_URL")),
        (json!({ "provider": "google", "errorCallbackURL": "//evil.example" }), (403, "INVALID_ERROR_CALLBACK_URL")),
        (json!({ "provider": "google", "newUserCallbackURL": "javascript:1" }), (403, "INVALID_NEW_USER_CALLBACK_URL")),
    ] {
        assert_eq!(flow.world.post("sign-in/social", body.clone()).await.code(), code, "{body}");
    }
    let silent = flow.world.post("sign-in/social", json!({ "provider": "google", "disableRedirect": true })).await;
    assert_eq!((silent.location(), &silent.body["redirect"]), ("", &json!(false)));
    let posted = flow.world.send(
        poem::http::Method::POST,
        "/api/auth/callback/google",
        &[("content-type", "application/x-www-form-urlencoded")],
        Some("code=a%26b&state=s".to_owned()),
    );
    assert_eq!(posted.await.location(), format!("{ORIGIN}/api/auth/callback/google?code=a%26b&state=s"));
    let page = flow.world.get("/auth/sign-in", &[]).await.text;
    assert!(page.contains("Continue with Google") && !page.contains("GitHub"));
    let unknown = flow.world.get("/auth/sign-in?provider=steam", &[]).await;
    assert_eq!(unknown.location(), "/auth/sign-in?error=PROVIDER_NOT_FOUND");
}
