//! Every fact is told, in the words of the contract and with nothing private.

mod lines;
mod metrics;
mod tour;

use super::*;

#[test]
fn an_unreadable_filter_is_refused() {
    let settings = TelemetrySettings { log_level: "a=b=c".to_owned(), ..TelemetrySettings::default() };
    let telemetry = Telemetry::new(&settings).unwrap();
    let lines = lines(LogFormat::Json, false, io::sink);
    assert!(matches!(telemetry.layers(lines), Err(InvalidTelemetry::Filter)));
}

#[test]
fn an_instance_without_a_name_gets_one_of_its_own() {
    let ids = [random_uuid(), random_uuid()];
    assert_ne!(ids[0], ids[1]);
    assert!(ids.iter().all(|id| id.len() == 36 && id.as_bytes()[14] == b'4'), "{ids:?}");
}

fn telemetry() -> Telemetry {
    let settings = TelemetrySettings { instance_id: Some("one".to_owned()), ..TelemetrySettings::default() };
    Telemetry::new(&settings).unwrap()
}
