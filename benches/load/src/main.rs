//! A fake OpenAI upstream and closed-loop callers in one thread: what `scripts/bench` measures with.
//!
//! It shares the machine with what it measures, so it is lean: one thread, HTTP/1.1 by hand, requests built once.

mod caller;
mod chats;
mod completions;
mod figures;
mod first_byte;
mod handshake;
mod process;
mod ready;
mod socket;
mod speech;
mod streams;
mod upstream;

use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

/// Anything that ends a run.
type Failure = Box<dyn Error + Send + Sync>;

const USAGE: &str = "usage: airi-load MODE [--NAME VALUE]… [-- COMMAND…]

  upstream     --upstream ADDR                                       only the fake upstream, for trying things by hand
  completions  --server ADDR --upstream ADDR --tokens FILE [--connections 64] [--seconds 20] [--warm-up 3]
  first-byte   --server ADDR --upstream ADDR --tokens FILE [--calls 2000]
  streams      --server ADDR --upstream ADDR --tokens FILE --pid PID [--streams 500] [--seconds 10]
  sockets      --server ADDR --tokens FILE --pid PID [--sockets 10000]
  fan-out      --server ADDR --other ADDR --tokens FILE [--rate 1000] [--batch 1] [--seconds 20]
  pull         --server ADDR --tokens FILE [--pulls 2000] [--chats 50] [--length 10000]
  first-audio  --server ADDR --upstream ADDR --tokens FILE [--rounds 20]
  speech-sockets --server ADDR --upstream ADDR --tokens FILE --pid PID [--sockets 200] [--seconds 10]
  ready        --server ADDR --log FILE [--runs 5] [--fresh DIR] -- COMMAND…    COMMAND is started anew for every run

One figure a line: name, tabulator, value, tabulator, unit.";

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(run()));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("airi-load: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Failure> {
    let options = Options::read(std::env::args().skip(1))?;
    match options.mode.as_str() {
        "upstream" => {
            upstream::start(options.address("upstream")?, upstream::Pace::slow(Duration::from_millis(200), 10)).await?;
            std::future::pending().await
        }
        "completions" => completions::measure(&options).await,
        "first-byte" => first_byte::measure(&options).await,
        "streams" => streams::measure(&options).await,
        "sockets" => chats::idle(&options).await,
        "fan-out" => chats::fan_out(&options).await,
        "pull" => chats::pull(&options).await,
        "first-audio" => speech::first_audio(&options).await,
        "speech-sockets" => speech::sockets(&options).await,
        "ready" => ready::measure(&options).await,
        _ => Err(USAGE.into()),
    }
}

/// The command line.
struct Options {
    mode: String,
    named: HashMap<String, String>,
    command: Vec<String>,
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = Self { mode: words.next().unwrap_or_default(), named: HashMap::new(), command: Vec::new() };
        while let Some(word) = words.next() {
            if word == "--" {
                options.command = words.collect();
                break;
            }
            let name = word.strip_prefix("--").ok_or(USAGE)?;
            options.named.insert(name.to_owned(), words.next().ok_or(USAGE)?);
        }
        Ok(options)
    }

    fn text(&self, name: &str) -> Result<&str, Failure> {
        self.named.get(name).map(String::as_str).ok_or_else(|| format!("--{name} is missing\n{USAGE}").into())
    }

    fn number(&self, name: &str, usual: u64) -> Result<u64, Failure> {
        let Some(text) = self.named.get(name) else { return Ok(usual) };
        text.parse().map_err(|_| format!("--{name}: not a number").into())
    }

    fn address(&self, name: &str) -> Result<SocketAddr, Failure> {
        self.text(name)?.parse().map_err(|_| format!("--{name}: not an address such as 127.0.0.1:3000").into())
    }

    /// Bearer tokens, one a line.
    fn tokens(&self) -> Result<Vec<String>, Failure> {
        let text = std::fs::read_to_string(self.text("tokens")?)?;
        let tokens: Vec<String> = text.lines().filter(|line| !line.is_empty()).map(ToOwned::to_owned).collect();
        if tokens.is_empty() { Err("there are no tokens".into()) } else { Ok(tokens) }
    }
}
