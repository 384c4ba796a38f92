use serde_json::json;

use super::*;

async fn grant(world: &World, document: &Value) -> Result<GrantAnswer, Error> {
    world.admin.grant_flux(&actor(), document.to_string().as_bytes(), false).await
}

fn entries(world: &World) -> usize {
    world.ledger.0.lock().unwrap().len()
}

#[tokio::test]
async fn the_dry_run_of_the_fixture_counts_and_gives_nothing() {
    let fixture: Value = serde_json::from_str(include_str!("../../../../tests/fixtures/admin-cases.json")).unwrap();
    let case = fixture["fluxGrants"].as_array().unwrap().iter().find(|case| case["query"] == "dryRun=true").unwrap();
    let world = world(Policy::default());
    let body = case["body"].to_string();
    let answer = world.admin.grant_flux(&actor(), body.as_bytes(), true).await.unwrap();
    let (summary, wanted) = (answer.summary, &case["response"]["preview"]);
    assert_eq!(
        (json!(summary.total_emails), json!(summary.will_grant)),
        (wanted["totalEmails"].clone(), wanted["willGrant"].clone())
    );
    assert_eq!(
        json!({"notFound": summary.not_found, "userDeleted": summary.user_deleted, "duplicateInInput": summary.duplicate_in_input}),
        wanted["willSkip"]
    );
    assert_eq!(json!(summary.total_flux), wanted["totalFluxToIssue"]);
    assert_eq!(
        json!({"willGrant": summary.sample_will_grant, "notFound": summary.sample_not_found, "userDeleted": summary.sample_user_deleted}),
        wanted["samples"]
    );
    assert!(answer.result.is_none());
    assert_eq!((entries(&world), world.seen.outcomes()), (0, vec![("dry_run", 200)]));
}

#[tokio::test]
async fn two_hundred_addresses_of_every_sort_each_get_what_is_due() {
    let world = world(Policy::default());
    let mut emails: Vec<_> = (0..160).map(|n| format!("u{n}@example.test")).collect();
    emails.extend((0..10).map(|n| format!("U{n}@Example.test")));
    emails.extend((0..10).map(|n| format!("ghost{n}@example.test")));
    emails.extend((0..10).map(|n| format!("closed{n}@example.test")));
    emails.extend((0..10).map(|n| format!("broken{n}@example.test")));
    let answer = grant(&world, &json!({"description": "d", "amount": 10, "emails": emails})).await.unwrap();
    let summary = answer.summary;
    assert_eq!((summary.total_emails, summary.will_grant, summary.total_flux), (200, 170, 1_700));
    assert_eq!((summary.duplicate_in_input, summary.not_found, summary.user_deleted), (10, 10, 10));
    assert_eq!(summary.sample_will_grant.len(), 5);
    let result = answer.result.unwrap();
    assert_eq!((result.granted.len(), result.skipped.len(), result.failed.len()), (160, 30, 10));
    assert_eq!((result.granted[3].email.as_str(), result.granted[3].balance_after.get()), ("u3@example.test", 10));
    assert_eq!(result.skipped[0].email, "U0@Example.test");
    assert_eq!(result.failed[0].error, "the credit could not be made; reference req-1");
    assert!(!format!("{:?}", result.failed).contains("db.internal"));
    assert_eq!(entries(&world), 160);
    assert_eq!(world.seen.outcomes(), [("begun", 0), ("applied", 200)]);
}

#[tokio::test]
async fn the_ledger_row_is_the_fixtures() {
    let world = world(Policy::default());
    let document = json!({"description": "d", "amount": 10, "emails": ["u1@example.test"], "idempotencyKey": "k"});
    grant(&world, &document).await.unwrap();
    let (user, entry) = world.ledger.0.lock().unwrap()[0].clone();
    assert_eq!((user.as_str(), entry.kind.as_str(), entry.description.as_str()), ("u1", "promo", "d"));
    assert_eq!(entry.request.unwrap().as_str(), "flux-grant:k:u1");
    assert_eq!(
        Value::Object(entry.metadata.unwrap()),
        json!({"description": "d", "issuedByUserId": "admin-1", "idempotencyKey": "k"})
    );
}

#[tokio::test]
async fn a_repetition_is_marked_and_other_terms_are_a_conflict_before_anything_is_written() {
    let world = world(Policy::default());
    let document = |amount: i64, description: &str, emails: &[&str]| json!({"description": description, "amount": amount, "emails": emails, "idempotencyKey": "k1"});
    let first = grant(&world, &document(10, "d", &["u1@example.test"])).await.unwrap().result.unwrap();
    assert!(!first.granted[0].replayed);
    let both = ["u1@example.test", "u2@example.test"];
    let second = grant(&world, &document(10, "d", &both)).await.unwrap().result.unwrap();
    assert_eq!((second.granted[0].replayed, second.granted[1].replayed), (true, false));
    assert_eq!(second.granted[0].entry, first.granted[0].entry);
    assert_eq!(second.granted[0].balance_after.get(), 10);
    for other in [document(99, "d", &["u3@example.test", "u1@example.test"]), document(10, "other", &both)] {
        assert_eq!(grant(&world, &other).await.unwrap_err().code, Code::Conflict);
    }
    assert_eq!(entries(&world), 2);
}

#[tokio::test]
async fn without_a_key_the_same_request_gives_again() {
    let world = world(Policy::default());
    let document = json!({"description": "d", "amount": 10, "emails": ["u1@example.test"]});
    grant(&world, &document).await.unwrap();
    let again = grant(&world, &document).await.unwrap().result.unwrap();
    assert_eq!(again.granted[0].balance_after.get(), 20);
}

#[tokio::test]
async fn when_time_runs_out_the_rest_is_named() {
    let world = world(Policy::default());
    // One look at the clock to start, five while looking up, one before each credit: the third credit is too late.
    world.pace_ms.store(3_200, Ordering::Relaxed);
    let emails: Vec<_> = (0..5).map(|n| format!("u{n}@example.test")).collect();
    let answer = grant(&world, &json!({"description": "d", "amount": 1, "emails": emails})).await.unwrap();
    let result = answer.result.unwrap();
    assert_eq!((result.granted.len(), result.failed.len()), (2, 3));
    assert!(result.failed.iter().all(|failed| failed.error == "not attempted"));
    assert_eq!(entries(&world), 2);
}

#[tokio::test]
async fn what_cannot_be_audited_is_not_given() {
    let world = world(Policy::default());
    world.seen.is_down.store(true, Ordering::Relaxed);
    let document = json!({"description": "d", "amount": 1, "emails": ["u1@example.test"]});
    assert_eq!(grant(&world, &document).await.unwrap_err().code, Code::ServiceUnavailable);
    assert_eq!(entries(&world), 0);
}

#[tokio::test]
async fn one_person_is_given_flux_and_the_balance_is_told() {
    let world = world(Policy::default());
    let shell = Actor::command_line();
    let one = |email: &'static str, key| world.admin.grant_one(&shell, email, 50_000, "thanks", key);
    assert_eq!(one("U1@example.test", Some("k")).await.unwrap().get(), 50_000);
    assert_eq!(one("u1@example.test", Some("k")).await.unwrap().get(), 50_000);
    assert_eq!(one("u1@example.test", None).await.unwrap().get(), 100_000);
    assert_eq!(one("ghost@example.test", None).await.unwrap_err().code, Code::NotFound);
    assert_eq!(one("closed1@example.test", None).await.unwrap_err().code, Code::Conflict);
    assert_eq!(one("broken1@example.test", None).await.unwrap_err().code, Code::ServiceUnavailable);
    assert_eq!(one("nobody", None).await.unwrap_err().code, Code::InvalidRequest);
    assert!(world.admin.grant_one(&shell, "u1@example.test", 0, "r", None).await.is_err());
}
