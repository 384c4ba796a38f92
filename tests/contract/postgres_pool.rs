//! The pool of PostgreSQL and its probe.

use airi_server::adapters::postgres::PgProbe;
use airi_server::ports::FaultKind;
use airi_server::ports::probe::Probe;

use crate::support::databases::postgres;

#[tokio::test]
async fn a_pool_whose_connections_the_server_has_cut_goes_on_with_new_ones() {
    let database = postgres().await;
    let probe = PgProbe { pool: database.pool.clone() };
    for check in futures::future::join_all((0..10).map(|_| probe.check())).await {
        check.unwrap();
    }
    let knife = postgres().await;
    let cut: Vec<bool> = sqlx::query_scalar(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
         WHERE datname = $1 AND application_name = 'airi-server'",
    )
    .bind(database.url.rsplit('/').next())
    .fetch_all(&knife.pool)
    .await
    .unwrap();
    assert!(!cut.is_empty() && cut.iter().all(|cut| *cut));
    for _ in 0..cut.len() + 1 {
        probe.check().await.unwrap();
    }
}

#[tokio::test]
async fn a_closed_pool_is_unavailable() {
    let database = postgres().await;
    database.pool.close().await;
    let fault = PgProbe { pool: database.pool.clone() }.check().await.unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Unavailable);
}
