//! How long a charge is tried: what was delivered is owed, though the database is away for a while.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);
const TRIES: usize = 30;

/// The pauses between the tries of one charge: each twice the one before, then half a minute each, 12 minutes in all.
/// Every try is safe to repeat, because a charge is known by its request.
pub fn pauses() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(FIRST), |pause| Some((*pause * 2).min(LONGEST))).take(TRIES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_is_tried_for_minutes_and_not_forever() {
        let pauses: Vec<_> = pauses().collect();
        assert_eq!((pauses[0], pauses[1], pauses[28]), (FIRST, FIRST * 2, LONGEST));
        let all: Duration = pauses.iter().sum();
        assert!((600..900).contains(&all.as_secs()), "{all:?}");
    }
}
