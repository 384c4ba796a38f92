//! The end of an account, as one transaction.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgPool;

use super::fault::fault;
use super::session_ends::close;
use crate::core::model::erasure::{Erased, Erasure};
use crate::core::model::identity::Closing;
use crate::core::model::ids::UserId;
use crate::ports::Fault;
use crate::ports::erasure::ErasureRepo;

/// Forgets people in PostgreSQL.
#[derive(Clone, Debug)]
pub struct PgErasures {
    /// Where the tables are.
    pub pool: PgPool,
}

/// Each step binds the person as `$1` and the time as `$2`, and stamps a row once: a second run keeps the first time.
const STEPS: &[(&str, &str)] = &[
    (
        "subscriptions",
        "UPDATE stripe_subscription SET deleted_at = $2, updated_at = $2 WHERE user_id = $1 AND deleted_at IS NULL",
    ),
    (
        "checkout sessions",
        "UPDATE stripe_checkout_session SET deleted_at = $2, updated_at = $2
         WHERE user_id = $1 AND deleted_at IS NULL",
    ),
    (
        "invoices",
        "UPDATE stripe_invoice SET deleted_at = $2, updated_at = $2 WHERE user_id = $1 AND deleted_at IS NULL",
    ),
    (
        "customers",
        "UPDATE stripe_customer SET deleted_at = $2, updated_at = $2 WHERE user_id = $1 AND deleted_at IS NULL",
    ),
    ("balances", "UPDATE user_flux SET deleted_at = $2, updated_at = $2 WHERE user_id = $1 AND deleted_at IS NULL"),
    ("debts", "DELETE FROM flux_meter_debt WHERE user_id = $1 AND $2::timestamp IS NOT NULL"),
    // Rows deleted before hold secrets, too; their times stay.
    (
        "provider configurations",
        "UPDATE user_provider_configs SET config = '{}',
                updated_at = CASE WHEN deleted_at IS NULL THEN $2 ELSE updated_at END,
                deleted_at = coalesce(deleted_at, $2)
         WHERE owner_id = $1",
    ),
    // Marks first, as in a toggle; each character's counter moves by the one row that was stamped.
    (
        "likes",
        "WITH gone AS (
             UPDATE user_character_likes SET deleted_at = $2 WHERE user_id = $1 AND deleted_at IS NULL
             RETURNING character_id
         )
         UPDATE characters SET likes_count = greatest(likes_count - 1, 0) FROM gone
         WHERE characters.id = gone.character_id",
    ),
    (
        "bookmarks",
        "WITH gone AS (
             UPDATE user_character_bookmarks SET deleted_at = $2 WHERE user_id = $1 AND deleted_at IS NULL
             RETURNING character_id
         )
         UPDATE characters SET bookmarks_count = greatest(bookmarks_count - 1, 0) FROM gone
         WHERE characters.id = gone.character_id",
    ),
    (
        "character keys",
        r#"UPDATE character_capabilities SET config = jsonb_set(config, '{apiKey}', '""')
           FROM characters
           WHERE characters.id = character_capabilities.character_id AND config ? 'apiKey' AND $2::timestamp IS NOT NULL
             AND (characters.owner_id = $1 OR characters.creator_id = $1)"#,
    ),
    (
        "characters",
        "UPDATE characters SET deleted_at = $2, updated_at = $2
         WHERE (owner_id = $1 OR creator_id = $1) AND deleted_at IS NULL",
    ),
    // A chat of two people stays for the other one; then it is treated like a group.
    (
        "chats",
        "UPDATE chats SET deleted_at = $2, updated_at = $2
         WHERE deleted_at IS NULL AND id IN (
             SELECT chats.id FROM chats JOIN chat_members AS mine ON mine.chat_id = chats.id
             WHERE mine.member_type = 'user' AND mine.user_id = $1 AND chats.type IN ('private', 'bot')
               AND NOT EXISTS (SELECT FROM chat_members AS other WHERE other.chat_id = chats.id
                               AND other.member_type = 'user' AND other.user_id <> $1))",
    ),
    // After their chats, whose rows a push locks first.
    (
        "messages",
        "UPDATE messages SET deleted_at = $2, updated_at = $2
         WHERE sender_id = $1 AND deleted_at IS NULL AND chat_id IN (
             SELECT chats.id FROM chats JOIN chat_members AS mine ON mine.chat_id = chats.id
             WHERE mine.member_type = 'user' AND mine.user_id = $1 AND chats.type IN ('private', 'bot')
               AND NOT EXISTS (SELECT FROM chat_members AS other WHERE other.chat_id = chats.id
                               AND other.member_type = 'user' AND other.user_id <> $1))",
    ),
    (
        "memberships",
        "DELETE FROM chat_members WHERE $2::timestamp IS NOT NULL AND member_type = 'user' AND user_id = $1
         AND chat_id IN (
             SELECT chats.id FROM chats WHERE chats.id = chat_members.chat_id AND (
                 chats.type IN ('group', 'channel')
                 OR EXISTS (SELECT FROM chat_members AS other WHERE other.chat_id = chats.id
                            AND other.member_type = 'user' AND other.user_id <> $1)))",
    ),
    (
        "one-time secrets",
        r#"DELETE FROM verification WHERE $2::timestamp IS NOT NULL AND (
               value = $1
               OR value LIKE '{%' AND strpos(value, (SELECT to_json(email)::text FROM "user" WHERE id = $1)) > 0
               OR value LIKE '{%' AND strpos(value, to_json($1::text)::text) > 0)"#,
    ),
];

#[async_trait]
impl ErasureRepo for PgErasures {
    #[tracing::instrument(name = "postgres.erasure.erase", skip_all, err(Debug))]
    async fn erase(&self, erasure: &Erasure) -> Result<Option<Erased>, Fault> {
        let fault = fault("postgres.erasure.erase");
        let (user, at) = (&erasure.user, erasure.at.naive_utc());
        let mut tx = self.pool.begin().await.map_err(fault)?;
        let sessions = close(&mut tx, user, &Closing::All, at).await.map_err(fault)?;
        let mut counts = Vec::with_capacity(STEPS.len());
        for (what, statement) in STEPS {
            let done = sqlx::query(*statement).bind(user.as_str()).bind(at).execute(&mut *tx).await.map_err(fault)?;
            counts.push((*what, done.rows_affected()));
        }
        sqlx::query("INSERT INTO airi_erased_address (mark, erased_at) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(&erasure.address_mark)
            .bind(at)
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        let gone = sqlx::query(r#"DELETE FROM "user" WHERE id = $1"#)
            .bind(user.as_str())
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        if gone.rows_affected() == 0 {
            return Ok(None);
        }
        tx.commit().await.map_err(fault)?;
        Ok(Some(Erased { counts, sessions }))
    }

    #[tracing::instrument(name = "postgres.erasure.withhold_grant", skip_all, err(Debug))]
    async fn withhold_grant(&self, user: &UserId, address_mark: &str, at: DateTime<Utc>) -> Result<bool, Fault> {
        sqlx::query(
            "INSERT INTO user_flux (user_id, flux, updated_at)
             SELECT $1, 0, $3 FROM airi_erased_address WHERE mark = $2 ON CONFLICT DO NOTHING",
        )
        .bind(user.as_str())
        .bind(address_mark)
        .bind(at.naive_utc())
        .execute(&self.pool)
        .await
        .map(|done| done.rows_affected() > 0)
        .map_err(fault("postgres.erasure.withhold_grant"))
    }
}
