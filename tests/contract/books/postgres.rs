//! The live half of [`World`]: one fresh database per test.

use std::sync::Arc;

use airi_server::adapters::postgres::ledger::PgLedger;
use airi_server::adapters::postgres::meter::PgMeter;
use airi_server::core::model::ids::UserId;
use airi_server::ports::ledger::LedgerRepo;

use super::{Books, RowTuple, World};
use crate::support::{self, databases::PgDatabase};

pub(crate) struct Database(PgDatabase);

impl World {
    /// On a fresh database of the live server.
    pub(crate) async fn postgres() -> Self {
        let db = Database(support::databases::postgres().await);
        Self { ledger: db.ledger(), meter: Arc::new(PgMeter { pool: db.0.pool.clone() }), books: Books::Postgres(db) }
    }

    /// Holds the user's balance row, as another server in the middle of a transaction does.
    pub(crate) async fn hold(&self, user: &UserId) -> sqlx::Transaction<'static, sqlx::Postgres> {
        let Books::Postgres(db) = &self.books else { panic!("only PostgreSQL has other writers") };
        let mut tx = db.0.pool.begin().await.unwrap();
        let lock = sqlx::query("select 1 from user_flux where user_id = $1 for update").bind(user.as_str());
        lock.execute(&mut *tx).await.unwrap();
        tx
    }
}

impl Database {
    pub(crate) fn ledger(&self) -> Arc<dyn LedgerRepo> {
        Arc::new(PgLedger::new(self.0.pool.clone()))
    }

    pub(crate) async fn flux(&self, user: &UserId) -> Option<i64> {
        let query = sqlx::query_scalar("select flux from user_flux where user_id = $1").bind(user.as_str());
        query.fetch_optional(&self.0.pool).await.unwrap()
    }

    pub(crate) async fn entries(&self, user: &UserId) -> Vec<RowTuple> {
        let query = sqlx::query_as(
            "select id, type, amount, balance_before, balance_after, request_id, \
               (extract(epoch from created_at) * 1000000)::int8, (select flux from user_flux where user_id = $1) \
             from flux_transaction where user_id = $1 order by created_at, id",
        );
        query.bind(user.as_str()).fetch_all(&self.0.pool).await.unwrap()
    }

    pub(crate) async fn close(&self, user: &UserId) {
        let query = sqlx::query("update user_flux set deleted_at = now() where user_id = $1");
        self.run(query.bind(user.as_str())).await;
    }

    pub(crate) async fn reference_row(&self, user: &UserId, flux: i64) {
        let query = sqlx::query("insert into user_flux (user_id, flux) values ($1, $2)");
        self.run(query.bind(user.as_str()).bind(flux)).await;
    }

    pub(crate) async fn reference_entry(
        &self,
        user: &UserId,
        id: &str,
        kind: &str,
        (amount, before, after): (i64, i64, i64),
        request: Option<&str>,
    ) {
        let query = sqlx::query(
            "insert into flux_transaction \
               (id, user_id, type, amount, balance_before, balance_after, request_id, description) \
             values ($1, $2, $3, $4, $5, $6, $7, 'theirs')",
        );
        let query = query.bind(id).bind(user.as_str()).bind(kind).bind(amount).bind(before).bind(after);
        self.run(query.bind(request)).await;
    }

    pub(crate) async fn postpone(&self, user: &UserId, by: i64) {
        let row = sqlx::query(
            "update user_flux set updated_at = updated_at + $2 * interval '1 microsecond' where user_id = $1",
        );
        self.run(row.bind(user.as_str()).bind(by)).await;
        let entries = sqlx::query(
            "update flux_transaction set created_at = created_at + $2 * interval '1 microsecond' where user_id = $1",
        );
        self.run(entries.bind(user.as_str()).bind(by)).await;
    }

    pub(crate) async fn age_debt(&self, user: &UserId, by: i64) {
        let query = sqlx::query(
            "update flux_meter_debt set updated_at = updated_at - $2 * interval '1 microsecond' where user_id = $1",
        );
        self.run(query.bind(user.as_str()).bind(by)).await;
    }

    pub(crate) async fn uses(&self, user: &UserId) -> i64 {
        let query = sqlx::query_scalar("select count(*) from flux_meter_usage where user_id = $1").bind(user.as_str());
        query.fetch_one(&self.0.pool).await.unwrap()
    }

    pub(crate) async fn units(&self, user: &UserId) -> i64 {
        let sum = "select coalesce(sum(units), 0)::int8 from flux_meter_usage where user_id = $1";
        sqlx::query_scalar(sum).bind(user.as_str()).fetch_one(&self.0.pool).await.unwrap()
    }

    async fn run(&self, query: sqlx::query::Query<'_, sqlx::Postgres, sqlx::postgres::PgArguments>) {
        query.execute(&self.0.pool).await.unwrap();
    }
}
