//! `PaymentSignatures`: whose messages are believed.

use airi_server::adapters::stripe::signatures::StripeSignatures;
use airi_server::core::model::secret::Secret;
use airi_server::ports::billing::PaymentSignatures;
use chrono::DateTime;
use serde_json::Value;

fn knowing(secrets: &[&str]) -> Box<dyn PaymentSignatures> {
    Box::new(StripeSignatures { secrets: secrets.iter().map(|secret| Secret::new(*secret)).collect() })
}

#[test]
fn every_vector_of_the_fixture() {
    let fixture: Value = serde_json::from_str(include_str!("../../fixtures/stripe-webhook-signatures.json")).unwrap();
    let secret = fixture["secret"].as_str().unwrap();
    let (current, rotated, stranger) = (knowing(&[secret]), knowing(&["whsec_new", secret]), knowing(&["whsec_new"]));
    let cases = fixture["cases"].as_array().unwrap();
    assert!(cases.iter().any(|case| case["valid"] == true) && cases.iter().any(|case| case["valid"] == false));
    for case in cases {
        let now = DateTime::from_timestamp(case["now"].as_i64().unwrap(), 0).unwrap();
        let (header, body) = (case["header"].as_str().unwrap(), case["body"].as_str().unwrap().as_bytes());
        let valid = case["valid"].as_bool().unwrap();
        assert_eq!(current.vouches(header, body, now), valid, "{}", case["name"]);
        assert_eq!(rotated.vouches(header, body, now), valid, "{}", case["name"]);
        assert!(!stranger.vouches(header, body, now), "{}", case["name"]);
    }
}
