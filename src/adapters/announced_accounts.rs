//! Accounts whose changes are heard by the copies: a token of the person shows them as they are.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::core::model::accounts::{Account, Creation, Email, NewAccount};
use crate::core::model::fact::Fact;
use crate::core::model::identity::{
    Identity, Moving, PasswordChange, PasswordReset, ProfileChange, Proof, Proving, Reset, Unlinking,
};
use crate::core::model::ids::{SessionId, UserId};
use crate::core::model::secret::Secret;
use crate::ports::Fault;
use crate::ports::accounts::AccountRepo;
use crate::ports::journal::Journal;
use crate::ports::oidc::AccountSnapshots;

/// Drops the copy of whoever changed. A copy that could not be dropped everywhere is gone after 60 s and recorded.
pub struct AnnouncedAccounts {
    /// Stores accounts.
    pub inner: Arc<dyn AccountRepo>,
    /// The copies.
    pub people: Arc<dyn AccountSnapshots>,
    /// Hears of copies that could not be dropped.
    pub journal: Arc<dyn Journal>,
}

impl AnnouncedAccounts {
    async fn changed(&self, user: &UserId) {
        if let Err(fault) = self.people.forget(user).await {
            self.journal.record(Fact::Degraded { operation: "snapshots.forget", cause: fault.to_string() });
        }
    }
}

#[async_trait]
impl AccountRepo for AnnouncedAccounts {
    async fn create(&self, new: &NewAccount) -> Result<Creation, Fault> {
        self.inner.create(new).await
    }

    async fn find(&self, id: &UserId) -> Result<Option<Account>, Fault> {
        self.inner.find(id).await
    }

    async fn find_by_email(&self, email: &Email) -> Result<Option<Account>, Fault> {
        self.inner.find_by_email(email).await
    }

    async fn list_identities(&self, user: &UserId) -> Result<Vec<Identity>, Fault> {
        self.inner.list_identities(user).await
    }

    async fn find_password(&self, user: &UserId) -> Result<Option<Secret>, Fault> {
        self.inner.find_password(user).await
    }

    async fn update(&self, user: &UserId, change: &ProfileChange, at: DateTime<Utc>) -> Result<(), Fault> {
        self.inner.update(user, change, at).await?;
        self.changed(user).await;
        Ok(())
    }

    async fn unlink<'a>(&self, user: &UserId, provider: &str, account_id: Option<&'a str>) -> Result<Unlinking, Fault> {
        self.inner.unlink(user, provider, account_id).await
    }

    async fn prove_email(&self, user: &UserId, proof: Proof, at: DateTime<Utc>) -> Result<Proving, Fault> {
        let done = self.inner.prove_email(user, proof, at).await?;
        if matches!(done, Proving::Newly(_)) {
            self.changed(user).await;
        }
        Ok(done)
    }

    async fn move_email(&self, user: &UserId, from: &Email, to: &Email, at: DateTime<Utc>) -> Result<Moving, Fault> {
        let done = self.inner.move_email(user, from, to, at).await?;
        if matches!(done, Moving::Moved) {
            self.changed(user).await;
        }
        Ok(done)
    }

    async fn change_password(&self, change: &PasswordChange) -> Result<Vec<SessionId>, Fault> {
        self.inner.change_password(change).await
    }

    async fn reset_password(&self, reset: &PasswordReset) -> Result<Option<Reset>, Fault> {
        let done = self.inner.reset_password(reset).await?;
        if let Some(done) = &done {
            self.changed(&done.user).await;
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::mocks::{MockAccountRepo, MockAccountSnapshots, MockJournal};

    fn told(times: usize) -> MockAccountSnapshots {
        let mut people = MockAccountSnapshots::new();
        people.expect_forget().withf(|user| user.as_str() == "u").times(times).returning(|_| Ok(()));
        people
    }

    #[tokio::test]
    async fn what_a_copy_would_show_wrongly_drops_it_and_nothing_else_does() {
        let (user, at) = (UserId::new("u"), DateTime::UNIX_EPOCH);
        let mut inner = MockAccountRepo::new();
        inner.expect_update().returning(|_, _, _| Ok(()));
        inner.expect_prove_email().returning(|_, _, _| Ok(Proving::Already));
        let one = AnnouncedAccounts {
            inner: Arc::new(inner),
            people: Arc::new(told(1)),
            journal: Arc::new(MockJournal::new()),
        };
        one.update(&user, &ProfileChange::default(), at).await.unwrap();
        one.prove_email(&user, Proof::OwnLink, at).await.unwrap();
    }

    #[tokio::test]
    async fn a_change_stands_although_its_copies_could_not_be_dropped() {
        let mut inner = MockAccountRepo::new();
        inner.expect_update().returning(|_, _, _| Ok(()));
        let mut people = MockAccountSnapshots::new();
        people.expect_forget().returning(|_| Err(Fault::new(crate::ports::FaultKind::Unavailable, "x", "gone")));
        let mut journal = MockJournal::new();
        journal.expect_record().withf(|fact| matches!(fact, Fact::Degraded { .. })).times(1).return_const(());
        let one = AnnouncedAccounts { inner: Arc::new(inner), people: Arc::new(people), journal: Arc::new(journal) };
        one.update(&UserId::new("u"), &ProfileChange::default(), DateTime::UNIX_EPOCH).await.unwrap();
    }
}
