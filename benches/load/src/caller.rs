//! One keep-alive connection and what is said on it.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Failure;

/// The bytes of a chat completion request.
pub(crate) fn completion(host: SocketAddr, path: &str, token: &str, stream: bool) -> Vec<u8> {
    let body = format!(
        r#"{{"model":"load","stream":{stream},"messages":[{{"role":"system","content":"You are a friend."}},{{"role":"user","content":"How was your day? Tell me about it in a sentence or two."}}]}}"#
    );
    format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The path of completions here; the fake upstream answers every path.
pub(crate) const PATH: &str = "/api/v1/openai/chat/completions";

/// A connection.
pub(crate) struct Caller {
    stream: TcpStream,
    /// What was received and not yet used.
    buffer: Vec<u8>,
}

/// How the body of an answer ends.
enum Framing {
    Length(usize),
    Chunked,
}

impl Caller {
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(8 * 1024) })
    }

    /// Sends a request and reads its answer. `begun` is called at the first byte of the body.
    pub(crate) async fn call(&mut self, request: &[u8], begun: impl FnOnce()) -> Result<Answer, Failure> {
        self.stream.write_all(request).await?;
        let head = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            self.receive().await?;
        };
        let (status, framing) = read_head(&self.buffer[..head])?;
        self.buffer.drain(..head);
        let body = match framing {
            Framing::Length(length) => self.read_exactly(length, begun).await?,
            Framing::Chunked => self.read_chunks(begun).await?,
        };
        Ok(Answer { status, body })
    }

    async fn read_exactly(&mut self, length: usize, begun: impl FnOnce()) -> Result<Vec<u8>, Failure> {
        while self.buffer.is_empty() && length > 0 {
            self.receive().await?;
        }
        begun();
        while self.buffer.len() < length {
            self.receive().await?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn read_chunks(&mut self, begun: impl FnOnce()) -> Result<Vec<u8>, Failure> {
        let (mut body, mut begun) = (Vec::new(), Some(begun));
        loop {
            let line = loop {
                if let Some(end) = find(&self.buffer, b"\r\n") {
                    break end;
                }
                self.receive().await?;
            };
            let size = usize::from_str_radix(std::str::from_utf8(&self.buffer[..line])?.trim(), 16)?;
            let whole = line + 2 + size + 2;
            while self.buffer.len() < whole {
                self.receive().await?;
            }
            if let Some(begun) = begun.take() {
                begun();
            }
            body.extend_from_slice(&self.buffer[line + 2..line + 2 + size]);
            self.buffer.drain(..whole);
            if size == 0 {
                return Ok(body);
            }
        }
    }

    async fn receive(&mut self) -> Result<(), Failure> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err("the connection was closed".into()),
            _ => Ok(()),
        }
    }
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// An answer that is not a success ends a run: its figures would mean nothing.
    pub(crate) fn succeeded(self) -> Result<Self, Failure> {
        if self.status == 200 {
            return Ok(self);
        }
        Err(format!("answered {}: {}", self.status, String::from_utf8_lossy(&self.body)).into())
    }
}

fn read_head(head: &[u8]) -> Result<(u16, Framing), Failure> {
    let head = std::str::from_utf8(head)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).ok_or("no status line")?.parse()?;
    let mut framing = Framing::Length(0);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            framing = Framing::Length(value.trim().parse()?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            framing = Framing::Chunked;
        }
    }
    Ok((status, framing))
}

/// Where `wanted` begins.
pub(crate) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
