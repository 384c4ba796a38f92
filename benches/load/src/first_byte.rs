//! What the gateway adds to the first byte of a stream.

use std::time::Instant;

use crate::caller::{self, Caller};
use crate::figures::{self, Samples};
use crate::upstream::{self, Pace};
use crate::{Failure, Options};

/// One call at a time, in turn straight to the upstream and through the server, each over its warm connection.
pub(crate) async fn measure(options: &Options) -> Result<(), Failure> {
    let (server, upstream) = (options.address("server")?, options.address("upstream")?);
    upstream::start(upstream, Pace::fast()).await?;
    let calls = options.number("calls", 2_000)? as usize;
    let tokens = options.tokens()?;
    // Few users, so that this is the path of somebody who talks, and yet within 60 calls a minute each.
    let users = tokens.len().min(calls / 50 + 1);
    let direct_request = caller::completion(upstream, "/v1/chat/completions", "none", true);
    let requests: Vec<_> =
        tokens[..users].iter().map(|token| caller::completion(server, caller::PATH, token, true)).collect();

    let (mut straight, mut through) = (Caller::connect(upstream).await?, Caller::connect(server).await?);
    let (mut direct, mut gateway) = (Vec::with_capacity(calls), Vec::with_capacity(calls));
    for number in 0..calls {
        let request = &requests[number % users];
        let times = (first_byte(&mut straight, &direct_request).await?, first_byte(&mut through, request).await?);
        // Everybody's first call finds nothing in any cache.
        if number >= users {
            direct.push(times.0);
            gateway.push(times.1);
        }
    }

    let (direct, gateway) = (Samples::new(direct), Samples::new(gateway));
    figures::print("first byte direct p50", direct.median(), "ms");
    figures::print("first byte p50", gateway.median(), "ms");
    figures::print("first byte p99", gateway.quantile(0.99), "ms");
    figures::print("first byte added p50", gateway.median() - direct.median(), "ms");
    Ok(())
}

/// From the request to the first byte of the body, ms.
async fn first_byte(caller: &mut Caller, request: &[u8]) -> Result<f64, Failure> {
    let (asked, mut first) = (Instant::now(), None);
    caller.call(request, || first = Some(asked.elapsed())).await?.succeeded()?;
    Ok(first.ok_or("there was no body")?.as_secs_f64() * 1e3)
}
