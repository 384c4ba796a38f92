//! Operations on balance rows that share one transaction, applied one after another.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use super::hold::{HeldFlux, Hold, HoldOutcome};
use super::ids::{RequestId, UserId};
use super::ledger::{Debit, DebitOutcome, Entry, Flux};
use super::posting::LockedBalance;

/// One thing to be done to one balance row.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Take from what is available.
    Debit(Debit),
    /// Set aside.
    Hold(Hold),
    /// Set more aside, or the same for longer.
    Extend(Hold),
    /// Take from what was set aside, and make the rest available.
    Capture(Debit),
    /// Make what was set aside available.
    Release(UserId, RequestId),
    /// Void what has lapsed.
    Sweep(UserId),
}

/// What an operation did.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Of a debit or a capture.
    Debit(DebitOutcome),
    /// Of a hold or an extension.
    Hold(HoldOutcome),
    /// What a release made available.
    Released(Flux),
    /// How many holds a sweep voided.
    Swept(u64),
}

impl Operation {
    /// Whose row it is about.
    pub fn user(&self) -> &UserId {
        match self {
            Self::Debit(debit) | Self::Capture(debit) => &debit.user,
            Self::Hold(hold) | Self::Extend(hold) => &hold.user,
            Self::Release(user, _) | Self::Sweep(user) => user,
        }
    }

    /// The request whose earlier entry and hold have to be known.
    pub fn request(&self) -> Option<&RequestId> {
        match self {
            Self::Debit(debit) | Self::Capture(debit) => Some(&debit.request),
            Self::Hold(hold) | Self::Extend(hold) => Some(&hold.request),
            Self::Release(_, request) => Some(request),
            Self::Sweep(_) => None,
        }
    }
}

/// What an earlier entry for the same (user, request) did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// The amount of that entry.
    pub charged: Flux,
    /// The balance after it.
    pub after: Flux,
}

/// A user and a request of theirs.
pub type Key = (UserId, RequestId);

/// What the tables say about a batch, read under the locks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// The balance rows of its users; a user without one has nothing.
    pub rows: HashMap<UserId, LockedBalance>,
    /// The earlier entries of its requests.
    pub pasts: HashMap<Key, Past>,
    /// The holds of its requests, and every lapsed hold of its users.
    pub holds: HashMap<Key, HeldFlux>,
}

/// What a batch comes to.
#[derive(Debug, Default, PartialEq)]
pub struct Batch {
    /// One per operation, in their order.
    pub outcomes: Vec<Outcome>,
    /// Entries to be written, in order.
    pub entries: Vec<(UserId, Entry)>,
    /// The rows that changed, each once, as they are after the batch.
    pub rows: Vec<(UserId, LockedBalance)>,
    /// The holds that changed, each once: as they are after the batch, or gone.
    pub holds: Vec<(Key, Option<HeldFlux>)>,
}

impl Batch {
    /// Whether there is nothing to be written.
    pub fn changes_nothing(&self) -> bool {
        self.rows.is_empty() && self.entries.is_empty() && self.holds.is_empty()
    }
}

/// Applies operations one after another, as if each had its own transaction: later ones see what earlier ones left,
/// and a second copy of a request replays the first. Lapsed holds of the touched rows are voided first. `clock` was
/// read under the locks.
pub fn apply<'a>(operations: impl IntoIterator<Item = &'a Operation>, stored: Stored, clock: DateTime<Utc>) -> Batch {
    let mut desk = Desk::new(stored, clock);
    desk.void_lapsed();
    for operation in operations {
        let outcome = desk.perform(operation);
        desk.batch.outcomes.push(outcome);
    }
    desk.close()
}

struct Desk {
    stored: Stored,
    clock: DateTime<Utc>,
    batch: Batch,
    changed_rows: Changes<UserId>,
    changed_holds: Changes<Key>,
    voided: HashMap<UserId, u64>,
}

impl Desk {
    fn new(stored: Stored, clock: DateTime<Utc>) -> Self {
        Self {
            stored,
            clock,
            batch: Batch::default(),
            changed_rows: Changes::default(),
            changed_holds: Changes::default(),
            voided: HashMap::new(),
        }
    }

    fn void_lapsed(&mut self) {
        let over = self.stored.holds.iter().filter(|(_, hold)| hold.lapsed(self.clock));
        let mut lapsed: Vec<Key> = over.map(|(key, _)| key.clone()).collect();
        // The order of a map is nobody's: what is written follows the keys.
        lapsed
            .sort_unstable_by(|one, other| (one.0.as_str(), one.1.as_str()).cmp(&(other.0.as_str(), other.1.as_str())));
        for key in lapsed {
            self.drop_hold(&key);
            *self.voided.entry(key.0).or_default() += 1;
        }
    }

    fn perform(&mut self, operation: &Operation) -> Outcome {
        match operation {
            Operation::Debit(debit) => Outcome::Debit(self.debit(debit, false)),
            Operation::Capture(debit) => Outcome::Debit(self.debit(debit, true)),
            Operation::Hold(hold) => Outcome::Hold(self.hold(hold, true)),
            Operation::Extend(hold) => Outcome::Hold(self.hold(hold, false)),
            Operation::Release(user, request) => {
                Outcome::Released(self.drop_hold(&(user.clone(), request.clone())).unwrap_or(Flux::ZERO))
            }
            Operation::Sweep(user) => Outcome::Swept(self.voided.remove(user).unwrap_or_default()),
        }
    }

    fn debit(&mut self, debit: &Debit, captures: bool) -> DebitOutcome {
        let key = (debit.user.clone(), debit.request.clone());
        if let Some(past) = self.stored.pasts.get(&key).copied() {
            return DebitOutcome::Replayed { charged: past.charged, after: past.after };
        }
        let held = if captures { self.stored.holds.get(&key).map(|hold| hold.amount) } else { None };
        let Some(row) = self.stored.rows.get_mut(&debit.user) else { return DebitOutcome::Refused };
        let entry = row.capture(debit, held, self.clock);
        let balance = row.balance();
        if held.is_some() {
            self.stored.holds.remove(&key);
            self.changed_holds.note(&key);
            self.changed_rows.note(&debit.user);
        }
        let Some(entry) = entry else { return DebitOutcome::Refused };
        let charged = entry.amount;
        self.changed_rows.note(&debit.user);
        self.stored.pasts.insert(key, Past { charged, after: entry.after });
        self.batch.entries.push((debit.user.clone(), entry));
        DebitOutcome::Charged { charged, balance }
    }

    fn hold(&mut self, hold: &Hold, begins: bool) -> HoldOutcome {
        let key = (hold.user.clone(), hold.request.clone());
        if self.stored.pasts.contains_key(&key) {
            return HoldOutcome::Settled;
        }
        let before = self.stored.holds.get(&key).copied();
        if before.is_none() && !begins {
            return HoldOutcome::Lost;
        }
        let Some(row) = self.stored.rows.get_mut(&hold.user) else {
            return HoldOutcome::Refused { available: Flux::ZERO };
        };
        let already = before.map_or(Flux::ZERO, |hold| hold.amount);
        let Some(amount) = row.set_aside(hold, already) else {
            return HoldOutcome::Refused { available: row.available() };
        };
        let available = row.available();
        // A lease is never cut short: copies of one call may arrive in any order.
        let until = hold.until(self.clock).max(before.map_or(DateTime::<Utc>::MIN_UTC, |hold| hold.until));
        let after = HeldFlux { amount, until };
        if before != Some(after) {
            self.stored.holds.insert(key.clone(), after);
            self.changed_holds.note(&key);
            self.changed_rows.note(&hold.user);
        }
        HoldOutcome::Held { amount, available }
    }

    fn drop_hold(&mut self, key: &Key) -> Option<Flux> {
        let hold = self.stored.holds.remove(key)?;
        self.changed_holds.note(key);
        if let Some(row) = self.stored.rows.get_mut(&key.0) {
            row.give_back(hold.amount);
            self.changed_rows.note(&key.0);
        }
        Some(hold.amount)
    }

    fn close(mut self) -> Batch {
        let mut stored = self.stored;
        self.batch.rows =
            self.changed_rows.order.into_iter().filter_map(|user| stored.rows.remove_entry(&user)).collect();
        let holds = self.changed_holds.order.into_iter().map(|key| {
            let after = stored.holds.remove(&key);
            (key, after)
        });
        self.batch.holds = holds.collect();
        self.batch
    }
}

/// Each once, in the order of first change.
struct Changes<T> {
    order: Vec<T>,
    seen: HashSet<T>,
}

impl<T> Default for Changes<T> {
    fn default() -> Self {
        Self { order: Vec::new(), seen: HashSet::new() }
    }
}

impl<T: Clone + Eq + std::hash::Hash> Changes<T> {
    fn note(&mut self, changed: &T) {
        if self.seen.insert(changed.clone()) {
            self.order.push(changed.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::Map;

    use super::*;
    use crate::core::model::ids::EntryId;
    use crate::core::model::ledger::Balance;

    fn flux(amount: i64) -> Flux {
        Flux::new(amount).unwrap()
    }

    fn noon() -> DateTime<Utc> {
        DateTime::from_timestamp(43_200, 0).unwrap()
    }

    fn row(amount: i64) -> LockedBalance {
        LockedBalance { flux: flux(amount), held: Flux::ZERO, version: 7, touched: noon(), closed: false }
    }

    fn debit(user: &str, request: &str, amount: i64) -> Debit {
        Debit {
            entry: EntryId::new(format!("{user}-{request}")),
            user: UserId::new(user),
            request: RequestId::new(request),
            amount: flux(amount),
            description: "llm_request",
            metadata: Map::new(),
        }
    }

    fn hold(user: &str, request: &str, least: i64, most: i64) -> Hold {
        let (user, request) = (UserId::new(user), RequestId::new(request));
        Hold { user, request, least: flux(least), most: flux(most), lease: Duration::from_secs(60) }
    }

    fn key(user: &str, request: &str) -> Key {
        (UserId::new(user), RequestId::new(request))
    }

    fn rich(amount: i64) -> Stored {
        Stored { rows: HashMap::from([(UserId::new("u"), row(amount))]), ..Stored::default() }
    }

    fn held(amount: i64, available: i64) -> Outcome {
        Outcome::Hold(HoldOutcome::Held { amount: flux(amount), available: flux(available) })
    }

    #[test]
    fn copies_within_one_batch_replay_the_first() {
        let wishes = [debit("u", "r", 3), debit("u", "r", 3), debit("v", "r", 1), debit("u", "r2", 9)];
        let wishes = wishes.map(Operation::Debit);
        let batch = apply(&wishes, rich(5), noon());
        let charged = |charged, left, version| {
            Outcome::Debit(DebitOutcome::Charged {
                charged: flux(charged),
                balance: Balance { flux: flux(left), version },
            })
        };
        assert_eq!(
            batch.outcomes,
            [
                charged(3, 2, 8),
                Outcome::Debit(DebitOutcome::Replayed { charged: flux(3), after: flux(2) }),
                Outcome::Debit(DebitOutcome::Refused),
                charged(2, 0, 9),
            ]
        );
        assert_eq!((batch.entries.len(), batch.rows.len(), batch.holds.len()), (2, 1, 0));
    }

    #[test]
    fn a_hold_that_is_captured_in_the_same_batch_leaves_an_entry_and_no_hold() {
        let wishes = [
            Operation::Hold(hold("u", "r", 5, 8)),
            Operation::Hold(hold("u", "other", 5, 5)),
            Operation::Extend(hold("u", "r", 9, 9)),
            Operation::Capture(debit("u", "r", 6)),
            Operation::Capture(debit("u", "r", 6)),
            Operation::Extend(hold("u", "r", 9, 9)),
            Operation::Release(UserId::new("u"), RequestId::new("r")),
        ];
        let batch = apply(&wishes, rich(10), noon());
        let balance = Balance { flux: flux(4), version: 8 };
        assert_eq!(
            batch.outcomes,
            [
                held(8, 2),
                Outcome::Hold(HoldOutcome::Refused { available: flux(2) }),
                held(9, 1),
                Outcome::Debit(DebitOutcome::Charged { charged: flux(6), balance }),
                Outcome::Debit(DebitOutcome::Replayed { charged: flux(6), after: flux(4) }),
                Outcome::Hold(HoldOutcome::Settled),
                Outcome::Released(Flux::ZERO),
            ]
        );
        assert_eq!(batch.holds, [(key("u", "r"), None)]);
        assert_eq!((batch.rows[0].1.held, batch.rows[0].1.available()), (Flux::ZERO, flux(4)));
    }

    #[test]
    fn whoever_touches_a_row_voids_what_has_lapsed() {
        let mut stored = rich(10);
        stored.rows.get_mut(&UserId::new("u")).unwrap().held = flux(10);
        stored.holds.insert(key("u", "dead"), HeldFlux { amount: flux(6), until: noon() });
        stored
            .holds
            .insert(key("u", "live"), HeldFlux { amount: flux(4), until: noon() + chrono::TimeDelta::seconds(1) });
        let batch = apply(&[Operation::Debit(debit("u", "r", 9))], stored.clone(), noon());
        assert!(
            matches!(batch.outcomes[0], Outcome::Debit(DebitOutcome::Charged { charged, .. }) if charged == flux(6))
        );
        assert_eq!(batch.holds, [(key("u", "dead"), None)]);
        assert_eq!(batch.rows[0].1.held, flux(4));

        let wishes = [Operation::Sweep(UserId::new("u")), Operation::Extend(hold("u", "dead", 1, 1))];
        let batch = apply(&wishes, stored, noon());
        assert_eq!(batch.outcomes, [Outcome::Swept(1), Outcome::Hold(HoldOutcome::Lost)]);
    }

    #[test]
    fn an_extension_by_nothing_renews_the_lease_and_a_replayed_hold_does_not_shrink() {
        let mut stored = rich(10);
        stored.rows.get_mut(&UserId::new("u")).unwrap().held = flux(8);
        let until = noon() + chrono::TimeDelta::seconds(5);
        stored.holds.insert(key("u", "r"), HeldFlux { amount: flux(8), until });
        let batch = apply(&[Operation::Hold(hold("u", "r", 1, 5))], stored, noon());
        assert_eq!(batch.outcomes, [held(8, 2)]);
        let later = noon() + chrono::TimeDelta::seconds(60);
        assert_eq!(batch.holds, [(key("u", "r"), Some(HeldFlux { amount: flux(8), until: later }))]);
    }

    fn operation() -> impl Strategy<Value = Operation> {
        (0..4u8, 0..10u8, 0..6u8, 1..40i64, 0..20i64).prop_map(|(user, request, what, amount, more)| {
            let (user, request) = (user.to_string(), request.to_string());
            match what {
                0 => Operation::Debit(debit(&user, &request, amount - 1)),
                1 | 2 => Operation::Hold(hold(&user, &request, amount, amount + more)),
                3 => Operation::Extend(hold(&user, &request, amount, amount + more)),
                4 => Operation::Capture(debit(&user, &request, amount)),
                _ => Operation::Release(UserId::new(user), RequestId::new(request)),
            }
        })
    }

    proptest! {
        #[test]
        fn a_batch_is_the_same_as_its_operations_one_by_one(
            wishes in proptest::collection::vec(operation(), 0..60),
            balances in proptest::collection::vec((0..100i64, any::<bool>()), 3),
        ) {
            let rows = balances.iter().enumerate().map(|(user, (amount, closed))| {
                (UserId::new(user.to_string()), LockedBalance { closed: *closed && *amount % 5 == 0, ..row(*amount) })
            });
            let start = Stored { rows: rows.collect(), ..Stored::default() };
            let batch = apply(&wishes, start.clone(), noon());

            let (mut now, mut outcomes, mut entries) = (start.clone(), vec![], vec![]);
            for wish in &wishes {
                let held = wish.request().and_then(|request| now.holds.get(&(wish.user().clone(), request.clone()))).copied();
                let one = apply([wish], now.clone(), noon());
                for (user, entry) in &one.entries {
                    if let (Operation::Capture(_), Some(held)) = (wish, held) {
                        prop_assert!(entry.amount <= held.amount);
                    }
                    let past = Past { charged: entry.amount, after: entry.after };
                    prop_assert!(now.pasts.insert((user.clone(), entry.request.clone().unwrap()), past).is_none());
                }
                for (key, hold) in one.holds {
                    match hold {
                        Some(hold) => drop(now.holds.insert(key, hold)),
                        None => drop(now.holds.remove(&key)),
                    }
                }
                outcomes.extend(one.outcomes);
                entries.extend(one.entries);
                now.rows.extend(one.rows);
                for (user, row) in &now.rows {
                    let held: i64 = now.holds.iter().filter(|(key, _)| key.0 == *user).map(|(_, h)| h.amount.get()).sum();
                    prop_assert_eq!(row.held.get(), held);
                    prop_assert!(row.held <= row.flux, "nothing is promised twice");
                }
            }
            prop_assert_eq!(&batch.outcomes, &outcomes);
            prop_assert_eq!(&batch.entries, &entries);
            for (user, row) in &batch.rows {
                prop_assert_eq!(row, &now.rows[user]);
            }
            for (key, hold) in &batch.holds {
                prop_assert_eq!(hold.as_ref(), now.holds.get(key));
            }

            for (user, first) in &start.rows {
                let mine: Vec<&Entry> = batch.entries.iter().filter(|(owner, _)| owner == user).map(|(_, e)| e).collect();
                let last = now.rows.get(user).unwrap();
                let taken: i64 = mine.iter().map(|entry| entry.amount.get()).sum();
                prop_assert_eq!(first.flux.get() - taken, last.flux.get());
                prop_assert_eq!(mine.first().map_or(last.flux, |entry| entry.before), first.flux);
                for pair in mine.windows(2) {
                    prop_assert_eq!(pair[0].after, pair[1].before);
                    prop_assert!(pair[0].at < pair[1].at);
                }
            }
        }
    }
}
