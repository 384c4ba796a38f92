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
    /// The payment, to find what was taken back before it was credited.
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
        /// What of it paid off what was owed or was taken back at once.
        withheld: Flux,
    },
    /// The row was claimed before, or there is none of this user.
    AlreadyDone,
    /// The sum would pass 2^53; nothing was written.
    Overflow,
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

/// What was taken back of a purchase before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Earlier {
    /// For refunds.
    pub refunds: Flux,
    /// For any reason.
    pub all: Flux,
}

/// How much of `credited` is due for `amount` of `of` smallest units, beside what was taken back before.
///
/// Refunds are told as a running sum, so earlier ones count against it. Nothing is taken back twice: refund and dispute
/// of one payment come to no more than it brought.
pub fn due(claw: &ClawBack, credited: Flux, paid: Option<i64>, earlier: Earlier) -> Flux {
    let whole = claw.of.or(paid).filter(|whole| *whole > 0);
    let share = match whole {
        Some(whole) => {
            let amount = i128::from(claw.amount.clamp(0, whole));
            let share = i128::from(credited.get()) * amount / i128::from(whole);
            Flux::saturating(i64::try_from(share).unwrap_or(i64::MAX))
        }
        None => credited,
    };
    let own = match claw.reason {
        Reason::Refund => share.saturating_sub(earlier.refunds),
        Reason::Dispute => share,
    };
    own.min(credited.saturating_sub(earlier.all))
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

    /// Undoes a clawback of `asked`: what of it is still owed is forgiven, the rest is given back. Answers the amount
    /// to be credited.
    pub fn forgive(&mut self, asked: Flux, taken: Flux) -> Flux {
        let forgiven = self.owed.min(asked.saturating_sub(taken));
        self.owed = self.owed.saturating_sub(forgiven);
        asked.saturating_sub(forgiven)
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
        let earlier = |refunds, all| Earlier { refunds: flux(refunds), all: flux(all) };
        let due = |reason, amount, earlier| due(&claw(reason, amount), flux(500), None, earlier).get();
        assert_eq!(due(Reason::Refund, 100, Earlier::default()), 166);
        assert_eq!(due(Reason::Refund, 250, earlier(166, 166)), 250);
        assert_eq!(due(Reason::Refund, 100, earlier(416, 416)), 0);
        assert_eq!(due(Reason::Dispute, 300, earlier(166, 166)), 334);
        assert_eq!(due(Reason::Refund, 100, earlier(0, 500)), 0);
        assert_eq!(due(Reason::Refund, 900, Earlier::default()), 500);
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
        assert_eq!(books.forgive(flux(500), taken), flux(300));
        assert_eq!(books.owed, Flux::ZERO);
    }

    #[test]
    fn a_row_the_reference_credited_is_worth_what_it_promised() {
        assert_eq!(credited(Some(7), Some(r#"{"fluxAmount":"500"}"#)), flux(7));
        assert_eq!(credited(None, Some(r#"{"fluxAmount":"500"}"#)), flux(500));
        assert_eq!(credited(None, Some("nonsense")), Flux::ZERO);
    }
}
