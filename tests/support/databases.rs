//! Databases for one case each.

use airi_server::adapters::sqlite::{self, Sqlite};

/// The embedded database in memory, migrated.
pub(crate) async fn sqlite() -> Sqlite {
    sqlite::in_memory().await.unwrap()
}

#[cfg(feature = "live")]
pub(crate) use live::{PgDatabase, empty_postgres, postgres};

#[cfg(feature = "live")]
mod live {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{SystemTime, UNIX_EPOCH};

    use airi_server::adapters::postgres::migrate::migrate;
    use airi_server::adapters::postgres::{PostgresSettings, connect};
    use airi_server::core::model::secret::Secret;
    use sha2::{Digest, Sha256};
    use sqlx::postgres::{PgConnection, PgPool};
    use sqlx::{AssertSqlSafe, Connection};

    /// A database of its own, dropped with this value.
    pub(crate) struct PgDatabase {
        /// Connected to it.
        pub(crate) pool: PgPool,
        /// Where it is.
        pub(crate) url: String,
        name: String,
    }

    impl PgDatabase {
        /// How the server would be told about it.
        pub(crate) fn settings(&self) -> PostgresSettings {
            settings(&self.url)
        }
    }

    /// A migrated database, copied from a template.
    pub(crate) async fn postgres() -> PgDatabase {
        let template = template().await;
        create(&format!("TEMPLATE {template}")).await
    }

    /// A database without tables.
    pub(crate) async fn empty_postgres() -> PgDatabase {
        create("TEMPLATE template0").await
    }

    async fn create(how: &str) -> PgDatabase {
        let name = fresh_name("airi_test");
        run(&mut admin().await, format!("CREATE DATABASE {name} {how}")).await;
        let url = url_of(&name);
        let pool = connect(&settings(&url)).await.unwrap();
        PgDatabase { pool, url, name }
    }

    /// Made once for every text of the migrations and kept, since each case may be a process of its own.
    async fn template() -> String {
        let texts = [
            include_str!("../../migrations/postgres/0001_reference_schema.sql"),
            include_str!("../../migrations/postgres/reference_bookkeeping.sql"),
            include_str!("../../migrations/postgres/0002_ledger.sql"),
            include_str!("../../migrations/postgres/0003_request_log.sql"),
            include_str!("../../migrations/postgres/0004_config_and_audit.sql"),
            include_str!("../../migrations/postgres/0005_indexes.sql"),
            include_str!("../../migrations/postgres/0020_holds.sql"),
            include_str!("../../migrations/postgres/0042_one_cover.sql"),
            include_str!("../../migrations/postgres/0050_identity.sql"),
            include_str!("../../migrations/postgres/0051_token_families.sql"),
            include_str!("../../migrations/postgres/0060_stripe.sql"),
            include_str!("../../migrations/postgres/0070_chat_identity.sql"),
        ];
        let sum = hex::encode(Sha256::digest(texts.concat().as_bytes()));
        let template = format!("airi_template_{}", &sum[..16]);
        let mut admin = admin().await;
        if exists(&mut admin, &template).await {
            return template;
        }
        sqlx::query("SELECT pg_advisory_lock(hashtext('airi_template'))").execute(&mut admin).await.unwrap();
        if !exists(&mut admin, &template).await {
            // Renamed when complete, so that nobody copies half of it.
            let building = fresh_name("airi_building");
            run(&mut admin, format!("CREATE DATABASE {building} TEMPLATE template0")).await;
            migrate(&settings(&url_of(&building))).await.unwrap();
            run(&mut admin, format!("ALTER DATABASE {building} RENAME TO {template}")).await;
        }
        admin.close().await.unwrap();
        template
    }

    async fn exists(admin: &mut PgConnection, name: &str) -> bool {
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(name)
            .fetch_one(admin)
            .await
            .unwrap()
    }

    async fn admin() -> PgConnection {
        PgConnection::connect(&admin_url()).await.expect("PostgreSQL at TEST_DATABASE_URL does not answer")
    }

    async fn run(connection: &mut PgConnection, statement: String) {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.unwrap();
    }

    #[expect(clippy::disallowed_methods, reason = "a suite has no settings file")]
    fn admin_url() -> String {
        std::env::var("TEST_DATABASE_URL").expect(
            "set TEST_DATABASE_URL to a PostgreSQL where databases may be created, e.g. postgres://user@host/postgres",
        )
    }

    fn url_of(database: &str) -> String {
        let mut url = url::Url::parse(&admin_url()).unwrap();
        url.set_path(database);
        url.into()
    }

    fn settings(url: &str) -> PostgresSettings {
        PostgresSettings { url: Secret::new(url), pool_max: 10, ..PostgresSettings::default() }
    }

    #[expect(clippy::disallowed_methods, reason = "names of databases must differ between runs")]
    fn fresh_name(kind: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
        format!("{kind}_{}_{now}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
    }

    impl Drop for PgDatabase {
        fn drop(&mut self) {
            let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
            // The runtime of the test cannot be waited for here.
            let dropped = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async { run(&mut admin().await, statement).await });
            })
            .join();
            if !std::thread::panicking() {
                dropped.unwrap();
            }
        }
    }
}
