//! The fake upstream: answers whatever it is asked, whole or as events, as the body asks for.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Failure;
use crate::caller::find;

/// How streams are told.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    between: Duration,
    events: u32,
}

impl Pace {
    /// All at once.
    pub(crate) fn fast() -> Self {
        Self { between: Duration::ZERO, events: 3 }
    }

    /// So many events, so far apart.
    pub(crate) fn slow(between: Duration, events: u32) -> Self {
        Self { between, events }
    }
}

/// Listens, and answers for as long as the runtime lives.
pub(crate) async fn start(address: SocketAddr, pace: Pace) -> Result<(), Failure> {
    let listener = TcpListener::bind(address).await.map_err(|error| format!("the upstream at {address}: {error}"))?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A caller that hangs up has heard enough.
            tokio::spawn(async move { drop(serve(stream, pace).await) });
        }
    });
    Ok(())
}

async fn serve(mut stream: TcpStream, pace: Pace) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let whole = whole_answer();
    let mut buffer = Vec::with_capacity(8 * 1024);
    loop {
        let head = loop {
            if let Some(end) = find(&buffer, b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let end = head + content_length(&buffer[..head]);
        while buffer.len() < end {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let streams = find(&buffer[head..end], br#""stream":true"#).is_some();
        buffer.drain(..end);
        if streams { tell(&mut stream, pace).await? } else { stream.write_all(&whole).await? }
    }
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head);
    let lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
    let mut lengths = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    lengths.next().and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}

/// One thousand tokens: one flux at the usual price.
const USAGE: &str = r#"{"prompt_tokens":600,"completion_tokens":400,"total_tokens":1000}"#;

fn whole_answer() -> Vec<u8> {
    let body = format!(
        r#"{{"id":"chatcmpl-load","object":"chat.completion","created":1700000000,"model":"load","choices":[{{"index":0,"message":{{"role":"assistant","content":"It was a quiet day. I read a little, watched the rain, and thought of you."}},"finish_reason":"stop"}}],"usage":{USAGE}}}"#
    );
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

async fn tell(stream: &mut TcpStream, pace: Pace) -> std::io::Result<()> {
    let chunk = |data: &str| {
        let event = format!("data: {data}\n\n");
        format!("{:x}\r\n{event}\r\n", event.len())
    };
    let word = r#"{"id":"chatcmpl-load","object":"chat.completion.chunk","created":1700000000,"model":"load","choices":[{"index":0,"delta":{"content":"quiet "},"finish_reason":null}]}"#;
    let last = format!(
        r#"{{"id":"chatcmpl-load","object":"chat.completion.chunk","created":1700000000,"model":"load","choices":[],"usage":{USAGE}}}"#
    );
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(format!("{head}{}", chunk(word)).as_bytes()).await?;
    for _ in 1..pace.events {
        if !pace.between.is_zero() {
            tokio::time::sleep(pace.between).await;
        }
        stream.write_all(chunk(word).as_bytes()).await?;
    }
    stream.write_all(format!("{}{}0\r\n\r\n", chunk(&last), chunk("[DONE]")).as_bytes()).await
}
