//! Who is to be given how much (contract `admin.md` §2).

use serde_json::Value;

use super::reading::{Issues, Members, Unusable, parse, wrong_type};
use crate::core::model::ledger::Flux;

/// A grant as the operator wrote it, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct GrantDocument {
    /// Text of the ledger entries, 1 to 500 UTF-16 units.
    pub description: String,
    /// Flux per person, 1 to 10 000.
    pub amount: Flux,
    /// 1 to 200 addresses, as typed.
    pub emails: Vec<String>,
    /// Makes a repetition harmless.
    pub idempotency_key: Option<String>,
}

/// Why an address of a grant gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// An earlier address of the list, compared without case.
    DuplicateInInput,
    /// Nobody has it.
    NotFound,
    /// The balance of its owner is closed.
    UserDeleted,
}

impl SkipReason {
    /// The word in the answer.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DuplicateInInput => "duplicate_in_input",
            Self::NotFound => "not_found",
            Self::UserDeleted => "user_deleted",
        }
    }
}

impl GrantDocument {
    /// Reads the body of a grant.
    pub fn read(document: &[u8]) -> Result<Self, Unusable> {
        Self::from_value(parse(document)?)
    }

    /// Reads a grant that is JSON already.
    pub fn from_value(document: Value) -> Result<Self, Unusable> {
        let mut issues = Issues::default();
        let read = Members::of(document, String::new(), &mut issues).and_then(read_members);
        issues.judge(read)
    }
}

fn read_members(mut members: Members<'_>) -> Option<GrantDocument> {
    let description = members.text("description", 500);
    let amount = members.required("amount").and_then(|value| read_amount(&mut members, &value));
    let emails = members.list("emails", 200).and_then(|items| read_emails(&mut members, items));
    let idempotency_key = members.optional_text("idempotencyKey", 100);
    members.finish();
    Some(GrantDocument { description: description?, amount: amount?, emails: emails?, idempotency_key })
}

fn read_amount(members: &mut Members<'_>, value: &Value) -> Option<Flux> {
    let Some(amount) = value.as_f64() else { return members.fault("amount", wrong_type("number", value)) };
    if amount.fract() != 0.0 {
        members.fault::<()>("amount", "amount must be an integer");
    }
    if amount < 1.0 {
        members.fault::<()>("amount", "amount must be at least 1");
    }
    if amount > 10_000.0 {
        members.fault::<()>("amount", "amount must be at most 10000");
    }
    // A whole number within the bounds prints as digits only; anything else has been complained about.
    format!("{amount}").parse().ok().and_then(Flux::new)
}

fn read_emails(members: &mut Members<'_>, items: Vec<Value>) -> Option<Vec<String>> {
    let mut emails = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let path = format!("emails.{index}");
        match item {
            Value::String(text) if is_address(&text) => emails.push(text),
            Value::String(_) => {
                members.fault::<()>(&path, "emails must be valid email addresses");
            }
            other => {
                members.fault::<()>(&path, wrong_type("string", &other));
            }
        }
    }
    Some(emails)
}

/// The address rule of grants: a local part of letters, digits, `_`, `+`, `-` and single inner dots; labels of
/// letters and digits joined by `.` or `-`; a last label of at least two letters.
pub fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    let Some((labels, top)) = domain.rsplit_once('.') else { return false };
    local
        .split('.')
        .all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_+-".contains(c)))
        && labels.split(['.', '-']).all(|label| !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric()))
        && top.len() >= 2
        && top.chars().all(|c| c.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::admin::Issue;

    #[test]
    fn the_address_rule_is_the_contracts() {
        for good in ["a@b.co", "A.b+c_d-e@x-y.Example.ORG", "1@2.io"] {
            assert!(is_address(good), "{good}");
        }
        for bad in ["", "nope", " a@b.co", "a@b.co ", "a..b@c.de", ".a@c.de", "a.@c.de", "o'x@c.de", "a@b", "a@b.c"] {
            assert!(!is_address(bad), "{bad}");
        }
        for bad in ["a@-b.co", "a@b--c.co", "a@b..co", "a@b.c0", "a@b@c.de", "ü@b.co", "a@.co"] {
            assert!(!is_address(bad), "{bad}");
        }
    }

    #[test]
    fn every_refusal_of_the_fixture_comes_with_its_details() {
        let fixture: Value = serde_json::from_str(include_str!("../../../../tests/fixtures/admin-cases.json")).unwrap();
        let mut seen = 0;
        for case in fixture["fluxGrants"].as_array().unwrap() {
            let Some(details) = case["details"].as_array() else { continue };
            let Err(Unusable::Issues(issues)) = GrantDocument::from_value(case["body"].clone()) else {
                panic!("accepted {}", case["body"])
            };
            let issues: Vec<_> = issues.iter().map(Issue::to_json).collect();
            assert_eq!(&issues, details);
            seen += 1;
        }
        assert_eq!(seen, 2);
        assert_eq!(GrantDocument::read(b"not json"), Err(Unusable::NotJson));
        assert_eq!(GrantDocument::read(b"null"), Err(Unusable::NotJson));
    }

    #[test]
    fn a_typo_and_an_empty_key_are_refused_and_a_whole_float_is_a_whole_number() {
        let body = r#"{"description":"d","amount":10.0,"emails":["a@b.co"],"idempotencyKey":"","idempotenceKey":"x"}"#;
        let Err(Unusable::Issues(issues)) = GrantDocument::read(body.as_bytes()) else { panic!("accepted") };
        let paths: Vec<_> = issues.iter().map(|issue| issue.path.as_str()).collect();
        assert_eq!(paths, ["idempotencyKey", "idempotenceKey"]);
        let body = br#"{"description":"d","amount":10.0,"emails":["a@b.co"]}"#;
        assert_eq!(GrantDocument::read(body).unwrap().amount.get(), 10);
    }

    #[test]
    fn two_hundred_addresses_are_the_most() {
        let body = |count| {
            let emails: Vec<_> = (0..count).map(|n| format!("u{n}@b.co")).collect();
            serde_json::json!({"description": "d", "amount": 1, "emails": emails})
        };
        assert!(GrantDocument::from_value(body(200)).is_ok());
        let Err(Unusable::Issues(issues)) = GrantDocument::from_value(body(201)) else { panic!("accepted") };
        assert_eq!(issues[0].message, "emails must be at most 200 entries");
    }
}
