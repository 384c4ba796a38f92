//! The gates, in their order, and what `auto` means.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::doubles::{World, call, whole};
use crate::core::error::{Code, Error};
use crate::core::llm::{Completion, OnUnreadableKey, RoutingPolicy};
use crate::core::model::fact::Fact;

const SANDBOX: RoutingPolicy = RoutingPolicy { on_unreadable_key: OnUnreadableKey::FailClosed, sandbox: true };

fn refused(world: &std::sync::Arc<World>, body: &str) -> Error {
    world.complete(body).unwrap_err()
}

#[test]
fn an_underfunded_caller_hears_about_money_before_the_body_is_read() {
    let world = World::simple(vec![]);
    world.balance.store(4, Ordering::SeqCst);
    assert_eq!(refused(&world, "not json").code, Code::InsufficientFlux);
    assert!(world.facts().is_empty() && world.called().is_empty());
}

#[test]
fn bad_prices_are_refused_before_the_balance_is_read() {
    let world = World::simple(vec![]);
    world.balance.store(0, Ordering::SeqCst);
    world.set("FLUX_PER_REQUEST", "0");
    assert_eq!(refused(&world, "{}").code, Code::ConfigInvalid);
}

#[test]
fn a_copy_of_the_balance_near_the_threshold_is_not_trusted() {
    for (cached, stored, admitted) in [(Some(55), 4, false), (Some(56), 4, true), (Some(0), 5, true), (None, 5, true)] {
        let world = World::simple(vec![whole("{}")]);
        *world.cached.lock().unwrap() = cached;
        world.balance.store(stored, Ordering::SeqCst);
        assert_eq!(world.complete(r#"{"model":"m"}"#).is_ok(), admitted, "{cached:?} {stored}");
    }
}

#[test]
fn unusable_bodies_are_the_callers_fault_and_reach_no_upstream() {
    for (body, code) in [
        ("not json", Code::InvalidBody),
        ("[]", Code::InvalidBody),
        (r#"{"messages":5}"#, Code::InvalidRequest),
        (r#"{"stream":"yes"}"#, Code::InvalidRequest),
    ] {
        let world = World::simple(vec![]);
        assert_eq!(refused(&world, body).code, code, "{body}");
        assert!(world.facts().is_empty());
    }
}

#[test]
fn an_unknown_model_is_told_as_it_was_asked_with_what_there_is() {
    for (body, requested) in [
        (r#"{"model":5}"#, json!(5)),
        (r#"{"model":"nope"}"#, json!("nope")),
        (r#"{"model":"constructor"}"#, json!("constructor")),
        (r#"{"model":{"a":1}}"#, json!({"a": 1})),
    ] {
        let world = World::simple(vec![]);
        let error = refused(&world, body);
        assert_eq!((error.code, &*error.message), (Code::BadRequest, "unknown_model"));
        assert_eq!(*error.details.unwrap(), json!({"requested": requested, "available": ["m"]}));
        let row = world.row().0;
        assert_eq!((row.status, row.error, row.charged.get()), (400, Some("BAD_REQUEST"), 0));
    }
}

#[test]
fn auto_means_what_the_operator_chose() {
    let world = World::simple(vec![whole("{}")]);
    let error = refused(&world, "{}");
    assert_eq!((error.code, &*error.message), (Code::ConfigNotSet, "Service configuration is incomplete"));
    assert!(world.rows().is_empty());
    world.set("DEFAULT_CHAT_MODEL", "\"m\"");
    assert!(matches!(world.complete(r#"{"model":null}"#), Ok(Completion::Json { .. })));
    assert_eq!(world.sent(0)["model"], "m");
}

#[test]
fn without_a_routing_document_there_is_nothing_to_route_to() {
    let world = World::empty();
    let error = refused(&world, r#"{"model":"m"}"#);
    assert_eq!((error.code, &*error.message), (Code::ConfigNotSet, "LLM_ROUTER_CONFIG not set"));
    assert_eq!(world.row().0.status, 503);
}

#[test]
fn the_sandbox_answers_auto_until_a_routing_document_is_written() {
    let world = World::empty();
    world.play(vec![whole("{}"), whole("{}")]);
    let completions = world.completions(SANDBOX);
    let send = |body: &str| world.drive(completions.complete(call("r", body)), usize::MAX).unwrap();
    assert!(send("{}").is_ok());
    {
        let calls = world.calls.lock().unwrap();
        assert!(calls[0].url.starts_with("sandbox://local"));
        assert_eq!(calls[0].authorization.expose(), "");
    }
    assert_eq!(world.sent(0)["model"], "sandbox");
    assert_eq!(world.drive(completions.models(), usize::MAX).unwrap().unwrap(), ["auto", "sandbox"]);
    let unknown = send(r#"{"model":"x"}"#).unwrap_err();
    assert_eq!(unknown.details.unwrap()["available"], json!(["sandbox"]));

    world.set("LLM_ROUTER_CONFIG", r#"{"llm":{"models":{}},"tts":{"models":{}}}"#);
    assert_eq!(send("{}").unwrap_err().code, Code::ConfigNotSet);
    assert!(send(r#"{"model":"sandbox"}"#).is_ok());
}

#[test]
fn models_lists_auto_and_the_configured_ids() {
    let world = World::simple(vec![]);
    let completions = world.completions(RoutingPolicy::default());
    assert_eq!(world.drive(completions.models(), usize::MAX).unwrap().unwrap(), ["auto", "m"]);
}

#[test]
fn a_request_is_told_without_its_contents() {
    let world = World::simple(vec![whole("{}")]);
    world.complete(r#"{"model":"m","messages":[{"role":"user","content":"xyzzy"}]}"#).unwrap();
    let facts = world.facts();
    assert!(matches!(&facts[0], Fact::GenerationRequested { messages: Some(1), stream: false, .. }), "{facts:?}");
    assert!(!format!("{facts:?}").contains("xyzzy"));
    let _: Value = world.sent(0);
}
