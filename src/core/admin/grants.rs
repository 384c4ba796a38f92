//! Flux given by operators (contract `admin.md` §2).

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Admin;
use super::trail::Deed;
use crate::core::error::{Code, Error};
use crate::core::model::accounts::Email;
use crate::core::model::admin::{GrantDocument, SkipReason};
use crate::core::model::audit::Actor;
use crate::core::model::fact::Fact;
use crate::core::model::ids::{EntryId, RequestId, UserId};
use crate::core::model::ledger::{Credit, CreditOutcome, Entry, EntryKind, Flux, Standing};

/// What a grant would do, and what it did.
#[derive(Clone, Debug, PartialEq)]
pub struct GrantAnswer {
    /// Counts and samples.
    pub summary: GrantSummary,
    /// Absent on a dry run.
    pub result: Option<GrantResult>,
}

/// Counts of a grant, and up to five addresses of each sort.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantSummary {
    /// Addresses in the request.
    pub total_emails: usize,
    /// People who get something.
    pub will_grant: usize,
    /// Addresses nobody has.
    pub not_found: usize,
    /// Addresses of closed balances.
    pub user_deleted: usize,
    /// Repetitions.
    pub duplicate_in_input: usize,
    /// `will_grant` times the amount, flux.
    pub total_flux: i64,
    /// Samples of those who get something, as typed.
    pub sample_will_grant: Vec<String>,
    /// Samples of unknown addresses, as typed.
    pub sample_not_found: Vec<String>,
    /// Samples of addresses of closed balances, as typed.
    pub sample_user_deleted: Vec<String>,
}

/// What became of each address, in the order of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantResult {
    /// Credited, now or by an earlier request with the same key.
    pub granted: Vec<Granted>,
    /// Not to be credited.
    pub skipped: Vec<Skipped>,
    /// Not credited; the same request with a key may be repeated.
    pub failed: Vec<Failed>,
}

/// One credit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// As typed.
    pub email: String,
    /// Whose address it is.
    pub user: UserId,
    /// The ledger entry.
    pub entry: EntryId,
    /// Balance right after the entry.
    pub balance_after: Flux,
    /// Whether an earlier request made the entry.
    pub replayed: bool,
}

/// One address that gets nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// As typed.
    pub email: String,
    /// Why.
    pub reason: SkipReason,
}

/// One credit that was not made, or of which it is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// As typed.
    pub email: String,
    /// Whose address it is.
    pub user: UserId,
    /// What may be told.
    pub error: String,
}

/// Longest duration of a call (AD-D08): a load balancer that cuts it would hide the outcomes.
const DEADLINE: Duration = Duration::from_secs(25);
/// Addresses of each sort in a summary.
const SAMPLES: usize = 5;
/// Metric label of these credits.
const SOURCE: &str = "admin_promo";
/// The largest gift of the command line, which gives to one person at a time.
const LARGEST_SINGLE: i64 = 1_000_000_000;

struct Pending {
    email: String,
    user: UserId,
}

struct Resolution {
    pending: Vec<Pending>,
    skipped: Vec<Skipped>,
    summary: GrantSummary,
}

impl Admin {
    /// Gives everybody in the document the same amount, one after the other, in the document's order.
    ///
    /// One failure does not stop the rest. With an idempotency key nobody is credited twice, and a key that was used
    /// with another amount or text is a conflict before anything is written.
    pub async fn grant_flux(&self, actor: &Actor, document: &[u8], dry_run: bool) -> Result<GrantAnswer, Error> {
        let mut deed = Deed::new(actor, "flux_grants");
        deed.dry_run = dry_run;
        let result = match GrantDocument::read(document) {
            Ok(document) => self.try_grant(&mut deed, &document).await,
            Err(unusable) => Err(unusable.into()),
        };
        self.trail.end(&deed, &result).await;
        result
    }

    /// Gives one person flux and answers the balance after it; a repetition with the same key answers the old one.
    pub async fn grant_one(
        &self,
        actor: &Actor,
        email: &str,
        amount: i64,
        reason: &str,
        key: Option<&str>,
    ) -> Result<Flux, Error> {
        let document = single(email, amount, reason, key)?;
        let mut deed = Deed::new(actor, "flux_grants");
        let result = self.try_grant(&mut deed, &document).await;
        self.trail.end(&deed, &result).await;
        let given = result?.result.unwrap_or_default();
        match (given.granted.first(), given.skipped.first(), given.failed.into_iter().next()) {
            (Some(granted), ..) => Ok(granted.balance_after),
            (_, Some(Skipped { reason: SkipReason::UserDeleted, .. }), _) => {
                Err(Error::new(Code::Conflict).saying("the balance of this user is closed"))
            }
            (.., Some(failed)) => Err(Error::new(Code::ServiceUnavailable).saying(failed.error)),
            _ => Err(Error::new(Code::NotFound).saying("no user has this e-mail address")),
        }
    }

    async fn try_grant(&self, deed: &mut Deed<'_>, document: &GrantDocument) -> Result<GrantAnswer, Error> {
        let deadline = self.trail.clock.elapsed() + DEADLINE;
        deed.note("amount", document.amount.get());
        deed.note("description", document.description.clone());
        deed.note("idempotencyKey", document.idempotency_key.clone());
        let resolution = self.resolve(document, deadline).await?;
        deed.note("totalEmails", resolution.summary.total_emails);
        deed.note("willGrant", resolution.summary.will_grant);
        self.refuse_other_terms(document, &resolution.pending).await?;
        let summary = resolution.summary.clone();
        if deed.dry_run {
            return Ok(GrantAnswer { summary, result: None });
        }
        deed.target = match resolution.pending.as_slice() {
            [only] => only.user.to_string(),
            many => format!("{} users", many.len()),
        };
        self.trail.begin(deed).await?;
        let result = self.give_all(deed, document, resolution, deadline).await;
        deed.note("granted", result.granted.len());
        deed.note("replayed", result.granted.iter().filter(|granted| granted.replayed).count());
        deed.note("failed", result.failed.len());
        Ok(GrantAnswer { summary, result: Some(result) })
    }

    async fn resolve(&self, document: &GrantDocument, deadline: Duration) -> Result<Resolution, Error> {
        let mut resolution = Resolution { pending: Vec::new(), skipped: Vec::new(), summary: GrantSummary::default() };
        let mut seen = HashSet::with_capacity(document.emails.len());
        for email in &document.emails {
            if self.trail.clock.elapsed() >= deadline {
                return Err(Error::new(Code::ServiceUnavailable).saying("looking up the addresses took too long"));
            }
            let lower = email.to_lowercase();
            let reason = if !seen.insert(lower.clone()) {
                SkipReason::DuplicateInInput
            } else if let Some(account) = self.accounts.find_by_email(&Email::stored(lower)).await? {
                if self.ledger.repo.find(&account.id).await? != Standing::Closed {
                    resolution.pending.push(Pending { email: email.clone(), user: account.id });
                    continue;
                }
                SkipReason::UserDeleted
            } else {
                SkipReason::NotFound
            };
            resolution.skipped.push(Skipped { email: email.clone(), reason });
        }
        resolution.summary = summarise(document, &resolution);
        Ok(resolution)
    }

    /// Refuses a key that was used with another amount or text (AD-D07): a repetition that silently gives the old
    /// amount looks like a success.
    async fn refuse_other_terms(&self, document: &GrantDocument, pending: &[Pending]) -> Result<(), Error> {
        let Some(key) = &document.idempotency_key else { return Ok(()) };
        let mut differing = Vec::new();
        for person in pending {
            let entry = self.ledger.repo.find_entry(&person.user, &request_id(key, &person.user)).await?;
            if entry.is_some_and(|entry| !same_terms(&entry, document)) {
                differing.push(person.email.clone());
            }
        }
        if differing.is_empty() {
            return Ok(());
        }
        let recipients = differing.len();
        differing.truncate(SAMPLES);
        Err(Error::new(Code::Conflict)
            .saying("this idempotency key was used with another amount or description")
            .with_details(json!({"recipients": recipients, "samples": differing})))
    }

    async fn give_all(
        &self,
        deed: &Deed<'_>,
        document: &GrantDocument,
        resolution: Resolution,
        deadline: Duration,
    ) -> GrantResult {
        let mut result = GrantResult { skipped: resolution.skipped, ..GrantResult::default() };
        for Pending { email, user } in resolution.pending {
            if self.trail.clock.elapsed() >= deadline {
                result.failed.push(Failed { email, user, error: "not attempted".to_owned() });
                continue;
            }
            match self.give(deed, document, &user).await {
                Ok(CreditOutcome::Credited { entry, balance }) => {
                    result.granted.push(Granted { email, user, entry, balance_after: balance.flux, replayed: false });
                }
                Ok(CreditOutcome::Replayed { entry }) if same_terms(&entry, document) => {
                    let Entry { id, after, .. } = *entry;
                    result.granted.push(Granted { email, user, entry: id, balance_after: after, replayed: true });
                }
                Ok(CreditOutcome::Replayed { .. }) => {
                    let error = "this idempotency key was used with another amount or description".to_owned();
                    result.failed.push(Failed { email, user, error });
                }
                Ok(CreditOutcome::Closed) => {
                    result.skipped.push(Skipped { email, reason: SkipReason::UserDeleted });
                }
                Ok(CreditOutcome::Overflow) => {
                    let error = "the balance would pass the largest amount there is".to_owned();
                    result.failed.push(Failed { email, user, error });
                }
                Err(error) => {
                    let error = self.unexpected(deed, &error);
                    result.failed.push(Failed { email, user, error });
                }
            }
        }
        result
    }

    async fn give(&self, deed: &Deed<'_>, document: &GrantDocument, user: &UserId) -> Result<CreditOutcome, Error> {
        let mut metadata = Map::new();
        metadata.insert("description".to_owned(), Value::from(document.description.clone()));
        metadata.insert("issuedByUserId".to_owned(), Value::from(deed.actor.user.as_str()));
        if let Some(key) = &document.idempotency_key {
            metadata.insert("idempotencyKey".to_owned(), Value::from(key.clone()));
        }
        let credit = Credit {
            entry: EntryId::new(self.trail.ids.id()),
            user: user.clone(),
            request: document.idempotency_key.as_deref().map(|key| request_id(key, user)),
            amount: document.amount,
            kind: EntryKind::Promo,
            description: document.description.clone(),
            metadata: Some(metadata),
            opening: self.ledger.opening().await?,
        };
        self.ledger.give(&credit, SOURCE).await
    }

    /// A text without the cause (AD-D06), and the cause with the same reference for the log.
    fn unexpected(&self, deed: &Deed<'_>, error: &Error) -> String {
        let reference = deed.actor.request.as_ref().map_or_else(|| self.trail.ids.id(), ToString::to_string);
        let cause = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
        self.trail.journal.record(Fact::Degraded { operation: "admin.grant", cause: format!("{reference}: {cause}") });
        format!("the credit could not be made; reference {reference}")
    }
}

fn single(email: &str, amount: i64, reason: &str, key: Option<&str>) -> Result<GrantDocument, Error> {
    let refuse = |why: &str| Err(Error::new(Code::InvalidRequest).saying(why));
    let Ok(address) = Email::parse(email) else { return refuse("not an e-mail address; expected name@domain.tld") };
    let Some(amount) = Flux::new(amount).filter(|amount| (1..=LARGEST_SINGLE).contains(&amount.get())) else {
        return refuse("an amount is a whole number of flux from 1 to 1000000000");
    };
    if !(1..=500).contains(&reason.encode_utf16().count()) {
        return refuse("a reason has 1 to 500 characters");
    }
    if key.is_some_and(|key| !(1..=100).contains(&key.encode_utf16().count())) {
        return refuse("an idempotency key has 1 to 100 characters");
    }
    let emails = vec![address.as_str().to_owned()];
    Ok(GrantDocument { description: reason.to_owned(), amount, emails, idempotency_key: key.map(str::to_owned) })
}

fn summarise(document: &GrantDocument, resolution: &Resolution) -> GrantSummary {
    let of = |reason| resolution.skipped.iter().filter(move |skipped| skipped.reason == reason);
    let samples = |reason| of(reason).take(SAMPLES).map(|skipped| skipped.email.clone()).collect();
    let will_grant = resolution.pending.len();
    GrantSummary {
        total_emails: document.emails.len(),
        will_grant,
        not_found: of(SkipReason::NotFound).count(),
        user_deleted: of(SkipReason::UserDeleted).count(),
        duplicate_in_input: of(SkipReason::DuplicateInInput).count(),
        total_flux: i64::try_from(will_grant).unwrap_or(i64::MAX).saturating_mul(document.amount.get()),
        sample_will_grant: resolution.pending.iter().take(SAMPLES).map(|pending| pending.email.clone()).collect(),
        sample_not_found: samples(SkipReason::NotFound),
        sample_user_deleted: samples(SkipReason::UserDeleted),
    }
}

fn same_terms(entry: &Entry, document: &GrantDocument) -> bool {
    entry.amount == document.amount && entry.description == document.description
}

/// The business object of one gift to one person.
fn request_id(key: &str, user: &UserId) -> RequestId {
    RequestId::new(format!("flux-grant:{key}:{user}"))
}
