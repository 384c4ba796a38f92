//! Billed completions a second, answered whole.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::caller::{self, Caller};
use crate::figures::{self, Samples};
use crate::upstream::{self, Pace};
use crate::{Failure, Options};

/// Every connection calls again as soon as it is answered, each time for its next user: the server admits 60 calls a
/// minute and user.
pub(crate) async fn measure(options: &Options) -> Result<(), Failure> {
    let server = options.address("server")?;
    upstream::start(options.address("upstream")?, Pace::fast()).await?;
    let connections = options.number("connections", 64)? as usize;
    let warm_up = Duration::from_secs(options.number("warm-up", 3)?);
    let window = Duration::from_secs(options.number("seconds", 20)?);
    let tokens = options.tokens()?;

    let counted_from = Instant::now() + warm_up;
    let until = counted_from + window;
    let callers: Vec<_> = (0..connections)
        .map(|number| {
            let share = tokens.iter().skip(number).step_by(connections);
            let requests = share.map(|token| caller::completion(server, caller::PATH, token, false)).collect();
            tokio::spawn(keep_calling(server, requests, counted_from, until))
        })
        .collect();
    let (mut times, mut calls) = (Vec::new(), 0);
    for caller in callers {
        let (made, counted) = caller.await??;
        calls += made;
        times.extend(counted);
    }

    figures::print("completions", times.len() as f64 / window.as_secs_f64(), "per second");
    let times = Samples::new(times);
    figures::print("completion p50", times.median(), "ms");
    figures::print("completion p99", times.quantile(0.99), "ms");
    figures::print("calls made", f64::from(calls), "in all");
    Ok(())
}

/// How many calls were made, and the times of those that began and ended inside the window, ms.
async fn keep_calling(
    server: SocketAddr,
    requests: Vec<Vec<u8>>,
    counted_from: Instant,
    until: Instant,
) -> Result<(u32, Vec<f64>), Failure> {
    let mut caller = Caller::connect(server).await?;
    let (mut calls, mut times) = (0, Vec::with_capacity(4096));
    for request in requests.iter().cycle() {
        let begun = Instant::now();
        if begun >= until {
            break;
        }
        let answer = caller.call(request, || {}).await?;
        answer.succeeded()?;
        calls += 1;
        let ended = Instant::now();
        if begun >= counted_from && ended < until {
            times.push((ended - begun).as_secs_f64() * 1e3);
        }
    }
    Ok((calls, times))
}
