//! `AuditLog` over both databases: a row is stored as it was given, and never twice.

use airi_server::core::model::audit::{Actor, AuditOutcome, AuditRow};
use airi_server::core::model::ids::{RequestId, UserId};
use airi_server::ports::audit::AuditLog;
use serde_json::json;

use crate::accounts::at;

fn row(id: &str) -> AuditRow {
    AuditRow {
        id: id.to_owned(),
        at: at(7),
        actor: Actor {
            user: UserId::new("u1"),
            email: "root@example.test".to_owned(),
            request: Some(RequestId::new("r1")),
            ip: None,
            user_agent: Some("curl/8 'ä'".to_owned()),
        },
        action: "config.router",
        target: "LLM_ROUTER_CONFIG".to_owned(),
        dry_run: true,
        outcome: AuditOutcome::DryRun,
        status: 200,
        summary: json!({"mode": "merge"}).as_object().cloned().unwrap(),
    }
}

async fn a_row_is_recorded_once(log: &dyn AuditLog) {
    log.record(&row("a1")).await.unwrap();
    assert!(log.record(&row("a1")).await.is_err(), "an append-only log does not take an id twice");
    let shell = AuditRow { id: "a2".to_owned(), actor: Actor::command_line(), ..row("a2") };
    log.record(&shell).await.unwrap();
}

#[tokio::test]
async fn a_row_is_stored_as_given_in_the_embedded_database() {
    let db = crate::support::databases::sqlite().await;
    a_row_is_recorded_once(&airi_server::adapters::sqlite::audit::SqliteAuditLog { db: db.clone() }).await;
    let stored: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM admin_audit_log WHERE id = 'a1' AND at = ? AND actor_user_id = 'u1' \
         AND actor_email = 'root@example.test' AND action = 'config.router' AND target = 'LLM_ROUTER_CONFIG' \
         AND request_id = 'r1' AND ip IS NULL AND user_agent = 'curl/8 ''ä''' AND dry_run = 1 \
         AND outcome = 'dry_run' AND status = 200 AND summary ->> 'mode' = 'merge'",
    )
    .bind(at(7).timestamp_micros())
    .fetch_one(&db.readers)
    .await
    .unwrap();
    assert_eq!(stored, 1);
}

#[cfg(feature = "live")]
#[tokio::test]
async fn a_row_is_stored_as_given_in_postgresql() {
    let database = crate::support::databases::postgres().await;
    let pool = database.pool.clone();
    a_row_is_recorded_once(&airi_server::adapters::postgres::audit::PgAuditLog { pool: pool.clone() }).await;
    let stored: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM admin_audit_log WHERE id = 'a1' AND at = $1 AND actor_user_id = 'u1' \
         AND actor_email = 'root@example.test' AND action = 'config.router' AND target = 'LLM_ROUTER_CONFIG' \
         AND request_id = 'r1' AND ip IS NULL AND user_agent = 'curl/8 ''ä''' AND dry_run \
         AND outcome = 'dry_run' AND status = 200 AND summary ->> 'mode' = 'merge'",
    )
    .bind(at(7).naive_utc())
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(stored, 1);
}
