//! Identity doors when something is wrong with the request, its caller's patience, or a dependency.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use airi_server::http::{HttpSettings, routes};
use airi_server::ports::mocks::{MockErasureRepo, MockVerificationRepo};
use airi_server::ports::{Fault, FaultKind, Ports};
use poem::http::Method;
use poem::test::TestClient;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::identity::{Counter, ORIGIN, PASSWORD, World, world, world_of, world_with};

fn away() -> Fault {
    Fault::new(FaultKind::Unavailable, "test", "the database is away")
}

/// A strict world that believes one proxy about where callers are.
async fn behind_a_proxy() -> World {
    let World { app, .. } = world_of(Counter::strict()).await;
    let settings = HttpSettings { trusted_proxy_hops: 1, ..HttpSettings::default() };
    let client = TestClient::new(routes(app.clone(), &settings, CancellationToken::new()));
    World { app, client }
}

async fn fill_in(world: &World, from: &[(&str, &str)], page: &str, form: &str) -> String {
    let mut headers = vec![("content-type", "application/x-www-form-urlencoded"), ("origin", ORIGIN)];
    headers.extend(from);
    let answer = world.send(Method::POST, page, &headers, Some(form.to_owned())).await;
    assert_eq!(answer.status, 303, "{}", answer.text);
    answer.location().to_owned()
}

#[tokio::test]
async fn a_deletion_that_fails_leads_the_browser_to_the_page_and_not_to_json() {
    let world = world_with(Counter::default(), |ports| {
        let mut erasures = MockErasureRepo::new();
        erasures.expect_erase().returning(|_| Err(away()));
        Ports { erasures: Arc::new(erasures), ..ports }
    })
    .await;
    world.person("ann@example.com", true).await;
    let cookie = world.signed_in("ann@example.com").await;
    world.post_as("delete-user", &[("cookie", &cookie), ("origin", ORIGIN)], json!({})).await;
    let failed = world.get(&world.link(), &[("cookie", &cookie)]).await;
    let page = format!("{ORIGIN}/auth/delete-account");
    assert_eq!((failed.status, failed.location()), (302, format!("{page}?error=SERVICE_UNAVAILABLE").as_str()));
    assert!(world.is_signed_in(&cookie).await, "nothing was deleted");
}

#[tokio::test]
async fn a_deletion_whose_token_cannot_be_looked_up_leads_to_the_page_too() {
    let world = world_with(Counter::default(), |ports| {
        let mut verifications = MockVerificationRepo::new();
        verifications.expect_find().returning(|_| Err(away()));
        Ports { verifications: Arc::new(verifications), ..ports }
    })
    .await;
    world.person("ann@example.com", true).await;
    let cookie = world.signed_in("ann@example.com").await;
    let failed = world.get("/api/auth/delete-user/callback?token=x", &[("cookie", &cookie)]).await;
    let page = format!("{ORIGIN}/auth/delete-account");
    assert_eq!((failed.status, failed.location()), (302, format!("{page}?error=SERVICE_UNAVAILABLE").as_str()));
}

#[tokio::test]
async fn a_deletion_without_a_place_to_lead_to_ends_on_the_page_that_says_so() {
    let world = world().await;
    world.person("ann@example.com", true).await;
    let cookie = world.signed_in("ann@example.com").await;
    world.post_as("delete-user", &[("cookie", &cookie), ("origin", ORIGIN)], json!({})).await;
    let link = world.link();
    let bare = link.split("&callbackURL").next().unwrap();
    let done = world.get(bare, &[("cookie", &cookie)]).await;
    assert_eq!((done.status, done.location()), (302, format!("{ORIGIN}/auth/delete-account").as_str()));
    assert!(!world.is_signed_in(&cookie).await);
}

#[tokio::test]
async fn a_sign_up_with_a_taken_address_writes_nothing_about_a_grant() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let world = world_with(Counter::default(), |ports| {
        let mut erasures = MockErasureRepo::new();
        erasures.expect_withhold_grant().returning(move |_, _, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(true)
        });
        Ports { erasures: Arc::new(erasures), ..ports }
    })
    .await;
    let body = json!({ "name": "Ann", "email": "ann@example.com", "password": PASSWORD });
    for _ in 0..3 {
        assert_eq!(world.post("sign-up/email", body.clone()).await.status, 200);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn whatever_body_a_sign_out_has_it_signs_out() {
    let world = world().await;
    world.person("ann@example.com", true).await;
    for (media, body) in [("application/json", "{"), ("application/json", "[]"), ("text/plain", "bye")] {
        let cookie = world.signed_in("ann@example.com").await;
        let headers = [("cookie", cookie.as_str()), ("origin", ORIGIN), ("content-type", media)];
        let done = world.send(Method::POST, "/api/auth/sign-out", &headers, Some(body.to_owned())).await;
        assert_eq!((done.status, &done.body), (200, &json!({ "success": true })), "{media} {body}");
        assert!(!world.is_signed_in(&cookie).await, "{media} {body}");
    }
}

#[tokio::test]
async fn a_subscriber_has_one_budget_for_doors_and_pages_whichever_address_they_use() {
    let world = behind_a_proxy().await;
    world.person("ann@example.com", true).await;
    let form = format!("email=ann%40example.com&password={PASSWORD}");
    let body = json!({ "email": "ann@example.com", "password": "wrong-password" });
    for host in 1..=2 {
        let from = format!("2001:db8::{host}");
        let refused = world.post_as("sign-in/email", &[("x-forwarded-for", &from)], body.clone()).await;
        assert_eq!(refused.code(), (401, "INVALID_EMAIL_OR_PASSWORD"));
    }
    assert_eq!(fill_in(&world, &[("x-forwarded-for", "2001:db8::3")], "/auth/sign-in", &form).await, "/auth/");
    let page = fill_in(&world, &[("x-forwarded-for", "2001:db8::4")], "/auth/sign-in", &form).await;
    assert_eq!(page, "/auth/sign-in?error=TOO_MANY_REQUESTS");
    let door = world.post_as("sign-in/email", &[("x-forwarded-for", "2001:db8::5")], body.clone()).await;
    assert_eq!(door.status, 429);
    let neighbour = world.post_as("sign-in/email", &[("x-forwarded-for", "2001:db8:0:1::1")], body).await;
    assert_eq!(neighbour.code(), (401, "INVALID_EMAIL_OR_PASSWORD"));
}

#[tokio::test]
async fn a_form_from_nowhere_is_counted_too() {
    let world = world_of(Counter::strict()).await;
    for _ in 0..3 {
        let page = fill_in(&world, &[], "/auth/forgot-password", "email=nobody%40example.com").await;
        assert_eq!(page, "/auth/forgot-password?sent=true");
    }
    let page = fill_in(&world, &[], "/auth/forgot-password", "email=nobody%40example.com").await;
    assert_eq!(page, "/auth/forgot-password?error=TOO_MANY_REQUESTS");
}

#[tokio::test]
async fn departures_to_a_provider_are_counted_as_sign_ins() {
    let world = behind_a_proxy().await;
    let from = [("x-forwarded-for", "192.0.2.1")];
    let begun = json!({ "provider": "nobody" });
    for _ in 0..2 {
        assert_eq!(world.post_as("sign-in/social", &from, begun.clone()).await.code(), (404, "PROVIDER_NOT_FOUND"));
    }
    let third = world.get("/auth/sign-in?provider=nobody&client_id=c", &from).await;
    assert_eq!(third.location(), "/auth/sign-in?client_id=c&error=PROVIDER_NOT_FOUND");
    let fourth = world.get("/auth/sign-in?provider=nobody&client_id=c", &from).await;
    assert_eq!(fourth.location(), "/auth/sign-in?client_id=c&error=TOO_MANY_REQUESTS");
    assert_eq!(world.get("/auth/sign-in", &from).await.status, 200, "looking at the page is free");
}
