//! How often something may be done.

use std::time::Duration;

/// A fixed window: so many calls per so much time, counted from the first call of the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Names the counter and labels the metric, e.g. `openai.completions`.
    pub route: &'static str,
    /// Calls admitted per window.
    pub max: u32,
    /// Length of the window.
    pub window: Duration,
}

/// Chat completions: 60 calls per 60 s and user (contract `gateway.md` §9).
pub const CHAT_COMPLETIONS: Limit = Limit { route: "openai.completions", max: 60, window: Duration::from_secs(60) };

/// One-shot speech: 60 calls per 60 s and user; clients speak sentence by sentence (contract `audio.md` AU-D01).
pub const AUDIO_SPEECH: Limit = Limit { route: "audio.speech", max: 60, window: Duration::from_secs(60) };

/// Catalogues of speech: 120 calls per 60 s and user.
pub const AUDIO_CATALOG: Limit = Limit { route: "audio.catalog", max: 120, window: Duration::from_secs(60) };

/// Speech sockets opened: 30 per 60 s and user.
pub const AUDIO_SOCKETS: Limit = Limit { route: "audio.sockets", max: 30, window: Duration::from_secs(60) };

/// Operator endpoints: 60 calls per 60 s and administrator (contract `admin.md` AD-D02).
pub const ADMIN: Limit = Limit { route: "admin", max: 60, window: Duration::from_secs(60) };

/// Passwords tried for one address, from wherever (contract `auth.md` F-22).
pub const PASSWORD_ATTEMPTS: Limit = Limit { route: "auth.password", max: 30, window: Duration::from_secs(600) };

/// Proof letters to one address (contract `auth.md` F-06).
pub const VERIFICATION_LETTERS: Limit =
    Limit { route: "auth.verification_letter", max: 1, window: Duration::from_secs(60) };

/// Other letters to one address.
pub const LETTERS: Limit = Limit { route: "auth.letter", max: 5, window: Duration::from_secs(600) };
/// Checkout sessions and portal visits: 10 calls per 60 s and user (contract `billing-stripe.md` §6.3).
pub const STRIPE_CHECKOUT: Limit = Limit { route: "stripe.checkout", max: 10, window: Duration::from_secs(60) };

/// What the counter said about one call. The call has been counted, whatever the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Whether the call may go on.
    pub admitted: bool,
    /// Calls left in this window.
    pub remaining: u32,
    /// Time until the window ends.
    pub resets_in: Duration,
}

impl Admission {
    /// Judges the `count`-th call (1 is the first) of a window that ends in `resets_in`.
    pub fn judge(limit: &Limit, count: u64, resets_in: Duration) -> Self {
        let max = u64::from(limit.max);
        Self { admitted: count <= max, remaining: u32::try_from(max.saturating_sub(count)).unwrap_or(0), resets_in }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sixty_first_call_is_refused() {
        let left = Duration::from_secs(3);
        assert_eq!(
            Admission::judge(&CHAT_COMPLETIONS, 60, left),
            Admission { admitted: true, remaining: 0, resets_in: left }
        );
        assert!(!Admission::judge(&CHAT_COMPLETIONS, 61, left).admitted);
        assert_eq!(Admission::judge(&CHAT_COMPLETIONS, 1, left).remaining, 59);
    }
}
