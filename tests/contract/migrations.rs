//! What start-up makes of a database, whoever made it (contract `schema.md` §2).

use airi_server::adapters::postgres::PostgresSettings;
use airi_server::adapters::postgres::migrate::{MigrateError, Migrated, migrate};
use sqlx::postgres::PgPool;

use crate::support::databases::{PgDatabase, empty_postgres};

const REFERENCE: &str = include_str!("../../migrations/postgres/0001_reference_schema.sql");
const BOOKKEEPING: &str = include_str!("../../migrations/postgres/reference_bookkeeping.sql");
const OURS: [&str; 10] = [
    "ledger",
    "request_log",
    "config_and_audit",
    "indexes",
    "holds",
    "one_cover",
    "identity",
    "token_families",
    "stripe",
    "chat_identity",
];

async fn run(pool: &PgPool, sql: &'static str) {
    sqlx::raw_sql(sql).execute(pool).await.unwrap();
}

async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

async fn made_by_the_reference() -> PgDatabase {
    let database = empty_postgres().await;
    run(&database.pool, REFERENCE).await;
    run(&database.pool, BOOKKEEPING).await;
    database
}

fn nothing() -> Migrated {
    Migrated::default()
}

#[tokio::test]
async fn an_empty_database_gets_the_tables_of_the_reference_exactly_and_ours() {
    let database = empty_postgres().await;
    let report = migrate(&database.settings()).await.unwrap();
    assert_eq!(report.applied[0], "reference_schema");
    assert_eq!(report.applied[1..], OURS);
    assert_eq!(report.warnings, Vec::<String>::new());
    assert_eq!(count(&database.pool, "SELECT count(*) FROM drizzle.__drizzle_migrations").await, 12);
    assert_eq!(
        count(&database.pool, "SELECT max(created_at) FROM drizzle.__drizzle_migrations").await,
        1_779_100_599_148
    );

    let fixture: serde_json::Value = serde_json::from_str(include_str!("../fixtures/reference-catalog.json")).unwrap();
    assert_eq!(fixture.as_object().unwrap().len(), 34);
    for (table, columns) in fixture.as_object().unwrap() {
        let found: Vec<(String, String, bool, Option<String>)> = sqlx::query_as(
            "SELECT attname::text, format_type(atttypid, atttypmod), NOT attnotnull, pg_get_expr(adbin, adrelid)
             FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
             WHERE attrelid = to_regclass(quote_ident($1)) AND attnum > 0 ORDER BY attnum",
        )
        .bind(table)
        .fetch_all(&database.pool)
        .await
        .unwrap();
        let wanted: Vec<_> = columns
            .as_array()
            .unwrap()
            .iter()
            .map(|column| {
                let text = |key: &str| column[key].as_str().map(str::to_owned);
                (text("column").unwrap(), text("type").unwrap(), column["nullable"].as_bool().unwrap(), text("default"))
            })
            .collect();
        // A literal's default is stored with its type.
        let found: Vec<_> = found
            .into_iter()
            .map(|(name, kind, nullable, default)| {
                (name, kind, nullable, default.map(|text| text.split("::").next().unwrap().to_owned()))
            })
            .collect();
        assert_eq!(found[..wanted.len().min(found.len())], wanted[..], "{table}");
        let ours = found.len() - wanted.len();
        assert_eq!(
            ours,
            match table.as_str() {
                "user_flux" => 2,
                "llm_request_log" => 8,
                "oauth_refresh_token" | "oauth_access_token" => 1,
                "stripe_customer" | "stripe_subscription" => 2,
                "stripe_checkout_session" => 4,
                "stripe_invoice" => 5,
                _ => 0,
            },
            "{table}"
        );
    }

    let names: Vec<String> = sqlx::query_scalar(
        "SELECT conname::text FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace
         UNION ALL SELECT relname::text FROM pg_class WHERE relkind = 'i' AND relnamespace = 'public'::regnamespace",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    for name in [
        "user_email_unique",
        "session_userId_idx",
        "user_character_likes_user_id_character_id_pk",
        "oauth_refresh_token_client_id_oauth_client_client_id_fk",
        "flux_tx_user_request_uniq",
        "flux_grant_batch_recipient_pending_idx",
        "airi_user_email_lower",
        "airi_messages_chat_seq",
    ] {
        assert!(names.iter().any(|found| found == name), "{name}");
    }
    assert_eq!(count(&database.pool, "SELECT count(*) FROM pg_constraint WHERE NOT convalidated").await, 0);
    assert_eq!(count(&database.pool, "SELECT count(*) FROM pg_index WHERE NOT indisvalid").await, 0);
}

#[tokio::test]
async fn a_database_of_the_reference_is_taken_over_with_its_rows_and_a_second_run_does_nothing() {
    let database = made_by_the_reference().await;
    run(
        &database.pool,
        r#"INSERT INTO "user" (id, name, email) VALUES ('u1', '', 'Alice@Example.com');
           INSERT INTO user_flux (user_id, flux) VALUES ('u1', 40);
           INSERT INTO flux_transaction (id, user_id, type, amount, balance_before, balance_after, description)
           VALUES ('t1', 'u1', 'initial', 40, 0, 40, '')"#,
    )
    .await;
    let report = migrate(&database.settings()).await.unwrap();
    assert_eq!(report.applied, OURS);
    assert_eq!(report.warnings, Vec::<String>::new());
    assert_eq!(count(&database.pool, "SELECT flux + version FROM user_flux WHERE user_id = 'u1'").await, 40);
    assert_eq!(count(&database.pool, "SELECT count(*) FROM flux_transaction").await, 1);
    assert_eq!(count(&database.pool, "SELECT count(*) FROM drizzle.__drizzle_migrations").await, 12);
    assert_eq!(migrate(&database.settings()).await.unwrap(), nothing());
}

#[tokio::test]
async fn rows_that_break_a_rule_are_reported_at_every_start_and_left_alone() {
    let database = made_by_the_reference().await;
    run(
        &database.pool,
        r#"INSERT INTO user_flux (user_id, flux) VALUES ('u1', -5), ('u2', 1);
           INSERT INTO "user" (id, name, email) VALUES ('u1', '', 'a@example.com');
           INSERT INTO account (id, account_id, provider_id, user_id, updated_at)
           VALUES ('a1', 'x', 'github', 'u1', now()), ('a2', 'x', 'github', 'u1', now())"#,
    )
    .await;
    let report = migrate(&database.settings()).await.unwrap();
    assert_eq!(report.warnings.len(), 2, "{:?}", report.warnings);
    assert!(report.warnings[0].contains("airi_account_provider_account"));
    assert!(report.warnings[1].starts_with("1 rows of user_flux"));
    assert_eq!(count(&database.pool, "SELECT flux FROM user_flux WHERE user_id = 'u1'").await, -5);
    let plain = "SELECT count(*) FROM pg_index WHERE indexrelid = 'airi_account_provider_account'::regclass
                 AND indisvalid AND NOT indisunique";
    assert_eq!(count(&database.pool, plain).await, 1);
    sqlx::query("UPDATE user_flux SET flux = -1 WHERE user_id = 'u2'").execute(&database.pool).await.unwrap_err();

    let again = migrate(&database.settings()).await.unwrap();
    assert_eq!((again.applied.len(), again.warnings.len()), (0, 1));
    run(&database.pool, "UPDATE user_flux SET flux = 0 WHERE user_id = 'u1'").await;
    assert_eq!(migrate(&database.settings()).await.unwrap(), nothing());
    assert_eq!(count(&database.pool, "SELECT count(*) FROM pg_constraint WHERE NOT convalidated").await, 0);
}

#[tokio::test]
async fn an_older_schema_is_refused_and_left_alone() {
    let database = made_by_the_reference().await;
    run(&database.pool, "DELETE FROM drizzle.__drizzle_migrations WHERE created_at = 1779100599148").await;
    let refusal = migrate(&database.settings()).await.unwrap_err();
    assert!(matches!(refusal, MigrateError::Behind { found: 1_778_223_289_077 }), "{refusal}");
    assert_eq!(count(&database.pool, "SELECT count(*) FROM pg_class WHERE relname LIKE 'airi\\_%'").await, 0);
}

#[tokio::test]
async fn a_newer_schema_is_refused_unless_the_operator_insists() {
    let database = made_by_the_reference().await;
    run(&database.pool, "INSERT INTO drizzle.__drizzle_migrations (hash, created_at) VALUES ('x', 1779100599149)")
        .await;
    let refusal = migrate(&database.settings()).await.unwrap_err();
    assert!(matches!(refusal, MigrateError::Ahead { found: 1_779_100_599_149 }), "{refusal}");
    let insisting = PostgresSettings { allow_newer_schema: true, ..database.settings() };
    assert_eq!(migrate(&insisting).await.unwrap().applied, OURS);
}

#[tokio::test]
async fn a_database_made_by_push_is_compared_and_accepted_again_and_again() {
    let database = empty_postgres().await;
    run(&database.pool, REFERENCE).await;
    run(&database.pool, "ALTER TABLE chats ADD COLUMN extra text; CREATE TABLE unrelated (id int)").await;
    assert_eq!(migrate(&database.settings()).await.unwrap().applied, OURS);
    assert_eq!(migrate(&database.settings()).await.unwrap(), nothing());
    assert_eq!(count(&database.pool, "SELECT count(*) FROM pg_namespace WHERE nspname = 'airi_yardstick'").await, 0);
}

#[tokio::test]
async fn a_foreign_database_is_refused_with_every_difference_and_left_alone() {
    let database = empty_postgres().await;
    run(&database.pool, REFERENCE).await;
    run(
        &database.pool,
        "DROP TABLE media; ALTER TABLE chats DROP COLUMN title; ALTER TABLE messages ALTER seq TYPE int8;
         ALTER TABLE stickers ALTER url DROP NOT NULL",
    )
    .await;
    let Err(MigrateError::Foreign { differences }) = migrate(&database.settings()).await else {
        unreachable!("a foreign database was taken over")
    };
    assert_eq!(
        differences,
        [
            "chats.title is missing",
            "table media is missing",
            "messages.seq is bigint, expected integer",
            "stickers.url is text, expected text not null",
        ]
    );
    assert_eq!(count(&database.pool, "SELECT count(*) FROM pg_class WHERE relname LIKE 'airi\\_%'").await, 0);
}

#[tokio::test]
async fn of_two_migrators_at_once_one_works_and_the_other_waits() {
    let database = empty_postgres().await;
    let settings = database.settings();
    let (one, other) = tokio::join!(migrate(&settings), migrate(&settings));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.applied.len() + other.applied.len(), 1 + OURS.len());
    assert!(one.applied.is_empty() || other.applied.is_empty());
}

#[tokio::test]
async fn an_interrupted_index_build_is_taken_up_again() {
    let database = made_by_the_reference().await;
    migrate(&database.settings()).await.unwrap();
    run(
        &database.pool,
        "DELETE FROM airi_migration WHERE version = 5; DROP INDEX airi_session_expires;
         UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'airi_user_email_lower'::regclass",
    )
    .await;
    assert_eq!(migrate(&database.settings()).await.unwrap().applied, ["indexes"]);
    assert_eq!(count(&database.pool, "SELECT count(*) FROM pg_index WHERE NOT indisvalid").await, 0);
    let both = "SELECT count(*) FROM pg_class WHERE relname IN ('airi_session_expires', 'airi_user_email_lower')";
    assert_eq!(count(&database.pool, both).await, 2);
}

#[tokio::test]
async fn a_step_applied_from_another_text_is_refused() {
    let database = made_by_the_reference().await;
    migrate(&database.settings()).await.unwrap();
    run(&database.pool, "UPDATE airi_migration SET checksum = 'x' WHERE version = 3").await;
    let refusal = migrate(&database.settings()).await.unwrap_err();
    assert!(matches!(refusal, MigrateError::Altered { version: 3, .. }), "{refusal}");
}

#[tokio::test]
async fn of_several_covers_the_newest_stays_and_another_is_refused() {
    let database = made_by_the_reference().await;
    run(
        &database.pool,
        "INSERT INTO characters (id, version, cover_url, creator_id, owner_id, character_id)
         VALUES ('c1', '', '', '', '', ''), ('c2', '', '', '', '', '');
         INSERT INTO character_covers (id, character_id, foreground_url, background_url, created_at)
         VALUES ('a', 'c1', '', '', '2026-01-02'), ('b', 'c1', '', '', '2026-01-01'),
                ('c', 'c1', '', '', '2026-01-02'), ('d', 'c2', '', '', '2026-01-01')",
    )
    .await;
    migrate(&database.settings()).await.unwrap();
    let kept: Vec<String> =
        sqlx::query_scalar("SELECT id FROM character_covers ORDER BY id").fetch_all(&database.pool).await.unwrap();
    assert_eq!(kept, ["c", "d"]);
    let another = "INSERT INTO character_covers (id, character_id, foreground_url, background_url)
                   VALUES ('e', 'c1', '', '')";
    sqlx::query(another).execute(&database.pool).await.unwrap_err();
}

#[tokio::test]
async fn members_who_are_in_a_chat_twice_are_there_once_afterwards_and_messages_are_known_by_their_chat() {
    let database = made_by_the_reference().await;
    run(
        &database.pool,
        r#"INSERT INTO chats (id, type) VALUES ('c', 'group'), ('d', 'group');
           INSERT INTO chat_members (id, chat_id, member_type, user_id, character_id)
           VALUES ('1', 'c', 'user', 'u', NULL), ('2', 'c', 'user', 'u', NULL), ('3', 'c', 'user', NULL, NULL),
                  ('4', 'c', 'bot', NULL, 'x'), ('5', 'c', 'bot', NULL, 'x'), ('6', 'c', 'character', NULL, 'x'),
                  ('7', 'd', 'user', 'u', NULL);
           INSERT INTO messages (id, chat_id, role, content, media_ids, sticker_ids, seq)
           VALUES ('m', 'c', 'user', '', '{}', '{}', 1), ('n', 'c', 'user', '', '{}', '{}', 1)"#,
    )
    .await;
    let report = migrate(&database.settings()).await.unwrap();
    // Two rows with one number forbid that index; nothing depends on it.
    assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
    assert!(report.warnings[0].contains("airi_messages_chat_seq"));
    let left: Vec<String> =
        sqlx::query_scalar("SELECT id FROM chat_members ORDER BY id").fetch_all(&database.pool).await.unwrap();
    assert_eq!(left, ["1", "4", "6", "7"]);
    run(
        &database.pool,
        "INSERT INTO messages (id, chat_id, role, content, media_ids, sticker_ids) VALUES ('m', 'd', '', '', '{}', '{}')",
    )
    .await;
    // Interrupted between its statements, the step is taken up again.
    run(&database.pool, "DELETE FROM airi_migration WHERE version = 70; DROP INDEX airi_chat_members_label").await;
    assert_eq!(migrate(&database.settings()).await.unwrap().applied, ["chat_identity"]);
    let key = "SELECT count(*) FROM pg_constraint WHERE conname = 'messages_pkey' AND array_length(conkey, 1) = 2";
    assert_eq!(count(&database.pool, key).await, 1);
}
