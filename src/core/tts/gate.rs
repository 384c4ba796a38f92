//! Who may speak: the price, the balance, and what is already under way (contract `audio.md` §2.2, §7.1, §7.2).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rust_decimal::Decimal;

use crate::core::config::Config;
use crate::core::error::{Code, Error};
use crate::core::ledger::Ledger;
use crate::core::model::config::{FluxPer1kCharsTts, TtsDebtTtlSeconds};
use crate::core::model::fact::Fact;
use crate::core::model::ids::{RequestId, UserId};
use crate::core::model::ledger::Flux;
use crate::core::model::meter::Unsettled;
use crate::core::model::tts::{METER, affords, units_per_flux};
use crate::ports::journal::Journal;
use crate::ports::ledger::UsageMeter;

/// A cached balance this near to what is needed is not trusted.
const TRUSTED_DISTANCE: i64 = 10;

/// What the built-in voice costs while no price is set, so that a newcomer sees how speech is paid.
const SANDBOX_PRICE: Decimal = Decimal::ONE;

/// Judges callers before anything is paid for them.
pub struct Gate {
    /// Prices.
    pub config: Arc<Config>,
    /// Balances.
    pub ledger: Arc<Ledger>,
    /// Unsettled units.
    pub meter: Arc<dyn UsageMeter>,
    /// Hears about refusals.
    pub journal: Arc<dyn Journal>,
    /// Units of calls that are not settled yet; start with the default.
    pub in_flight: InFlight,
    /// Whether the built-in voice exists.
    pub sandbox: bool,
}

/// What speech costs at this moment; never kept across calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tariff {
    /// Units worth one flux, at least 1.
    pub units_per_flux: i64,
    /// A remainder untouched for this long is forgiven.
    pub debt_lifetime: Duration,
    /// Whether an operator set the price; without one only the built-in voice may be used.
    pub set: bool,
}

/// Proof that a call passed the gate. Whoever holds it holds its units against other calls of the user.
#[derive(Debug)]
pub struct Admission {
    /// Who pays.
    pub user: UserId,
    /// For what; the meter takes it once.
    pub request: RequestId,
    /// At which price.
    pub tariff: Tariff,
    _held: Held,
}

impl Gate {
    /// The price, or why nobody may speak.
    pub async fn tariff(&self) -> Result<Tariff, Error> {
        let set = self.config.optional::<FluxPer1kCharsTts>().await?;
        let Some(price) = set.or_else(|| self.sandbox.then_some(SANDBOX_PRICE)) else {
            return Err(Error::new(Code::ConfigNotSet).saying("TTS service is not available yet"));
        };
        let lifetime = self.config.required::<TtsDebtTtlSeconds>().await?;
        Ok(Tariff {
            units_per_flux: units_per_flux(price),
            debt_lifetime: Duration::from_secs(lifetime),
            set: set.is_some(),
        })
    }

    /// Refuses callers who have nothing. One flux buys hundreds of characters, so the price does not matter here.
    pub async fn solvent(&self, user: &UserId) -> Result<Flux, Error> {
        let mut balance = self.ledger.balance(user).await?;
        if balance.is_zero() {
            balance = self.ledger.settled(user).await?;
        }
        if balance.is_zero() {
            return Err(Error::new(Code::InsufficientFlux));
        }
        Ok(balance)
    }

    /// Judges `units` exactly, beside what is unsettled, what holds set aside, and what other calls of this process have
    /// under way.
    pub async fn admit(
        &self,
        user: UserId,
        request: RequestId,
        tariff: Tariff,
        balance: Flux,
        units: i64,
    ) -> Result<Admission, Error> {
        let Unsettled { units: debt, held: set_aside } = self.meter.debt(&user, METER, tariff.debt_lifetime).await?;
        let needed = debt.saturating_add(units) / tariff.units_per_flux;
        let mut available = balance.saturating_sub(set_aside);
        if available.get() <= needed.saturating_add(TRUSTED_DISTANCE) {
            available = self.ledger.settled(&user).await?.saturating_sub(set_aside);
        }
        let fits = |held| affords(available.get(), debt, held, units, tariff.units_per_flux);
        let Some(held) = self.in_flight.hold(&user, units, fits) else {
            self.journal.record(Fact::PreflightRejected { meter: METER });
            return Err(Error::new(Code::InsufficientFlux));
        };
        Ok(Admission { user, request, tariff, _held: held })
    }
}

/// Units under way, by user. Those of other processes are not seen: their calls can admit more than a balance affords,
/// which costs nobody a unit, because what cannot be taken stays in the debt.
#[derive(Clone, Debug, Default)]
pub struct InFlight(Arc<Mutex<HashMap<UserId, i64>>>);

#[derive(Debug)]
struct Held {
    book: InFlight,
    user: UserId,
    units: i64,
}

impl InFlight {
    fn hold(&self, user: &UserId, units: i64, fits: impl FnOnce(i64) -> bool) -> Option<Held> {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = book.get(user).copied().unwrap_or(0);
        if !fits(held) {
            return None;
        }
        book.insert(user.clone(), held.saturating_add(units));
        drop(book);
        Some(Held { book: self.clone(), user: user.clone(), units })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut book = self.book.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = book.get(&self.user).copied().unwrap_or(0) - self.units;
        if left > 0 {
            book.insert(self.user.clone(), left);
        } else {
            book.remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_counts_until_it_is_let_go() {
        let book = InFlight::default();
        let user = UserId::new("u");
        let fits = |held: i64| affords(1, 0, held, 900, 1_000);
        let first = book.hold(&user, 900, fits).unwrap();
        let second = book.hold(&user, 900, fits).unwrap();
        assert_eq!(book.0.lock().unwrap().get(&user), Some(&1_800));
        assert!(book.hold(&user, 900, fits).is_none(), "three of them would cost two flux");
        assert!(book.hold(&UserId::new("other"), 900, fits).is_some());
        drop(second);
        assert!(book.hold(&user, 900, fits).is_some());
        drop(first);
        assert_eq!(book.0.lock().unwrap().get(&user), None);
    }
}
