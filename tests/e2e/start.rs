//! How the binary starts, and how it declines to.

use std::fs;
use std::process::Command;

use crate::caller::{Caller, question};
use crate::server::{Mode, Server};
use crate::stores::eventually;

#[tokio::test]
async fn settings_with_three_mistakes_are_named_all_at_once() {
    let mut server = Server::install(Mode::Embedded).await;
    server.set("PORT", "three thousand");
    server.set("LLM_ROUTER_MASTER_KEY", "c2hvcnQ=");
    fs::write(server.directory().join("airi.toml"), "[http]\nprot = 3000\n").unwrap();
    let output = server.run(&["serve"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for named in ["PORT", "LLM_ROUTER_MASTER_KEY", "prot"] {
        assert!(said.contains(named), "{named} is not named in:\n{said}");
    }
    assert!(!said.contains("c2hvcnQ="), "a secret was echoed:\n{said}");
}

#[tokio::test]
async fn an_unknown_command_is_a_mistake_in_the_arguments() {
    let server = Server::install(Mode::Embedded).await;
    assert_eq!(server.run(&["serv"]).status.code(), Some(2));
    assert_eq!(server.run(&["user", "create"]).status.code(), Some(2));
    for command in ["serve", "migrate", "user", "flux", "router", "keys", "openapi", "doctor", "backup"] {
        assert_eq!(server.run(&[command, "--help"]).status.code(), Some(0), "{command}");
    }
}

#[tokio::test]
async fn secrets_are_not_made_up_for_a_database() {
    let mut server = Server::install(Mode::Services).await;
    server.set("BETTER_AUTH_SECRET", "");
    server.set("LLM_ROUTER_MASTER_KEY", "");
    let output = server.run(&["serve"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("BETTER_AUTH_SECRET") && said.contains("LLM_ROUTER_MASTER_KEY"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_one_data_directory_says_so_and_stops() {
    let mut server = Server::install(Mode::Embedded).await;
    server.start().await;
    let data = server.data();
    server.set("PORT", &crate::stores::free_port().to_string());
    let output = server.run(&["serve"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code().is_some_and(|code| code != 0), "{said}");
    assert!(said.contains(data.to_str().unwrap()), "{said}");
    assert!(said.contains("another") || said.contains("in use"), "{said}");
    assert!(server.stop().await.success());
    assert!(server.run(&["router", "show"]).status.success(), "the directory is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_run_prints_a_line_that_streams_a_paid_completion() {
    let mut server = Server::install(Mode::Embedded).await;
    server.start().await;
    let curl = eventually("the curl line", async || {
        let log = server.log();
        let start = log.find("curl ")?;
        // The line may be broken with backslashes.
        let mut lines = log[start..].lines();
        let mut line = lines.next()?.to_owned();
        while line.trim_end().ends_with('\\') {
            line = format!("{} {}", line.trim_end().trim_end_matches('\\'), lines.next()?);
        }
        Some(line)
    })
    .await;
    let output = Command::new("sh").args(["-c", &curl]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("data: {") && said.contains("data: [DONE]"), "{curl}\n{said}");
    assert!(server.log().contains(&server.url()), "the address is not printed");
    assert!(server.log().contains("data"), "where the data lies is not printed");
    let books = server.books().await;
    let charges = eventually("the charge", async || Some(books.charges().await).filter(|all| !all.is_empty())).await;
    assert_eq!(charges.len(), 1);
    assert!(charges[0].amount >= 1);

    // The token is told once.
    let token = curl.split("Bearer ").nth(1).and_then(|rest| rest.split('\'').next()).unwrap().to_owned();
    assert!(server.stop().await.success());
    let told = server.log().len();
    server.start().await;
    eventually("the ready line", async || server.log()[told..].contains("ready ").then_some(())).await;
    let log = server.log();
    assert!(!log[told..].contains(&token), "the token is told again");
    assert_eq!(log[told..].matches("shown once").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_made_up_for_the_embedded_mode_are_private_and_stay() {
    let mut server = Server::install(Mode::Embedded).await;
    let caller = server.user("caller", 100);
    server.start().await;
    assert_eq!(caller.complete(&question(false)).await.status, 200);
    assert!(server.stop().await.success());
    #[cfg(unix)]
    for entry in fs::read_dir(server.data()).unwrap() {
        use std::os::unix::fs::PermissionsExt;
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{} is readable by others: {mode:o}", entry.path().display());
    }
    server.start().await;
    let again = Caller::new(server.url(), caller.id.clone(), caller.token.clone());
    assert_eq!(again.complete(&question(false)).await.status, 200, "the session outlives a restart");
}
