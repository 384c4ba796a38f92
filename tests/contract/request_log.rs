//! The request log of both databases.

use airi_server::core::model::ids::{KeyEntryId, LogId, RequestId, UserId};
use airi_server::core::model::ledger::Flux;
use airi_server::core::model::request_log::{GenerationKind, LoggedRequest};

use crate::accounts::at;

fn row(id: i64) -> LoggedRequest {
    LoggedRequest {
        id: LogId::new(id.to_string()),
        request: RequestId::new(format!("r{id}")),
        user: UserId::new("u1"),
        kind: GenerationKind::Chat,
        model: "ä".repeat(300),
        status: 200,
        duration_ms: 1_500,
        first_byte_ms: None,
        charged: Flux::new(3).unwrap(),
        prompt_tokens: Some(11),
        completion_tokens: None,
        upstream: Some("example".to_owned()),
        key: Some(KeyEntryId::new("k1")),
        fallback_depth: Some(1),
        error: None,
        stream: true,
        at: at(id),
    }
}

const COUNTED: &str = "SELECT count(*), coalesce(sum(CASE WHEN length(model) = 200 AND kind = 'chat' AND key_id = 'k1'
    AND ttfb_ms IS NULL AND fallback_depth = 1 AND flux_consumed = 3 AND prompt_tokens = 11
    AND completion_tokens IS NULL AND stream AND request_id = 'r' || id THEN 1 ELSE 0 END), 0) FROM llm_request_log";

macro_rules! over {
    ($log:expr, $pool:expr) => {{
        let log = $log;
        log.insert(&[]).await.unwrap();
        let rows: Vec<_> = (0..2_500).map(row).collect();
        log.insert(&rows).await.unwrap();
        log.insert(&rows[..10]).await.unwrap();
        assert_eq!(sqlx::query_as::<_, (i64, i64)>(COUNTED).fetch_one($pool).await.unwrap(), (2_500, 2_500));
        assert_eq!(log.sweep(at(2_400)).await.unwrap(), 2_400);
        assert_eq!(log.sweep(at(2_400)).await.unwrap(), 0);
        assert_eq!(sqlx::query_as::<_, (i64, i64)>(COUNTED).fetch_one($pool).await.unwrap(), (100, 100));
    }};
}

#[tokio::test]
async fn a_batch_is_stored_once_and_old_rows_are_swept_in_the_embedded_database() {
    let db = crate::support::databases::sqlite().await;
    over!(airi_server::adapters::sqlite::request_log::SqliteRequestLog { db: db.clone() }, &db.readers);
}

#[cfg(feature = "live")]
#[tokio::test]
async fn a_batch_is_stored_once_and_old_rows_are_swept_in_postgresql() {
    let database = crate::support::databases::postgres().await;
    let pool = database.pool.clone();
    over!(airi_server::adapters::postgres::request_log::PgRequestLog { pool: pool.clone() }, &pool);
}
