//! From the start of the process to its first 200 at `/readyz`, and its memory when nobody calls.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::caller::Caller;
use crate::figures::{self, Samples};
use crate::process::resident_mib;
use crate::{Failure, Options};

const PATIENCE: Duration = Duration::from_secs(30);
/// Until everything a start sets going has come to rest.
const REST: Duration = Duration::from_secs(2);

pub(crate) async fn measure(options: &Options) -> Result<(), Failure> {
    let [program, arguments @ ..] = options.command.as_slice() else { return Err("there is no command".into()) };
    let (mut times, mut idle) = (Vec::new(), Vec::new());
    for _ in 0..options.number("runs", 5)? {
        if let Some(directory) = options.named.get("fresh")
            && Path::new(directory).exists()
        {
            std::fs::remove_dir_all(directory)?;
        }
        let said = File::options().create(true).append(true).open(options.text("log")?)?;
        let begun = Instant::now();
        let mut process = Command::new(program).args(arguments).stdout(said).kill_on_drop(true).spawn()?;
        let pid = process.id().ok_or("the process ended at once")?;
        until_ready(options, &mut process).await?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        sleep(REST).await;
        idle.push(resident_mib(pid)?);
        // SIGTERM, so that the next run finds an orderly end.
        Command::new("kill").arg(pid.to_string()).status().await?;
        process.wait().await?;
    }
    let (times, idle) = (Samples::new(times), Samples::new(idle));
    figures::print("ready p50", times.median(), "ms");
    figures::print("ready slowest", times.largest(), "ms");
    figures::print("memory idle p50", idle.median(), "MiB");
    Ok(())
}

async fn until_ready(options: &Options, process: &mut Child) -> Result<(), Failure> {
    let server = options.address("server")?;
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {server}\r\n\r\n");
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Some(status) = process.try_wait()? {
            return Err(format!("the server ended with {status}").into());
        }
        if let Ok(mut caller) = Caller::connect(server).await
            && let Ok(answer) = caller.call(request.as_bytes(), || {}).await
            && answer.status == 200
        {
            return Ok(());
        }
        sleep(Duration::from_millis(1)).await;
    }
    Err("the server was not ready in time".into())
}
