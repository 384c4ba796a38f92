//! One database, and what tests look up in it.

use std::sync::Arc;

use airi_server::adapters::sqlite::accounts::SqliteAccounts;
use airi_server::adapters::sqlite::billing::SqliteBilling;
use airi_server::adapters::sqlite::ledger::SqliteLedger;
use airi_server::core::model::ids::UserId;
use airi_server::core::model::ledger::{EntryKind, Flux, Standing};
use airi_server::core::model::page::Window;
use airi_server::ports::accounts::AccountRepo;
use airi_server::ports::billing::BillingRepo;
use airi_server::ports::ledger::LedgerRepo;

use crate::books::flux;

/// One database, seen through the ports payments need.
pub(crate) struct World {
    pub(crate) repo: Arc<dyn BillingRepo>,
    pub(crate) ledger: Arc<dyn LedgerRepo>,
    pub(crate) accounts: Arc<dyn AccountRepo>,
    debts: Debts,
    _keep: Box<dyn std::any::Any + Send + Sync>,
}

/// Where debts can be read past the ports, none of which tells them.
enum Debts {
    Sqlite(sqlx::SqlitePool),
    #[cfg(feature = "live")]
    Postgres(sqlx::PgPool),
}

impl World {
    pub(crate) async fn sqlite() -> Self {
        let db = crate::support::databases::sqlite().await;
        Self {
            repo: Arc::new(SqliteBilling { db: db.clone() }),
            ledger: Arc::new(SqliteLedger::new(db.clone())),
            debts: Debts::Sqlite(db.readers.clone()),
            accounts: Arc::new(SqliteAccounts { db }),
            _keep: Box::new(()),
        }
    }

    #[cfg(feature = "live")]
    pub(crate) async fn postgres() -> Self {
        use airi_server::adapters::postgres::{accounts::PgAccounts, billing::PgBilling, ledger::PgLedger};
        let db = crate::support::databases::postgres().await;
        let pool = db.pool.clone();
        Self {
            repo: Arc::new(PgBilling { pool: pool.clone() }),
            ledger: Arc::new(PgLedger::new(pool.clone())),
            debts: Debts::Postgres(pool.clone()),
            accounts: Arc::new(PgAccounts { pool }),
            _keep: Box::new(db),
        }
    }

    pub(crate) async fn balance(&self, user: &UserId) -> i64 {
        match self.ledger.find(user).await.unwrap() {
            Standing::Open(balance) => balance.flux.get(),
            Standing::Closed | Standing::Absent => -1,
        }
    }

    /// Flux the user owes after refunds.
    pub(crate) async fn owed(&self, user: &UserId) -> Flux {
        let owed: Option<i64> = match &self.debts {
            Debts::Sqlite(pool) => sqlx::query_scalar("select owed from flux_owed where user_id = ?1")
                .bind(user.as_str())
                .fetch_optional(pool)
                .await
                .unwrap(),
            #[cfg(feature = "live")]
            Debts::Postgres(pool) => sqlx::query_scalar("select owed from flux_owed where user_id = $1")
                .bind(user.as_str())
                .fetch_optional(pool)
                .await
                .unwrap(),
        };
        owed.map_or(Flux::ZERO, flux)
    }

    /// Checks that the user's entries chain, and answers how many there are.
    pub(crate) async fn audit(&self, user: &UserId) -> usize {
        let page = self.ledger.list(user, Window { limit: 100, offset: 0 }, None).await.unwrap();
        let mut balance = 0;
        for entry in page.items.iter().rev() {
            assert_eq!(entry.before.get(), balance, "{:#?}", page.items);
            let amount = entry.amount.get();
            balance += if entry.kind == EntryKind::Debit { -amount } else { amount };
            assert_eq!(entry.after.get(), balance, "{:#?}", page.items);
        }
        if !page.items.is_empty() {
            assert_eq!(self.balance(user).await, balance);
        }
        page.items.len()
    }
}
