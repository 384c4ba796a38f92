//! For each rule, a source that breaks it: a rule that cannot fail proves nothing.

use crate::crates::{self, Manifest};
use crate::reader::Source;
use crate::{imports, naming, wording};

const MANIFEST: &str = "[package]\nname = \"x\"\n[dependencies]\ntokio = { version = \"1\" }\nsqlx = \"0.9\"\n\
    serde.workspace = true\nfutures = \"0.3\"\nmockall = { version = \"0\", optional = true }\nredis = \"1\"\n\
    async-trait = \"0.1\"\n[dependencies.bb8-redis]\nversion = \"1\"\n[dev-dependencies]\nproptest = \"1\"\n";

fn source(path: &str, text: &str) -> Vec<Source> {
    vec![Source::read(path, text)]
}

/// The lines of the findings about one file.
fn lines(findings: &[String]) -> Vec<usize> {
    let numbers = findings.iter().map(|finding| finding.split(':').nth(1).unwrap_or_default());
    numbers.map(|rest| rest.split(' ').next().unwrap_or_default().parse().unwrap()).collect()
}

#[test]
fn the_reader_does_not_take_a_capture_for_an_import() {
    let read = Source::read("src/core/a.rs", "fn f() -> impl Send + use<> {\n    std::mem::drop(1)\n}\nuse b::C;\n");
    let found: Vec<String> = read.names.iter().map(|name| format!("{} {}", name.line, name.text())).collect();
    assert_eq!(found, ["2 std::mem::drop", "4 b::C"]);
}

#[test]
fn the_reader_expands_braces_and_resolves_relative_paths() {
    let read = Source::read(
        "src/core/llm/plan.rs",
        "use crate::{ports::{llm::*, Fault as F}, core::model::{self, ids::UserId}};\nuse super::walk::Walk;\n\
         mod inner { use super::super::usage::Usage; }\nfn f<'a>(x: &'a str) -> std::io::Result<()> { self::g::h() }\n",
    );
    let found: Vec<String> = read.names.iter().map(|name| format!("{} {}", name.line, name.text())).collect();
    assert_eq!(
        found,
        [
            "1 crate::ports::llm::*",
            "1 crate::ports::Fault",
            "1 crate::core::model",
            "1 crate::core::model::ids::UserId",
            "2 crate::core::llm::walk::Walk",
            "3 crate::core::llm::usage::Usage",
            "4 std::io::Result",
            "4 crate::core::llm::plan::g::h",
        ]
    );
}

#[test]
fn the_reader_is_not_fooled_by_comments_strings_or_trailing_tests() {
    let read = Source::read(
        "src/core/a.rs",
        "//! crate::adapters::a\n/* crate::adapters::b /* nested */ crate::adapters::c */\n\
         const S: &str = \"crate::adapters::d \\\" // crate::adapters::e\";\nconst R: &str = r#\"crate::adapters::\"f\"#;\n\
         const C: char = '\"'; const Q: char = '\\''; type T<'a> = &'a crate::core::G;\nconst B: &[u8] = br\"x::y\";\n\
         #[cfg(test)]\n#[expect(clippy::unwrap_used, reason = \"}\")]\nmod tests {\n use crate::adapters::h;\n}\n",
    );
    let found: Vec<String> = read.names.iter().map(|name| format!("{} {}", name.line, name.text())).collect();
    assert_eq!(found, ["5 crate::core::G"]);
    assert_eq!(read.lines, 6);
    assert_eq!(read.strings.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3, 4, 6]);
    assert_eq!(read.comments.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_test_module_in_the_middle_is_read() {
    let middle = "#[cfg(test)]\nmod tests { use crate::adapters::x; }\nfn f() {}\n";
    assert_eq!(lines(&imports::outward(&source("src/core/a.rs", middle))), [2]);
}

#[test]
fn every_room_is_caught_looking_outward() {
    let planted = [
        ("src/core/model/a.rs", "crate::ports::Fault"),
        ("src/core/model/a.rs", "crate::core::error::Error"),
        ("src/core/model/a.rs", "super::super::ledger::Ledger"),
        ("src/ports/a.rs", "crate::core::ledger::Ledger"),
        ("src/core/a.rs", "crate::adapters::llm::X"),
        ("src/core/a.rs", "crate::http::X"),
        ("src/core/a/b.rs", "super::super::super::adapters::X"),
        ("src/adapters/redis/a.rs", "crate::adapters::postgres::X"),
        ("src/adapters/redis/a.rs", "super::super::memory::X"),
        ("src/adapters/llm.rs", "crate::adapters::sandbox::X"),
        ("src/adapters/redis/mod.rs", "crate::core::error::Error"),
        ("src/adapters/redis/mod.rs", "crate::http::X"),
        ("src/http/a.rs", "crate::ports::ledger::LedgerRepo"),
        ("src/http/a.rs", "crate::adapters::llm::X"),
        ("src/http/a.rs", "crate::compose::ports"),
        ("src/settings.rs", "crate::ports::Ports"),
        ("src/settings.rs", "crate::compose::ports"),
        ("src/main.rs", "airi_server::adapters::llm::X"),
        ("src/cli/user.rs", "airi_server::adapters::crypto::X"),
        ("src/lib.rs", "crate::adapters::llm::X"),
        ("src/elsewhere.rs", "crate::adapters::llm::X"),
    ];
    for (path, name) in planted {
        assert_eq!(lines(&imports::outward(&source(path, &format!("\nuse {name};\n")))), [2], "use {name} in {path}");
        let inline = format!("fn f() {{ let x: {name}; }}\n");
        assert_eq!(lines(&imports::outward(&source(path, &inline))), [1], "{name} in {path}");
    }
    let inward = [
        ("src/core/model/a.rs", "super::ids::UserId"),
        ("src/ports/a.rs", "crate::core::model::ids::UserId"),
        ("src/core/a.rs", "crate::ports::Ports"),
        ("src/adapters/redis/a.rs", "super::Pool"),
        ("src/adapters/mod.rs", "crate::adapters::redis::Pool"),
        ("src/adapters/redis/a.rs", "crate::ports::Fault"),
        ("src/http/a.rs", "crate::core::model::ids::UserId"),
        ("src/settings.rs", "crate::adapters::redis::RedisSettings"),
        ("src/compose.rs", "crate::adapters::redis::RedisSettings"),
        ("src/main.rs", "airi_server::compose::ports"),
    ];
    for (path, name) in inward {
        assert_eq!(imports::outward(&source(path, &format!("use {name};\n"))), [""; 0], "{name} in {path}");
    }
}

#[test]
fn a_crate_off_the_list_is_caught_in_the_pure_rooms() {
    let manifest = Manifest::read(MANIFEST);
    assert_eq!(manifest.names().collect::<Vec<_>>()[5..], ["redis", "async_trait", "bb8_redis"]);
    let planted = [
        ("src/core/a.rs", "use tokio::sync::Mutex;"),
        ("src/core/a.rs", "#[tokio::test] fn f() {}"),
        ("src/core/a.rs", "fn f() { tokio::spawn(g()); }"),
        ("src/core/a.rs", "use bb8_redis::Pool;"),
        ("src/core/a.rs", "use {serde::Serialize, sqlx::Row};"),
        ("src/core/model/a.rs", "use futures::Stream;"),
        ("src/core/model/a.rs", "use async_trait::async_trait;"),
        ("src/ports/a.rs", "use mockall::mock;"),
        ("src/core/a.rs", "#[cfg_attr(test, mockall::automock)] trait T {}"),
    ];
    for (path, text) in planted {
        assert_eq!(lines(&crates::impure(&source(path, text), &manifest)), [1], "{text} in {path}");
    }
    let pure = [
        ("src/core/a.rs", "use futures::Stream; use serde::Serialize;"),
        (
            "src/ports/a.rs",
            "#[cfg_attr(any(test, feature = \"mocks\"), mockall::automock)]\n#[async_trait]\ntrait T {}",
        ),
        ("src/core/a.rs", "use super::redis; fn f() { redis::g() }"),
        ("src/adapters/a.rs", "use tokio::sync::Mutex;"),
    ];
    for (path, text) in pure {
        assert_eq!(crates::impure(&source(path, text), &manifest), [""; 0], "{text} in {path}");
    }
}

#[test]
fn a_driver_is_caught_at_the_doors() {
    let manifest = Manifest::read(MANIFEST);
    let findings =
        crates::beyond_the_doors(&source("src/http/a.rs", "use tokio::time;\nuse redis::Client;"), &manifest);
    assert_eq!(lines(&findings), [2]);
}

#[test]
fn everything_ambient_is_caught_in_the_pure_rooms() {
    let planted = [
        "fn f() { chrono::Utc::now(); }",
        "fn f() { Utc::now(); }",
        "fn f() { Instant::now(); }",
        "use std::time::SystemTime;",
        "use std::time::{Duration, Instant};",
        "use chrono::Local;",
        "fn f() { std::env::var(\"X\"); }",
        "use std::fs;",
        "use std::io::Read;",
        "use std::{sync::Arc, net::TcpStream};",
        "use std::thread;",
        "use std::process::exit;",
        "use std::collections::hash_map::RandomState;",
        "fn f() { println!(\"x\"); }",
        "fn f() { eprint!(\"x\"); }",
        "fn f() { dbg!(x); }",
        "thread_local! { static X: u8 = 1; }",
    ];
    for text in planted {
        for path in ["src/core/a.rs", "src/core/model/a.rs", "src/ports/a.rs"] {
            assert_eq!(lines(&crates::ambient(&source(path, text))), [1], "{text} in {path}");
        }
        assert_eq!(crates::ambient(&source("src/adapters/a.rs", text)), [""; 0], "{text}");
    }
    let innocent = "use std::net::{IpAddr, Ipv4Addr, SocketAddr};\nuse std::time::Duration;\nfn f(clock: &dyn Clock) { clock.now(); write!(f, \"println!\"); }";
    assert_eq!(crates::ambient(&source("src/core/a.rs", innocent)), [""; 0]);
}

#[test]
fn a_vocabulary_that_waits_is_caught() {
    assert_eq!(lines(&crates::waiting_vocabulary(&source("src/core/model/a.rs", "\nasync fn f() {}"))), [2]);
    assert_eq!(lines(&crates::waiting_vocabulary(&source("src/core/model/a.rs", "fn f() { g().await }"))), [1]);
    assert_eq!(crates::waiting_vocabulary(&source("src/core/a.rs", "async fn f() {}")), [""; 0]);
}

#[test]
fn a_crate_away_from_home_is_caught() {
    let planted = [
        ("src/core/a.rs", "#[derive(poem_openapi::Object)] struct S;"),
        ("src/adapters/a.rs", "use poem_openapi::Object;"),
        ("src/adapters/redis/a.rs", "use sqlx::Row;"),
        ("src/compose.rs", "use sqlx::PgPool;"),
        ("src/http/a.rs", "use opentelemetry::KeyValue;"),
    ];
    for (path, text) in planted {
        assert_eq!(lines(&crates::away_from_home(&source(path, text))), [1], "{text} in {path}");
    }
    assert_eq!(crates::away_from_home(&source("src/adapters/sqlite/a.rs", "use sqlx::Row;")), [""; 0]);
}

#[test]
fn the_four_hundred_and_first_line_is_caught() {
    let long = "fn f() {}\n".repeat(401);
    assert_eq!(naming::too_long(&source("src/a.rs", &long)).len(), 1);
    let tested = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", "fn f() {}\n".repeat(400), "fn g() {}\n".repeat(99));
    assert_eq!(naming::too_long(&source("src/a.rs", &tested)), [""; 0]);
}

#[test]
fn an_empty_name_is_caught() {
    let planted = ["src/core/utils.rs", "src/helpers/mod.rs", "tests/common/mod.rs", "src/http/types.rs"];
    assert_eq!(naming::empty_names(planted.into_iter()).len(), planted.len());
    assert_eq!(naming::empty_names(["src/core/model/baseline.rs", "tests/support/mod.rs"].into_iter()), [""; 0]);
}

#[test]
fn an_unproven_method_is_caught() {
    let port =
        "pub trait Repo: Send {\n async fn find(&self);\n async fn debit(&self);\n}\npub trait Clock { fn now(); }\n";
    let ports = source("src/ports/a.rs", port);
    let suite = source("tests/contract/a.rs", "async fn case(repo: &dyn Repo) { repo.find().await; debit(1); }");
    assert_eq!(naming::unproven_methods(&ports, &suite), ["no contract suite calls Repo::debit"]);
    let told = source(
        "tests/contract/c.rs",
        "//! `Repo`: kept.\nasync fn case(world: &World) { world.repo.find(); world.repo.debit(); }",
    );
    assert_eq!(naming::unproven_methods(&ports, &told), [""; 0]);
    let stranger = source("tests/contract/b.rs", "async fn case(repo: &dyn Other) { repo.find(); repo.debit(); }");
    assert_eq!(naming::unproven_methods(&ports, &stranger).len(), 2);
}

#[test]
fn a_test_module_that_ships_is_caught() {
    let last = "fn f() {}\n#[cfg(test)]\nmod tests;\n";
    assert_eq!(naming::shipped_tests(&source("src/a.rs", last)), [""; 0]);
    assert_eq!(lines(&naming::shipped_tests(&source("src/a.rs", "fn f() {}\nmod tests;\n"))), [2]);
    assert_eq!(lines(&naming::shipped_tests(&source("src/a.rs", &format!("{last}fn g() {{}}\n")))), [3]);
}

#[test]
fn an_ownerless_promise_is_caught() {
    let text = "// TODO: later\n/// `FIXME` this\n// TODO(): nobody\n// TODO(ann): hers\n// todo lists are fine\n";
    assert_eq!(lines(&wording::ownerless_promises(&source("src/a.rs", text))), [1, 2, 3]);
}

#[test]
fn an_unlisted_column_is_caught() {
    let planted = [
        "fn f() { query(\"SELECT * FROM user_flux\") }",
        "fn f() { query(\"select  *\nfrom x\") }",
        "fn f() { query(r#\"UPDATE x SET a = 1 RETURNING *\"#) }",
        "fn f() { query(\"SELECT u.*, s.id FROM u\") }",
    ];
    for text in planted {
        assert_eq!(lines(&wording::unlisted_columns(&source("src/adapters/sqlite/a.rs", text), &[])), [1], "{text}");
    }
    let migration = [("migrations/sqlite/1.sql".to_owned(), "INSERT INTO a SELECT * FROM b;".to_owned())];
    assert_eq!(wording::unlisted_columns(&[], &migration).len(), 1);
    assert_eq!(
        wording::unlisted_columns(&source("src/a.rs", "const Q: &str = \"SELECT count(*) FROM x\";"), &[]),
        [""; 0]
    );
}
