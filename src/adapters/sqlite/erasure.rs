//! The end of an account, as one transaction.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::fault::fault;
use super::session_ends::close;
use super::{Sqlite, micros};
use crate::core::model::erasure::{Erased, Erasure};
use crate::core::model::identity::Closing;
use crate::core::model::ids::UserId;
use crate::ports::Fault;
use crate::ports::erasure::ErasureRepo;

/// Forgets people in the embedded database.
#[derive(Clone, Debug)]
pub struct SqliteErasures {
    /// Where the tables are.
    pub db: Sqlite,
}

/// Each step binds the person as `?1` and the time as `?2`, and stamps a row once: a second run keeps the first time.
const STEPS: &[(&str, &str)] = &[
    (
        "subscriptions",
        "UPDATE stripe_subscription SET deleted_at = ?2, updated_at = ?2 WHERE user_id = ?1 AND deleted_at IS NULL",
    ),
    (
        "checkout sessions",
        "UPDATE stripe_checkout_session SET deleted_at = ?2, updated_at = ?2
         WHERE user_id = ?1 AND deleted_at IS NULL",
    ),
    (
        "invoices",
        "UPDATE stripe_invoice SET deleted_at = ?2, updated_at = ?2 WHERE user_id = ?1 AND deleted_at IS NULL",
    ),
    (
        "customers",
        "UPDATE stripe_customer SET deleted_at = ?2, updated_at = ?2 WHERE user_id = ?1 AND deleted_at IS NULL",
    ),
    ("balances", "UPDATE user_flux SET deleted_at = ?2, updated_at = ?2 WHERE user_id = ?1 AND deleted_at IS NULL"),
    ("debts", "DELETE FROM flux_meter_debt WHERE user_id = ?1 AND ?2 IS NOT NULL"),
    // Rows deleted before hold secrets, too; their times stay.
    (
        "provider configurations",
        "UPDATE user_provider_configs SET config = '{}',
                updated_at = CASE WHEN deleted_at IS NULL THEN ?2 ELSE updated_at END,
                deleted_at = coalesce(deleted_at, ?2)
         WHERE owner_id = ?1",
    ),
    // Each counter before the marks it is taken from.
    (
        "counters of likes",
        "UPDATE characters SET likes_count = max(likes_count - 1, 0)
         WHERE ?2 IS NOT NULL
           AND id IN (SELECT character_id FROM user_character_likes WHERE user_id = ?1 AND deleted_at IS NULL)",
    ),
    ("likes", "UPDATE user_character_likes SET deleted_at = ?2 WHERE user_id = ?1 AND deleted_at IS NULL"),
    (
        "counters of bookmarks",
        "UPDATE characters SET bookmarks_count = max(bookmarks_count - 1, 0)
         WHERE ?2 IS NOT NULL
           AND id IN (SELECT character_id FROM user_character_bookmarks WHERE user_id = ?1 AND deleted_at IS NULL)",
    ),
    ("bookmarks", "UPDATE user_character_bookmarks SET deleted_at = ?2 WHERE user_id = ?1 AND deleted_at IS NULL"),
    (
        "character keys",
        "UPDATE character_capabilities SET config = json_replace(config, '$.apiKey', '')
         WHERE ?2 IS NOT NULL
           AND character_id IN (SELECT id FROM characters WHERE owner_id = ?1 OR creator_id = ?1)",
    ),
    (
        "characters",
        "UPDATE characters SET deleted_at = ?2, updated_at = ?2
         WHERE (owner_id = ?1 OR creator_id = ?1) AND deleted_at IS NULL",
    ),
    // A chat of two people stays for the other one; then it is treated like a group.
    (
        "chats",
        "UPDATE chats SET deleted_at = ?2, updated_at = ?2
         WHERE deleted_at IS NULL AND id IN (
             SELECT chats.id FROM chats JOIN chat_members AS mine ON mine.chat_id = chats.id
             WHERE mine.member_type = 'user' AND mine.user_id = ?1 AND chats.type IN ('private', 'bot')
               AND NOT EXISTS (SELECT 1 FROM chat_members AS other WHERE other.chat_id = chats.id
                               AND other.member_type = 'user' AND other.user_id <> ?1))",
    ),
    // After their chats, whose rows a push locks first.
    (
        "messages",
        "UPDATE messages SET deleted_at = ?2, updated_at = ?2
         WHERE sender_id = ?1 AND deleted_at IS NULL AND chat_id IN (
             SELECT chats.id FROM chats JOIN chat_members AS mine ON mine.chat_id = chats.id
             WHERE mine.member_type = 'user' AND mine.user_id = ?1 AND chats.type IN ('private', 'bot')
               AND NOT EXISTS (SELECT 1 FROM chat_members AS other WHERE other.chat_id = chats.id
                               AND other.member_type = 'user' AND other.user_id <> ?1))",
    ),
    (
        "memberships",
        "DELETE FROM chat_members WHERE ?2 IS NOT NULL AND member_type = 'user' AND user_id = ?1
         AND chat_id IN (
             SELECT chats.id FROM chats WHERE chats.id = chat_members.chat_id AND (
                 chats.type IN ('group', 'channel')
                 OR EXISTS (SELECT 1 FROM chat_members AS other WHERE other.chat_id = chats.id
                            AND other.member_type = 'user' AND other.user_id <> ?1)))",
    ),
    (
        "one-time secrets",
        "DELETE FROM verification WHERE ?2 IS NOT NULL AND (
             value = ?1
             OR value LIKE '{%' AND instr(value, json_quote((SELECT email FROM user WHERE id = ?1))) > 0
             OR value LIKE '{%' AND instr(value, json_quote(?1)) > 0)",
    ),
];

#[async_trait]
impl ErasureRepo for SqliteErasures {
    #[tracing::instrument(name = "sqlite.erasure.erase", skip_all, err(Debug))]
    async fn erase(&self, erasure: &Erasure) -> Result<Option<Erased>, Fault> {
        const OPERATION: &str = "sqlite.erasure.erase";
        let fault = fault(OPERATION);
        let (user, at) = (&erasure.user, micros(erasure.at));
        let mut tx = self.db.begin(OPERATION).await?;
        let sessions = close(&mut tx, user, &Closing::All, at).await.map_err(fault)?;
        let mut counts = Vec::with_capacity(STEPS.len());
        for (what, statement) in STEPS {
            let done = sqlx::query(*statement).bind(user.as_str()).bind(at).execute(&mut *tx).await.map_err(fault)?;
            counts.push((*what, done.rows_affected()));
        }
        sqlx::query("INSERT INTO airi_erased_address (mark, erased_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
            .bind(&erasure.address_mark)
            .bind(at)
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        let gone =
            sqlx::query("DELETE FROM user WHERE id = ?1").bind(user.as_str()).execute(&mut *tx).await.map_err(fault)?;
        if gone.rows_affected() == 0 {
            return Ok(None);
        }
        tx.commit().await.map_err(fault)?;
        Ok(Some(Erased { counts, sessions }))
    }

    #[tracing::instrument(name = "sqlite.erasure.withhold_grant", skip_all, err(Debug))]
    async fn withhold_grant(&self, user: &UserId, address_mark: &str, at: DateTime<Utc>) -> Result<bool, Fault> {
        sqlx::query(
            "INSERT INTO user_flux (user_id, flux, updated_at)
             SELECT ?1, 0, ?3 FROM airi_erased_address WHERE mark = ?2 ON CONFLICT DO NOTHING",
        )
        .bind(user.as_str())
        .bind(address_mark)
        .bind(micros(at))
        .execute(&self.db.writer)
        .await
        .map(|done| done.rows_affected() > 0)
        .map_err(fault("sqlite.erasure.withhold_grant"))
    }
}
