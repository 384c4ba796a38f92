//! Memory of the server while many slow streams run.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use crate::caller::{self, Answer, Caller, find};
use crate::figures::{self, Samples};
use crate::process::resident_mib;
use crate::upstream::{self, Pace};
use crate::{Failure, Options};

/// All streams at once, one user each; memory is sampled from the moment the last one has begun.
pub(crate) async fn measure(options: &Options) -> Result<(), Failure> {
    let server = options.address("server")?;
    let pid = u32::try_from(options.number("pid", 0)?)?;
    let streams = options.number("streams", 500)? as usize;
    let seconds = options.number("seconds", 10)?;
    // Streams outlive the window by what opening all of them may take.
    let events = u32::try_from((seconds + 10) * 2)?;
    upstream::start(options.address("upstream")?, Pace::slow(Duration::from_millis(500), events)).await?;
    let tokens = options.tokens()?;
    if tokens.len() < streams {
        return Err("there must be a user for every stream".into());
    }
    let before = resident_mib(pid)?;

    let (begun, ended) = (Rc::new(Cell::new(0_usize)), Rc::new(Cell::new(0_usize)));
    let mut samples = Vec::new();
    let local = LocalSet::new();
    let calls: Vec<_> = tokens[..streams]
        .iter()
        .map(|token| {
            let request = caller::completion(server, caller::PATH, token, true);
            let (begun, ended) = (Rc::clone(&begun), Rc::clone(&ended));
            local.spawn_local(async move {
                let mut caller = Caller::connect(server).await?;
                let answer = caller.call(&request, || begun.set(begun.get() + 1)).await;
                ended.set(ended.get() + 1);
                let answer = answer.and_then(Answer::succeeded)?;
                find(&answer.body, b"data: [DONE]").map(|_| ()).ok_or_else(|| Failure::from("a stream broke off"))
            })
        })
        .collect();
    let watched = local
        .run_until(async {
            let patience = Instant::now() + Duration::from_secs(10);
            while begun.get() < streams {
                if Instant::now() > patience || ended.get() > 0 {
                    return Err(Failure::from(format!("only {} streams have begun", begun.get())));
                }
                sleep(Duration::from_millis(20)).await;
            }
            let until = Instant::now() + Duration::from_secs(seconds);
            while Instant::now() < until && ended.get() == 0 {
                samples.push(resident_mib(pid)?);
                sleep(Duration::from_millis(100)).await;
            }
            for call in calls {
                call.await??;
            }
            Ok(())
        })
        .await;
    watched?;

    let samples = Samples::new(samples);
    figures::print("memory before streams", before, "MiB");
    figures::print("memory with streams p50", samples.median(), "MiB");
    figures::print("memory with streams peak", samples.largest(), "MiB");
    figures::print("streams at once", streams as f64, "complete");
    Ok(())
}
