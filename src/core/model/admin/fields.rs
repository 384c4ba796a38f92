//! The members that slices have in common.

use serde_json::Value;
use url::Url;

use super::address::{AddressPolicy, check_address};
use super::reading::{Members, wrong_type};
use crate::core::model::secret::Secret;

/// Accepted time limits, ms (contract `gateway.md` §11).
pub(super) const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 1..=600_000;

/// Accepted limits of an answer, tokens: up to the largest number every JSON reader keeps exact (RFC 8259 §6).
pub(super) const OUTPUT_TOKENS: std::ops::RangeInclusive<u64> = 1..=9_007_199_254_740_991;

/// Address of a service that must be there.
pub(super) fn address(members: &mut Members<'_>, name: &'static str, policy: AddressPolicy) -> Option<String> {
    let text = members.text(name, 2_000)?;
    checked_address(members, name, text, policy)
}

/// Address of a service, or where the provider usually is.
pub(super) fn address_or(
    members: &mut Members<'_>,
    name: &'static str,
    default: &str,
    policy: AddressPolicy,
) -> Option<String> {
    let Some(value) = members.optional(name) else { return Some(default.to_owned()) };
    let Value::String(text) = value else {
        return members.fault(name, wrong_type("string", &value));
    };
    checked_address(members, name, text, policy)
}

/// The same for a provider that also speaks over a socket: a `ws` or `wss` address chooses that form.
pub(super) fn address_or_socket(
    members: &mut Members<'_>,
    name: &'static str,
    default: &str,
    policy: AddressPolicy,
) -> Option<String> {
    let socket = members.peek(name).is_some_and(|value| value.as_str().is_some_and(|text| text.starts_with("ws")));
    if socket { socket_address(members, name, policy) } else { address_or(members, name, default, policy) }
}

/// Address of a socket that must be there.
pub(super) fn socket_address(members: &mut Members<'_>, name: &'static str, policy: AddressPolicy) -> Option<String> {
    let text = members.text(name, 500)?;
    let is_socket = text.starts_with("wss://") || text.starts_with("ws://");
    let Some(url) = parsed(&text).filter(|_| is_socket) else {
        return members.fault(name, format!("{name} must start with ws:// or wss://"));
    };
    match check_address(&url, ("wss", "ws"), policy) {
        None => Some(text),
        Some(why) => members.policy_fault(name, format!("{name} {why}")),
    }
}

fn checked_address(members: &mut Members<'_>, name: &str, text: String, policy: AddressPolicy) -> Option<String> {
    let Some(url) = parsed(&text) else {
        return members.fault(name, format!("{name} must be a valid URL"));
    };
    match check_address(&url, ("https", "http"), policy) {
        None => Some(text),
        Some(why) => members.policy_fault(name, format!("{name} {why}")),
    }
}

/// Parsers of addresses drop blanks and line breaks and turn backslashes; what is stored must be what was checked.
fn parsed(text: &str) -> Option<Url> {
    let is_plain = !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\');
    (is_plain && text.len() <= 2_000).then(|| Url::parse(text).ok()).flatten()
}

/// How the key is presented.
pub(super) fn header_template(members: &mut Members<'_>) -> String {
    let Some(template) = members.optional_text("headerTemplate", 200) else { return "Bearer {KEY}".to_owned() };
    if !template.contains("{KEY}") {
        members.fault::<()>("headerTemplate", "headerTemplate must contain {KEY}");
    }
    if !template.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        members.fault::<()>("headerTemplate", "headerTemplate must be printable ASCII");
    }
    template
}

/// A key that must be there.
pub(super) fn plaintext_key(members: &mut Members<'_>) -> Option<Secret> {
    let value = members.required("plaintextKey")?;
    checked_key(members, value)
}

/// A key in the clear, if it can be one.
pub(super) fn checked_key(members: &mut Members<'_>, value: Value) -> Option<Secret> {
    let Value::String(key) = value else {
        return members.fault("plaintextKey", wrong_type("string", &value));
    };
    // From here on the only copy wipes itself.
    let key = Secret::new(key);
    if key.expose().is_empty() {
        return members.fault("plaintextKey", "plaintextKey is required");
    }
    if key.expose().encode_utf16().count() > 1024 {
        return members.fault("plaintextKey", "plaintextKey must be at most 1024 characters");
    }
    if key.expose().chars().any(char::is_control) {
        return members.fault("plaintextKey", "plaintextKey must not contain control characters");
    }
    Some(key)
}
