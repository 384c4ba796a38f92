//! From a payment, a refund or a dispute to the entries to be written.
//!
//! Flux of a refunded payment is taken back as far as what is available goes: held flux stands for answers that were
//! promised first, and taking it would leave one of them unpaid and nobody owing for it. What is missing is owed and
//! taken from the next purchases. So, whatever order the provider's events come in, balance minus debt ends at the same
//! number.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use crate::core::model::ids::{EntryId, RequestId, UserId};
use crate::core::model::ledger::{Balance, Credit, Entry, EntryKind, Flux};
use crate::core::model::posting::LockedBalance;

/// What was paid for: the mirror row whose claim makes the credit happen once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A checkout session, by the provider's id.
    Checkout(String),
    /// An invoice, by the provider's id.
    Invoice(String),
}

impl Claim {
    /// The text clawbacks name it by.
    pub fn name(&self) -> String {
        match self {
            Self::Checkout(id) => format!("checkout:{id}"),
            Self::Invoice(id) => format!("invoice:{id}"),
        }
    }
}

/// A payment whose flux is due.
#[derive(Clone, Debug, PartialEq)]
pub struct Purchase {
    /// What is claimed.
    pub claim: Claim,
    /// The payment, to find what was taken back before it was credited, and noted for what is taken back later.
    pub payment_intent: Option<String>,
    /// Smallest units paid.
    pub paid: Option<i64>,
    /// The credit; its request is the event id.
    pub credit: Credit,
    /// Id of the entry that pays off what is owed, if one is written.
    pub owed_entry: EntryId,
}

/// What became of a purchase.
#[derive(Clone, Debug, PartialEq)]
pub enum Settled {
    /// Credited.
    Applied {
        /// What the user has now.
        balance: Balance,
        /// The account is closed: the archived row was credited so that the books balance (BS-D22).
        closed: bool,
        /// What was taken back before it was credited, and is taken now, in the order it came.
        clawed: Vec<Clawed>,
    },
    /// The row was claimed before, or there is none of this user.
    AlreadyDone,
    /// The sum would pass 2^53; nothing was written.
    Overflow,
}

/// One clawback a credit found waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clawed {
    /// The clawback's.
    pub request: RequestId,
    /// Due.
    pub asked: Flux,
    /// Taken; the rest is owed.
    pub taken: Flux,
}

/// Why flux is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The money went back to the buyer; amounts are cumulative per charge.
    Refund,
    /// The buyer's bank holds it.
    Dispute,
}

impl Reason {
    /// The stored word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refund => "refund",
            Self::Dispute => "dispute",
        }
    }

    /// Reads the stored word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Refund, Self::Dispute].into_iter().find(|reason| reason.as_str() == word)
    }
}

/// Flux to be taken back; stored, and applied at once or when its payment is credited.
#[derive(Clone, Debug, PartialEq)]
pub struct ClawBack {
    /// `stripe-refund:<charge>:<amount_refunded>` or `stripe-dispute:<dispute>`; a second one is a replay.
    pub request: RequestId,
    /// Why.
    pub reason: Reason,
    /// The payment.
    pub payment_intent: String,
    /// Smallest units refunded so far, or disputed.
    pub amount: i64,
    /// Smallest units of the whole charge; the purchase's own when absent.
    pub of: Option<i64>,
    /// Id of the entry, if one is written.
    pub entry: EntryId,
    /// Text of the entry.
    pub description: String,
    /// Facts of the entry.
    pub metadata: Map<String, Value>,
}

/// What became of flux to be taken back.
#[derive(Clone, Debug, PartialEq)]
pub enum ClawedBack {
    /// Taken as far as the balance went.
    Applied {
        /// From whom.
        user: UserId,
        /// Due.
        asked: Flux,
        /// Taken; the rest is owed.
        taken: Flux,
        /// What remains; absent when the account is closed.
        balance: Option<Balance>,
    },
    /// Known already.
    Replayed,
    /// No credited payment goes by this name yet; stored, and applied when one does.
    Waiting,
}

/// A dispute that was won: what it took is given back.
#[derive(Clone, Debug, PartialEq)]
pub struct Restore {
    /// `stripe-dispute-won:<dispute>`.
    pub request: RequestId,
    /// The clawback undone: `stripe-dispute:<dispute>`.
    pub of: RequestId,
    /// The payment.
    pub payment_intent: String,
    /// Id of the entry, if one is written.
    pub entry: EntryId,
    /// Id of the entry that pays off what is owed, if one is written.
    pub owed_entry: EntryId,
    /// Text of the entry.
    pub description: String,
    /// Facts of the entry.
    pub metadata: Map<String, Value>,
}

/// What became of a won dispute.
#[derive(Clone, Debug, PartialEq)]
pub enum Restored {
    /// Undone.
    Applied {
        /// For whom.
        user: UserId,
        /// Given back to the balance; what was still owed for the dispute is forgiven beside it.
        given: Flux,
        /// What the user has now.
        balance: Balance,
        /// The account is closed.
        closed: bool,
    },
    /// It was undone before, or it had taken nothing; a dispute that arrives later will take nothing.
    Nothing,
}

/// A clawback of a purchase, as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Why.
    pub reason: Reason,
    /// Smallest units refunded so far, or disputed.
    pub amount: i64,
    /// Smallest units of the whole charge; the purchase's own when absent.
    pub of: Option<i64>,
    /// A dispute that was won: nothing is due for it.
    pub restored: bool,
    /// What was asked for it and not given back since.
    pub asked: Flux,
}

/// All that is taken back of one purchase.
///
/// What is due follows from all refunds and disputes together and never from the order they came in: the largest
/// refund, because refunds are told as a running sum, and every dispute that is not won, up to what the purchase
/// brought.
#[derive(Clone, Debug)]
pub struct Returns {
    credited: Flux,
    paid: Option<i64>,
    refunded: Flux,
    disputed: Flux,
    asked: Flux,
}

impl Returns {
    /// Nothing is taken back yet of `credited` flux that cost `paid` smallest units.
    pub fn of(credited: Flux, paid: Option<i64>) -> Self {
        Self { credited, paid, refunded: Flux::ZERO, disputed: Flux::ZERO, asked: Flux::ZERO }
    }

    /// Adds what is stored.
    pub fn know(&mut self, stored: &Stored) {
        self.asked = plus(self.asked, stored.asked);
        if !stored.restored {
            self.count(stored.reason, stored.amount, stored.of);
        }
    }

    /// Adds what is new; answers what is to be taken for it beside what was asked before.
    pub fn ask(&mut self, claw: &ClawBack) -> Flux {
        self.count(claw.reason, claw.amount, claw.of);
        let more = self.due().saturating_sub(self.asked);
        self.asked = plus(self.asked, more);
        more
    }

    /// What was asked and is no longer due, now that a dispute is won.
    pub fn surplus(&self) -> Flux {
        self.asked.saturating_sub(self.due())
    }

    fn due(&self) -> Flux {
        plus(self.refunded, self.disputed).min(self.credited)
    }

    fn count(&mut self, reason: Reason, amount: i64, of: Option<i64>) {
        let share = match of.or(self.paid).filter(|whole| *whole > 0) {
            Some(whole) => {
                let amount = i128::from(amount.clamp(0, whole));
                let share = i128::from(self.credited.get()) * amount / i128::from(whole);
                Flux::saturating(i64::try_from(share).unwrap_or(i64::MAX))
            }
            None => self.credited,
        };
        match reason {
            Reason::Refund => self.refunded = self.refunded.max(share),
            Reason::Dispute => self.disputed = plus(self.disputed, share),
        }
    }
}

fn plus(one: Flux, other: Flux) -> Flux {
    Flux::saturating(one.get().saturating_add(other.get()))
}

/// A user's locked row, what they owe, and the entries written so far in this transaction.
#[derive(Debug)]
pub struct Books {
    /// The balance row.
    pub row: LockedBalance,
    /// Flux owed.
    pub owed: Flux,
    /// To be written, in order.
    pub entries: Vec<Entry>,
}

impl Books {
    /// Adds a purchase; `false` when the sum would pass 2^53.
    pub fn credit(&mut self, credit: &Credit, clock: DateTime<Utc>) -> bool {
        let Some(entry) = self.row.credit(credit, clock) else { return false };
        self.entries.push(entry);
        true
    }

    /// Takes back what is due; answers what could be taken, and owes the rest.
    pub fn claw_back(&mut self, claw: &ClawBack, asked: Flux, clock: DateTime<Utc>) -> Flux {
        let taken = match self.row.take_back(asked, clock) {
            Some((before, taken)) => {
                let mut metadata = claw.metadata.clone();
                crate::core::model::ledger::add_shortfall(&mut metadata, taken, asked.saturating_sub(taken));
                self.push(&claw.entry, (before, taken), &claw.request, &claw.description, metadata);
                taken
            }
            None => Flux::ZERO,
        };
        self.owed = Flux::saturating(self.owed.get() + asked.saturating_sub(taken).get());
        taken
    }

    /// Pays off what is owed as far as the balance goes; answers what was paid. `occasion` is the business object whose
    /// credit made it possible.
    pub fn pay_off(&mut self, entry: &EntryId, occasion: &RequestId, clock: DateTime<Utc>) -> Flux {
        let owed = self.owed;
        let Some((before, taken)) = self.row.take_back(owed, clock) else { return Flux::ZERO };
        self.owed = owed.saturating_sub(taken);
        let mut metadata = Map::new();
        metadata.insert("source".to_owned(), "stripe.owed".into());
        metadata.insert("occasion".to_owned(), occasion.as_str().into());
        let request = RequestId::new(format!("stripe-owed:{occasion}"));
        self.push(entry, (before, taken), &request, OWED_DESCRIPTION, metadata);
        taken
    }

    /// Undoes `back` of a clawback that left `unpaid` owed: what of it is still owed is forgiven, the rest is given
    /// back. Answers the amount to be credited.
    pub fn forgive(&mut self, back: Flux, unpaid: Flux) -> Flux {
        let forgiven = self.owed.min(unpaid).min(back);
        self.owed = self.owed.saturating_sub(forgiven);
        back.saturating_sub(forgiven)
    }

    fn push(
        &mut self,
        id: &EntryId,
        (before, amount): (Flux, Flux),
        request: &RequestId,
        description: &str,
        metadata: Map<String, Value>,
    ) {
        self.entries.push(Entry {
            id: id.clone(),
            kind: EntryKind::Debit,
            amount,
            before,
            after: self.row.flux,
            request: Some(request.clone()),
            description: description.to_owned(),
            metadata: Some(metadata),
            at: self.row.touched,
        });
    }
}

/// The text of an entry that pays off what refunds left owed.
pub const OWED_DESCRIPTION: &str = "Refund settlement";

/// The flux a purchase brought: what we noted, else, for a row the reference credited, what its metadata promised.
pub fn credited(noted: Option<i64>, metadata: Option<&str>) -> Flux {
    if let Some(noted) = noted {
        return Flux::saturating(noted);
    }
    let metadata: Option<Value> = metadata.and_then(|text| serde_json::from_str(text).ok());
    metadata
        .as_ref()
        .and_then(|metadata| metadata["fluxAmount"].as_str())
        .and_then(super::whole_flux)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flux(amount: i64) -> Flux {
        Flux::new(amount).unwrap()
    }

    fn claw(reason: Reason, amount: i64) -> ClawBack {
        ClawBack {
            request: RequestId::new("r"),
            reason,
            payment_intent: "pi".to_owned(),
            amount,
            of: Some(300),
            entry: EntryId::new("e"),
            description: "Refund USD 1.00".to_owned(),
            metadata: Map::new(),
        }
    }

    fn books(balance: i64) -> Books {
        let row = LockedBalance {
            flux: flux(balance),
            held: Flux::ZERO,
            version: 1,
            touched: DateTime::UNIX_EPOCH,
            closed: false,
        };
        Books { row, owed: Flux::ZERO, entries: Vec::new() }
    }

    #[test]
    fn partial_refunds_are_floored_as_a_running_sum_and_stop_at_the_whole() {
        use Reason::{Dispute, Refund};
        for (claws, last) in [
            (&[(Refund, 100)][..], 166),
            (&[(Refund, 100), (Refund, 250)], 250),
            (&[(Refund, 100), (Refund, 250), (Refund, 100)], 0),
            (&[(Refund, 100), (Dispute, 300)], 334),
            (&[(Dispute, 300), (Refund, 100)], 0),
            (&[(Refund, 900)], 500),
        ] {
            let mut returns = Returns::of(flux(500), None);
            let asked: Vec<_> = claws.iter().map(|(reason, amount)| returns.ask(&claw(*reason, *amount))).collect();
            assert_eq!(asked.last(), Some(&flux(last)), "{claws:?}");
        }
    }

    #[test]
    fn a_dispute_that_is_won_frees_only_what_no_refund_stands_for() {
        let stored =
            |reason, amount, restored, asked| Stored { reason, amount, of: Some(300), restored, asked: flux(asked) };
        for (refund, asked, freed) in [(300, 0, 0), (100, 0, 334), (0, 0, 500), (250, 416, 84)] {
            let mut returns = Returns::of(flux(500), None);
            returns.know(&stored(Reason::Dispute, 300, true, 500 - asked));
            returns.know(&stored(Reason::Refund, refund, false, asked));
            assert_eq!(returns.surplus(), flux(freed), "{refund}");
        }
    }

    #[test]
    fn what_the_balance_lacks_is_owed_and_paid_off_by_the_next_credit() {
        let mut books = books(300);
        let clock = DateTime::UNIX_EPOCH;
        assert_eq!(books.claw_back(&claw(Reason::Refund, 300), flux(500), clock), flux(300));
        assert_eq!((books.row.flux, books.owed), (Flux::ZERO, flux(200)));
        books.row.flux = flux(150);
        assert_eq!(books.pay_off(&EntryId::new("p"), &RequestId::new("evt"), clock), flux(150));
        assert_eq!((books.row.flux, books.owed), (Flux::ZERO, flux(50)));
        assert_eq!(books.entries.len(), 2);
        assert_eq!(books.entries[0].metadata.as_ref().unwrap()["unbilled"], 200);
        assert!(books.entries[1].at > books.entries[0].at);
    }

    #[test]
    fn a_won_dispute_gives_back_exactly_what_it_took() {
        let mut books = books(300);
        let taken = books.claw_back(&claw(Reason::Dispute, 300), flux(500), DateTime::UNIX_EPOCH);
        assert_eq!(books.forgive(flux(500), flux(500).saturating_sub(taken)), flux(300));
        assert_eq!(books.owed, Flux::ZERO);
    }

    #[test]
    fn a_row_the_reference_credited_is_worth_what_it_promised() {
        assert_eq!(credited(Some(7), Some(r#"{"fluxAmount":"500"}"#)), flux(7));
        assert_eq!(credited(None, Some(r#"{"fluxAmount":"500"}"#)), flux(500));
        assert_eq!(credited(None, Some("nonsense")), Flux::ZERO);
    }
}
