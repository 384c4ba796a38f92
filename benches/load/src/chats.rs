//! Chat sockets: memory of idle ones, delivery from one server to the other, pulls out of a long log.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use crate::caller::find;
use crate::figures::{self, Samples};
use crate::process::resident_mib;
use crate::socket::{self, Ear, Mouth};
use crate::{Failure, Options};

/// Opens sockets that say nothing and weighs the server.
pub(crate) async fn idle(options: &Options) -> Result<(), Failure> {
    let (server, tokens) = (options.address("server")?, options.tokens()?);
    let (pid, count) = (u32::try_from(options.number("pid", 0)?)?, options.number("sockets", 10_000)? as usize);
    // What the first socket of a process needs is not the others' weight.
    let first = socket::open(server, &tokens[0]).await?;
    sleep(Duration::from_secs(1)).await;
    let before = resident_mib(pid)?;
    let mut open = vec![first];
    for n in 0..count {
        open.push(socket::open(server, &tokens[n % tokens.len()]).await?);
    }
    sleep(Duration::from_secs(3)).await;
    let after = resident_mib(pid)?;
    figures::print("memory before sockets", before, "MiB");
    figures::print("memory with sockets", after, "MiB");
    figures::print("idle sockets", count as f64, "in all");
    figures::print("memory per idle socket", (after - before) * 1_024.0 / count as f64, "KiB");
    Ok(())
}

const PAIRS: usize = 100;

/// Devices on one server push at a steady rate, another device of each user listens on the other.
pub(crate) async fn fan_out(options: &Options) -> Result<(), Failure> {
    let (here, there) = (options.address("server")?, options.address("other")?);
    let (tokens, seconds) = (options.tokens()?, options.number("seconds", 20)?);
    let (rate, batch) = (options.number("rate", 1_000)?, options.number("batch", 1)?);
    let pace = Duration::from_secs_f64(PAIRS as f64 * batch as f64 / rate as f64);
    let rounds = (Duration::from_secs(seconds).as_secs_f64() / pace.as_secs_f64()) as u64;
    let (delays, answered) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(0_u64)));
    let local = LocalSet::new();
    let mut running = Vec::new();
    local
        .run_until(async {
            let begin = Instant::now() + Duration::from_secs(3);
            for (n, token) in tokens.iter().take(PAIRS).enumerate() {
                let (mouth, mut own) = socket::open(here, token).await?;
                let (quiet, ear) = socket::open(there, token).await?;
                let sent = Rc::new(RefCell::new(VecDeque::new()));
                let counted = Rc::clone(&answered);
                let answers = async move {
                    for _ in 0..rounds {
                        let answer = own.hear().await?;
                        find(&answer, b"send-messages-receive-i")
                            .ok_or_else(|| String::from_utf8_lossy(&answer).into_owned())?;
                        counted.set(counted.get() + 1);
                    }
                    Ok::<_, Failure>(())
                };
                let at = begin + pace.mul_f64(n as f64 / PAIRS as f64);
                let talking = talk(mouth, n, at, pace, (rounds, batch), Rc::clone(&sent));
                let hearing = listen(ear, rounds * batch, sent, Rc::clone(&delays));
                running.push(tokio::task::spawn_local(async move {
                    // Both ends stay open until everything was heard: a push may arrive before its answer.
                    let (_mouth, (), ()) = tokio::try_join!(talking, hearing, answers)?;
                    drop(quiet);
                    Ok::<_, Failure>(())
                }));
            }
            let patience = Duration::from_secs(seconds * 2 + 20);
            timeout(patience, async {
                for task in running {
                    task.await??;
                }
                Ok::<_, Failure>(())
            })
            .await
            .map_err(|_| "not everything was delivered in time")?
        })
        .await?;
    let delays = Samples::new(delays.take());
    figures::print("messages pushed", (answered.get() * batch) as f64, "in all");
    figures::print("messages a second", rate as f64, "offered");
    figures::print("delivery to the other server p50", delays.median(), "ms");
    figures::print("delivery to the other server p99", delays.quantile(0.99), "ms");
    figures::print("delivery to the other server, slowest", delays.largest(), "ms");
    Ok(())
}

async fn talk(
    mut mouth: Mouth,
    pair: usize,
    begin: Instant,
    pace: Duration,
    (rounds, batch): (u64, u64),
    sent: Rc<RefCell<VecDeque<Instant>>>,
) -> Result<Mouth, Failure> {
    let mut ticks = interval_at(begin, pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let run = std::process::id();
    for round in 0..rounds {
        // Late is late: what waits for its turn counts from when it was due.
        let due = ticks.tick().await;
        let messages: Vec<_> = (0..batch)
            .map(|n| format!(r#"{{"id":"{run}-{round}-{n}","role":"user","content":"How was your day? Tell me."}}"#))
            .collect();
        let content = format!(r#"{{"chatId":"load-{}","messages":[{}]}}"#, pair + 1, messages.join(","));
        sent.borrow_mut().extend((0..batch).map(|_| due));
        mouth.say(&call("chat:send-messages", &content)).await?;
    }
    Ok(mouth)
}

async fn listen(
    mut ear: Ear,
    mut left: u64,
    sent: Rc<RefCell<VecDeque<Instant>>>,
    delays: Rc<RefCell<Vec<f64>>>,
) -> Result<(), Failure> {
    while left > 0 {
        let frame = ear.hear().await?;
        find(&frame, b"chat:new-messages").ok_or("an unexpected frame")?;
        // What is read from the log after a publication failed may be several pushes in one.
        let count = number(&frame, b"\"toSeq\":")? + 1 - number(&frame, b"\"fromSeq\":")?;
        for _ in 0..count {
            let due = sent.borrow_mut().pop_front().ok_or("a message nobody sent")?;
            delays.borrow_mut().push(due.elapsed().as_secs_f64() * 1_000.0);
        }
        left = left.saturating_sub(count);
    }
    Ok(())
}

fn number(frame: &[u8], name: &[u8]) -> Result<u64, Failure> {
    let start = find(frame, name).ok_or("a number is missing")? + name.len();
    let digits: String =
        frame[start..].iter().take_while(|byte| byte.is_ascii_digit()).map(|byte| *byte as char).collect();
    Ok(digits.parse()?)
}

fn call(name: &str, content: &str) -> String {
    format!(r#"{{"type":"{name}-send","payload":{{"body":{{"invokeId":"i","content":{content}}}}}}}"#)
}

/// One socket pulls hundreds from all over the logs it belongs to, one after another.
pub(crate) async fn pull(options: &Options) -> Result<(), Failure> {
    let (server, tokens) = (options.address("server")?, options.tokens()?);
    let (pulls, chats, length) =
        (options.number("pulls", 2_000)?, options.number("chats", 50)?, options.number("length", 10_000)?);
    let (mut mouth, mut ear) = socket::open(server, &tokens[0]).await?;
    let mut samples = Vec::new();
    for n in 0..pulls {
        // Far from where the last one was.
        let (chat, after) = (n * 31 % chats + 1, n * 7_919 % (length - 100));
        let begun = Instant::now();
        mouth.say(&call("chat:pull-messages", &format!(r#"{{"chatId":"long-{chat}","afterSeq":{after}}}"#))).await?;
        let page = ear.hear().await?;
        samples.push(begun.elapsed().as_secs_f64() * 1_000.0);
        let seq = format!(r#""seq":{},"hasMore":true"#, after + 100);
        find(&page, seq.as_bytes()).ok_or_else(|| String::from_utf8_lossy(&page).into_owned())?;
    }
    let samples = Samples::new(samples);
    figures::print("pull of 100 p50", samples.median(), "ms");
    figures::print("pull of 100 p99", samples.quantile(0.99), "ms");
    Ok(())
}
