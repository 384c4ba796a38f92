//! Whether the books are whole: every entry continues the one before it, every balance is the sum of its entries, and
//! every held amount the sum of its holds (contracts `ledger.md` §3, `billing-stripe.md` §1).

use std::collections::HashMap;
use std::fmt;

use super::ids::{EntryId, UserId};

/// Most drifts that are told one by one; the rest is counted.
const TOLD: usize = 10_000;

/// Something that does not add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// Whose books.
    pub user: UserId,
    /// What is wrong.
    pub what: Discrepancy,
}

/// What does not add up, in stored numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discrepancy {
    /// An entry does not start where the one before it ended.
    Gap {
        /// The entry.
        entry: EntryId,
        /// The balance after the entry before it.
        expected: i64,
        /// Its own balance before.
        found: i64,
    },
    /// An entry does not end at its start plus or minus its amount.
    Arithmetic {
        /// The entry.
        entry: EntryId,
        /// Where it should end.
        expected: i64,
        /// Where it ends.
        found: i64,
    },
    /// The balance is not the sum of the entries.
    Balance {
        /// The sum.
        entries: i64,
        /// The balance; zero when there is no row.
        balance: i64,
    },
    /// The held amount is not the sum of the holds.
    Held {
        /// The sum.
        holds: i64,
        /// What the balance row says; zero when there is none.
        held: i64,
    },
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = &self.user;
        match &self.what {
            Discrepancy::Gap { entry, expected, found } => {
                write!(f, "{user}: entry {entry} starts at {found}, the one before it ends at {expected}")
            }
            Discrepancy::Arithmetic { entry, expected, found } => {
                write!(f, "{user}: entry {entry} ends at {found}, its amount leads to {expected}")
            }
            Discrepancy::Balance { entries, balance } => {
                write!(
                    f,
                    "{user}: balance {balance}, entries sum up to {entries}, drift {}",
                    balance.saturating_sub(*entries)
                )
            }
            Discrepancy::Held { holds, held } => {
                write!(f, "{user}: held {held}, holds sum up to {holds}, drift {}", held.saturating_sub(*holds))
            }
        }
    }
}

/// What a walk through the books found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Entries walked.
    pub entries: u64,
    /// Balance rows checked.
    pub balances: u64,
    /// What does not add up; at most 10 000 of it.
    pub drifts: Vec<Drift>,
    /// How many drifts there are in all.
    pub drift_count: u64,
}

/// One stored entry.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Row id.
    pub id: &'a str,
    /// Stored word of its kind.
    pub kind: &'a str,
    /// As stored.
    pub amount: i64,
    /// As stored.
    pub before: i64,
    /// As stored.
    pub after: i64,
}

/// Walks the books: first every entry, ordered by user, time and id, then every balance row. All of it MUST come from
/// one snapshot.
#[derive(Debug, Default)]
pub struct Walk {
    verified: Verified,
    current: Option<(String, Account)>,
    accounts: HashMap<String, i64>,
}

#[derive(Debug, Default)]
struct Account {
    sum: i64,
    after: i64,
}

impl Walk {
    /// The next entry.
    pub fn entry(&mut self, user: &str, line: Line<'_>) {
        self.verified.entries += 1;
        if self.current.as_ref().is_none_or(|(name, _)| name != user) {
            self.turn(Some(user));
        }
        let Some((_, account)) = &mut self.current else { return };
        let change = if line.kind == "debit" { line.amount.saturating_neg() } else { line.amount };
        let (gap, expected) = (account.after, line.before.saturating_add(change));
        account.sum = account.sum.saturating_add(change);
        account.after = line.after;
        let entry = || EntryId::new(line.id);
        if gap != line.before {
            self.tell(user, Discrepancy::Gap { entry: entry(), expected: gap, found: line.before });
        }
        if expected != line.after {
            self.tell(user, Discrepancy::Arithmetic { entry: entry(), expected, found: line.after });
        }
    }

    /// The next balance row, with the sum of the user's holds; a user with holds and no row counts as a row of zero.
    pub fn balance(&mut self, user: &str, flux: i64, held: i64, holds: i64) {
        self.turn(None);
        self.verified.balances += 1;
        let entries = self.accounts.remove(user).unwrap_or_default();
        if entries != flux {
            self.tell(user, Discrepancy::Balance { entries, balance: flux });
        }
        if holds != held {
            self.tell(user, Discrepancy::Held { holds, held });
        }
    }

    /// Everything was seen.
    pub fn finish(mut self) -> Verified {
        self.turn(None);
        let mut orphans: Vec<_> = std::mem::take(&mut self.accounts).into_iter().filter(|(_, sum)| *sum != 0).collect();
        orphans.sort_unstable();
        for (user, entries) in orphans {
            self.tell(&user, Discrepancy::Balance { entries, balance: 0 });
        }
        self.verified
    }

    fn turn(&mut self, next: Option<&str>) {
        let next = next.map(|user| (user.to_owned(), Account::default()));
        if let Some((user, account)) = std::mem::replace(&mut self.current, next) {
            self.accounts.insert(user, account.sum);
        }
    }

    fn tell(&mut self, user: &str, what: Discrepancy) {
        self.verified.drift_count += 1;
        if self.verified.drifts.len() < TOLD {
            self.verified.drifts.push(Drift { user: UserId::new(user), what });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &'static str, kind: &'static str, amount: i64, before: i64, after: i64) -> Line<'static> {
        Line { id, kind, amount, before, after }
    }

    fn told(verified: &Verified) -> Vec<String> {
        verified.drifts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn whole_books_have_no_drift() {
        let mut walk = Walk::default();
        walk.entry("a", line("1", "initial", 10, 0, 10));
        walk.entry("a", line("2", "debit", 4, 10, 6));
        walk.entry("b", line("3", "credit", 5, 0, 5));
        walk.balance("b", 5, 2, 2);
        walk.balance("a", 6, 0, 0);
        walk.balance("c", 0, 0, 0);
        let verified = walk.finish();
        assert_eq!((verified.entries, verified.balances, verified.drift_count), (3, 3, 0));
    }

    #[test]
    fn every_kind_of_drift_is_told_with_its_owner() {
        let mut walk = Walk::default();
        walk.entry("a", line("1", "initial", 10, 0, 10));
        walk.entry("a", line("2", "debit", 4, 9, 6));
        walk.entry("b", line("3", "credit", 5, 0, 5));
        walk.balance("a", 7, 3, 2);
        let verified = walk.finish();
        assert_eq!(verified.drift_count, 5);
        assert_eq!(
            told(&verified),
            [
                "a: entry 2 starts at 9, the one before it ends at 10",
                "a: entry 2 ends at 6, its amount leads to 5",
                "a: balance 7, entries sum up to 6, drift 1",
                "a: held 3, holds sum up to 2, drift 1",
                "b: balance 0, entries sum up to 5, drift -5",
            ]
        );
    }
}
