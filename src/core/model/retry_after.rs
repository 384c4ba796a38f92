//! When an upstream wants to be asked again.

use chrono::DateTime;

/// Whole seconds of a `Retry-After`: a number, or a date told relative to the upstream's own clock, its `Date`
/// (RFC 9110 §10.2.3).
pub fn retry_after_seconds(retry_after: &str, date: Option<&str>) -> Option<u64> {
    let text = retry_after.trim();
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let until = DateTime::parse_from_rfc2822(text).ok()?;
    let now = DateTime::parse_from_rfc2822(date?).ok()?;
    u64::try_from((until - now).num_seconds()).ok()
}
