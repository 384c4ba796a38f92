//! First audio of many calls at once, and memory while many speech sockets are open.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use crate::caller::{Caller, find};
use crate::figures::{self, Samples};
use crate::process::resident_mib;
use crate::{Failure, Options};

const AT_ONCE: usize = 50;
/// How long the fake provider takes to its first audio.
const THINKING: Duration = Duration::from_millis(200);

/// Rounds of calls, straight to the provider and through the server in turn. The calls of a round begin evenly over the
/// time a provider takes, so that all of them are under way together, as those of people are. One user a connection.
pub(crate) async fn first_audio(options: &Options) -> Result<(), Failure> {
    let (server, upstream) = (options.address("server")?, options.address("upstream")?);
    provider(upstream).await?;
    let rounds = options.number("rounds", 20)? as usize;
    let tokens = options.tokens()?;
    if tokens.len() < AT_ONCE {
        return Err("there must be a user for every call".into());
    }
    let local = LocalSet::new();
    let (direct, through) = local
        .run_until(async {
            let mut straight = callers(upstream).await?;
            let mut gateway = callers(server).await?;
            let (mut direct, mut through) = (Vec::new(), Vec::new());
            for round in 0..=rounds {
                let request = |n: usize| synthesis(upstream, "/v1", &tokens[n]);
                let times = all(&mut straight, request).await?;
                let request = |n: usize| synthesis(server, "/api/v1/audio/speech", &tokens[n]);
                let slower = all(&mut gateway, request).await?;
                // The first round opens the connections.
                if round > 0 {
                    direct.extend(times);
                    through.extend(slower);
                }
            }
            Ok::<_, Failure>((direct, through))
        })
        .await?;
    let (direct, through) = (Samples::new(direct), Samples::new(through));
    figures::print("first audio direct p50, 50 at once", direct.median(), "ms");
    figures::print("first audio direct p99, 50 at once", direct.quantile(0.99), "ms");
    figures::print("first audio p50, 50 at once", through.median(), "ms");
    figures::print("first audio p99, 50 at once", through.quantile(0.99), "ms");
    figures::print("first audio added p50", through.median() - direct.median(), "ms");
    figures::print("first audio added p99", through.quantile(0.99) - direct.quantile(0.99), "ms");
    Ok(())
}

async fn callers(address: SocketAddr) -> Result<Vec<Option<Caller>>, Failure> {
    let mut callers = Vec::new();
    for _ in 0..AT_ONCE {
        callers.push(Some(Caller::connect(address).await?));
    }
    Ok(callers)
}

/// One call on each connection; ms to the first byte of each.
async fn all(callers: &mut [Option<Caller>], request: impl Fn(usize) -> Vec<u8>) -> Result<Vec<f64>, Failure> {
    let calls: Vec<_> = callers
        .iter_mut()
        .enumerate()
        .filter_map(|(n, caller)| Some((caller.take()?, request(n))))
        .enumerate()
        .map(|(n, (mut caller, request))| {
            tokio::task::spawn_local(async move {
                tokio::time::sleep(THINKING * u32::try_from(n)? / u32::try_from(AT_ONCE)?).await;
                let (asked, mut first) = (Instant::now(), None);
                caller.call(&request, || first = Some(asked.elapsed())).await?.succeeded()?;
                let first = first.ok_or("there was no audio")?.as_secs_f64() * 1e3;
                Ok::<_, Failure>((caller, first))
            })
        })
        .collect();
    let mut times = Vec::new();
    for (slot, call) in callers.iter_mut().zip(calls) {
        let (caller, first) = call.await??;
        *slot = Some(caller);
        times.push(first);
    }
    Ok(times)
}

fn synthesis(host: SocketAddr, path: &str, token: &str) -> Vec<u8> {
    let body = r#"{"model":"voice","input":"How was your day? Tell me about it in a sentence or two."}"#;
    format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Opens sockets, begins a session on each, and weighs the server while all of them hear audio.
pub(crate) async fn sockets(options: &Options) -> Result<(), Failure> {
    let server = options.address("server")?;
    let pid = u32::try_from(options.number("pid", 0)?)?;
    let count = options.number("sockets", 200)? as usize;
    let seconds = options.number("seconds", 10)?;
    provider(options.address("upstream")?).await?;
    let tokens = options.tokens()?;
    if tokens.len() < count {
        return Err("there must be a user for every socket".into());
    }
    let before = resident_mib(pid)?;
    let mut open = Vec::new();
    for token in &tokens[..count] {
        open.push(session(server, token).await?);
    }
    let mut samples = Vec::new();
    let until = Instant::now() + Duration::from_secs(seconds);
    let local = LocalSet::new();
    local
        .run_until(async {
            let listening: Vec<_> = open
                .into_iter()
                .map(|mut socket| {
                    tokio::task::spawn_local(async move {
                        let (mut heard, mut buffer) = (0_usize, vec![0; 16 * 1024]);
                        while Instant::now() < until {
                            match tokio::time::timeout(Duration::from_millis(200), socket.read(&mut buffer)).await {
                                Ok(Ok(0)) => return Err(Failure::from("a socket was closed")),
                                Ok(Ok(read)) => heard += read,
                                Ok(Err(error)) => return Err(error.into()),
                                Err(_) => {}
                            }
                        }
                        Ok(heard)
                    })
                })
                .collect();
            while Instant::now() < until {
                samples.push(resident_mib(pid)?);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            for socket in listening {
                if socket.await?? < 10_000 {
                    return Err(Failure::from("a socket heard no audio"));
                }
            }
            Ok(())
        })
        .await?;
    let samples = Samples::new(samples);
    figures::print("memory before sockets", before, "MiB");
    figures::print("memory with sockets p50", samples.median(), "MiB");
    figures::print("memory with sockets peak", samples.largest(), "MiB");
    figures::print("memory of sockets above idle", samples.largest() - before, "MiB");
    figures::print("speech sockets at once", count as f64, "hearing audio");
    Ok(())
}

/// An open socket whose upstream speaks.
async fn session(server: SocketAddr, token: &str) -> Result<TcpStream, Failure> {
    let mut stream = TcpStream::connect(server).await?;
    let handshake = format!(
        "GET /api/v1/audio/speech/ws?token={token} HTTP/1.1\r\nhost: {server}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(handshake.as_bytes()).await?;
    let mut head = Vec::new();
    while find(&head, b"\r\n\r\n").is_none() {
        if stream.read_buf(&mut head).await? == 0 {
            return Err("the handshake was refused".into());
        }
    }
    if !head.starts_with(b"HTTP/1.1 101") {
        return Err("the handshake was refused".into());
    }
    for said in [
        r#"{"event":"start","model":"volcengine/load","voice":"v"}"#,
        r#"{"event":"text","text":"How was your day? Tell me about it."}"#,
    ] {
        // Masked with zeros: what a client says must be masked.
        let mut frame = vec![0x81, 0x80 | u8::try_from(said.len())?, 0, 0, 0, 0];
        frame.extend_from_slice(said.as_bytes());
        stream.write_all(&frame).await?;
    }
    Ok(stream)
}

/// A fake provider: Azure-shaped over HTTP, unspeech-shaped over WebSocket, by what it is asked.
pub(crate) async fn provider(address: SocketAddr) -> Result<(), Failure> {
    let listener = TcpListener::bind(address).await.map_err(|error| format!("the provider at {address}: {error}"))?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move { drop(serve(stream).await) });
        }
    });
    Ok(())
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = find(&buffer, b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        if text.contains("upgrade: websocket") {
            let key = String::from_utf8_lossy(&buffer[..head]).into_owned();
            return speak(stream, &key).await;
        }
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        let end = head + length.unwrap_or(0_usize);
        while buffer.len() < end {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        buffer.drain(..end);
        tokio::time::sleep(THINKING).await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n";
        let piece = format!("1000\r\nID3{}\r\n", "x".repeat(4_093));
        stream.write_all(format!("{head}{piece}{piece}0\r\n\r\n").as_bytes()).await?;
    }
}

/// Audio at 48 kbit/s, five pieces a second, for as long as somebody listens.
async fn speak(mut stream: TcpStream, head: &str) -> std::io::Result<()> {
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_owned())
    });
    let accept = crate::handshake::accept(&key.unwrap_or_default());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    let mut frame = vec![0x82, 126];
    frame.extend_from_slice(&1_200_u16.to_be_bytes());
    frame.resize(4 + 1_200, 0x55);
    let mut ignored = [0; 1024];
    loop {
        tokio::select! {
            read = stream.read(&mut ignored) => if read? == 0 { return Ok(()) },
            () = tokio::time::sleep(Duration::from_millis(200)) => stream.write_all(&frame).await?,
        }
    }
}
