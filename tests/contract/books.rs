//! A ledger and a meter over one fresh database, and the same database seen without them: to arrange what only others
//! write, and to check the books.

#[cfg(feature = "live")]
mod postgres;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use airi_server::adapters::sqlite::ledger::SqliteLedger;
use airi_server::adapters::sqlite::meter::SqliteMeter;
use airi_server::adapters::sqlite::{self, Ownership, Sqlite};
use airi_server::core::model::ids::{EntryId, RequestId, UserId};
use airi_server::core::model::ledger::{Credit, Debit, EntryKind, Flux, Opening};
use airi_server::ports::ledger::{LedgerRepo, UsageMeter};
use serde_json::Map;

pub(crate) struct World {
    pub(crate) ledger: Arc<dyn LedgerRepo>,
    pub(crate) meter: Arc<dyn UsageMeter>,
    books: Books,
}

enum Books {
    Sqlite(Sqlite, #[expect(dead_code, reason = "the directory goes when the world goes")] Option<tempfile::TempDir>),
    #[cfg(feature = "live")]
    Postgres(postgres::Database),
}

/// A ledger row as stored; `at` in microseconds.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) amount: i64,
    pub(crate) before: i64,
    pub(crate) after: i64,
    pub(crate) request: Option<String>,
    pub(crate) at: i64,
    /// The user's balance at the moment of reading, which others may be changing.
    pub(crate) balance: Option<i64>,
}

type RowTuple = (String, String, i64, i64, i64, Option<String>, i64, Option<i64>);

impl World {
    /// On a disk, as an operator runs it.
    pub(crate) async fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let db = sqlite::open(directory.path(), Ownership::Sole).await.unwrap();
        Self::on_sqlite(db, Some(directory))
    }

    /// In memory: quick enough for hundreds of cases.
    pub(crate) async fn sqlite_in_memory() -> Self {
        Self::on_sqlite(sqlite::in_memory().await.unwrap(), None)
    }

    fn on_sqlite(db: Sqlite, directory: Option<tempfile::TempDir>) -> Self {
        Self {
            ledger: Arc::new(SqliteLedger::new(db.clone())),
            meter: Arc::new(SqliteMeter { db: db.clone() }),
            books: Books::Sqlite(db, directory),
        }
    }

    /// A second ledger on the same tables, like that of another process.
    pub(crate) fn another_ledger(&self) -> Arc<dyn LedgerRepo> {
        match &self.books {
            Books::Sqlite(db, _) => Arc::new(SqliteLedger::new(db.clone())),
            #[cfg(feature = "live")]
            Books::Postgres(db) => db.ledger(),
        }
    }

    /// A user opened with a balance.
    pub(crate) async fn rich(&self, name: impl AsRef<str>, balance: i64) -> UserId {
        let user = UserId::new(name.as_ref());
        self.ledger.open(&user, &opening(balance)).await.unwrap();
        user
    }

    pub(crate) async fn flux(&self, user: &UserId) -> Option<i64> {
        match &self.books {
            Books::Sqlite(db, _) => sqlx::query_scalar("select flux from user_flux where user_id = ?1")
                .bind(user.as_str())
                .fetch_optional(&db.writer)
                .await
                .unwrap(),
            #[cfg(feature = "live")]
            Books::Postgres(db) => db.flux(user).await,
        }
    }

    /// The user's entries, oldest first.
    pub(crate) async fn entries(&self, user: &UserId) -> Vec<Row> {
        let rows: Vec<RowTuple> = match &self.books {
            Books::Sqlite(db, _) => sqlx::query_as(
                "select id, type, amount, balance_before, balance_after, request_id, created_at, \
                   (select flux from user_flux where user_id = ?1) \
                 from flux_transaction where user_id = ?1 order by created_at, id",
            )
            .bind(user.as_str())
            .fetch_all(&db.writer)
            .await
            .unwrap(),
            #[cfg(feature = "live")]
            Books::Postgres(db) => db.entries(user).await,
        };
        let row = |(id, kind, amount, before, after, request, at, balance)| Row {
            id,
            kind,
            amount,
            before,
            after,
            request,
            at,
            balance,
        };
        rows.into_iter().map(row).collect()
    }

    /// Checks every invariant of the ledger (contract `ledger.md` §3) and answers the entries, oldest first.
    pub(crate) async fn audit(&self, user: &UserId) -> Vec<Row> {
        let entries = self.entries(user).await;
        let mut requests = std::collections::HashSet::new();
        let mut balance = 0;
        let mut last = i64::MIN;
        for entry in &entries {
            assert!(entry.at > last, "times must grow: {entries:#?}");
            assert_eq!(entry.before, balance, "entries must chain: {entries:#?}");
            balance += if entry.kind == "debit" { -entry.amount } else { entry.amount };
            assert_eq!(entry.after, balance, "{entry:?}");
            assert!(balance >= 0 && entry.amount >= 0, "{entry:?}");
            if let Some(request) = &entry.request {
                assert!(requests.insert(request.clone()), "one object, one entry: {entry:?}");
            }
            last = entry.at;
        }
        assert!(entries.iter().filter(|entry| entry.kind == "initial").count() <= 1, "{entries:#?}");
        match entries.last() {
            Some(newest) => assert_eq!(newest.balance, Some(newest.after)),
            None => assert_eq!(self.flux(user).await, None),
        }
        entries
    }

    /// Account deletion, as the ledger sees it.
    pub(crate) async fn close(&self, user: &UserId) {
        match &self.books {
            Books::Sqlite(db, _) => {
                run(
                    sqlx::query("update user_flux set deleted_at = updated_at where user_id = ?1").bind(user.as_str()),
                    db,
                )
                .await;
            }
            #[cfg(feature = "live")]
            Books::Postgres(db) => db.close(user).await,
        }
    }

    /// A balance row as the reference inserts it: without a version.
    pub(crate) async fn reference_row(&self, user: &UserId, flux: i64) {
        match &self.books {
            Books::Sqlite(db, _) => {
                let insert = sqlx::query("insert into user_flux (user_id, flux) values (?1, ?2)");
                run(insert.bind(user.as_str()).bind(flux), db).await;
            }
            #[cfg(feature = "live")]
            Books::Postgres(db) => db.reference_row(user, flux).await,
        }
    }

    /// An entry as the reference inserts it: amount, before, after; no metadata.
    pub(crate) async fn reference_entry(
        &self,
        user: &UserId,
        id: &str,
        kind: &str,
        (amount, before, after): (i64, i64, i64),
        request: Option<&str>,
    ) {
        // Its times have milliseconds; two rows of one would not be in order.
        tokio::time::sleep(Duration::from_millis(2)).await;
        match &self.books {
            Books::Sqlite(db, _) => {
                let insert = sqlx::query(
                    "insert into flux_transaction \
                       (id, user_id, type, amount, balance_before, balance_after, request_id, description) \
                     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'theirs')",
                );
                let insert = insert.bind(id).bind(user.as_str()).bind(kind).bind(amount).bind(before).bind(after);
                run(insert.bind(request), db).await;
            }
            #[cfg(feature = "live")]
            Books::Postgres(db) => db.reference_entry(user, id, kind, (amount, before, after), request).await,
        }
    }

    /// Puts the user's newest time ahead of the clock.
    pub(crate) async fn postpone(&self, user: &UserId, by: Duration) {
        let by = i64::try_from(by.as_micros()).unwrap();
        match &self.books {
            Books::Sqlite(db, _) => {
                let row = sqlx::query("update user_flux set updated_at = updated_at + ?2 where user_id = ?1");
                run(row.bind(user.as_str()).bind(by), db).await;
                let entries =
                    sqlx::query("update flux_transaction set created_at = created_at + ?2 where user_id = ?1");
                run(entries.bind(user.as_str()).bind(by), db).await;
            }
            #[cfg(feature = "live")]
            Books::Postgres(db) => db.postpone(user, by).await,
        }
    }

    /// Lets a debt lie untouched.
    pub(crate) async fn age_debt(&self, user: &UserId, by: Duration) {
        let by = i64::try_from(by.as_micros()).unwrap();
        match &self.books {
            Books::Sqlite(db, _) => {
                let row = sqlx::query("update flux_meter_debt set updated_at = updated_at - ?2 where user_id = ?1");
                run(row.bind(user.as_str()).bind(by), db).await;
            }
            #[cfg(feature = "live")]
            Books::Postgres(db) => db.age_debt(user, by).await,
        }
    }

    /// How many metered uses of the user are stored.
    pub(crate) async fn uses(&self, user: &UserId) -> i64 {
        match &self.books {
            Books::Sqlite(db, _) => sqlx::query_scalar("select count(*) from flux_meter_usage where user_id = ?1")
                .bind(user.as_str())
                .fetch_one(&db.writer)
                .await
                .unwrap(),
            #[cfg(feature = "live")]
            Books::Postgres(db) => db.uses(user).await,
        }
    }

    /// Units of all of them.
    pub(crate) async fn units(&self, user: &UserId) -> i64 {
        match &self.books {
            Books::Sqlite(db, _) => {
                let sum = "select coalesce(sum(units), 0) from flux_meter_usage where user_id = ?1";
                sqlx::query_scalar(sum).bind(user.as_str()).fetch_one(&db.writer).await.unwrap()
            }
            #[cfg(feature = "live")]
            Books::Postgres(db) => db.units(user).await,
        }
    }

    /// Waits until something has become so.
    pub(crate) async fn wait_for(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let waiting = async {
            while !condition().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("never came: {what}"));
    }
}

async fn run<'q>(query: sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>, db: &Sqlite) {
    query.execute(&db.writer).await.unwrap();
}

pub(crate) fn flux(amount: i64) -> Flux {
    Flux::new(amount).unwrap()
}

pub(crate) fn request(id: &str) -> RequestId {
    RequestId::new(id)
}

/// Fresh, unique within the process.
pub(crate) fn entry_id() -> EntryId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    EntryId::new(format!("entry-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

pub(crate) fn opening(grant: i64) -> Opening {
    Opening { entry: entry_id(), grant: flux(grant) }
}

pub(crate) fn debit(user: &UserId, id: &str, amount: i64) -> Debit {
    Debit {
        entry: entry_id(),
        user: user.clone(),
        request: request(id),
        amount: flux(amount),
        description: "llm_request",
        metadata: Map::new(),
    }
}

pub(crate) fn credit(user: &UserId, id: Option<&str>, amount: i64) -> Credit {
    Credit {
        entry: entry_id(),
        user: user.clone(),
        request: id.map(request),
        amount: flux(amount),
        kind: EntryKind::Promo,
        description: "gift".to_owned(),
        metadata: None,
        opening: opening(0),
    }
}
