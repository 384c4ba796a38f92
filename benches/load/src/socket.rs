//! A WebSocket by hand.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::Failure;
use crate::caller::find;

/// Says things.
pub(crate) struct Mouth(OwnedWriteHalf);

/// Hears things.
pub(crate) struct Ear {
    stream: OwnedReadHalf,
    /// What was received and not yet used.
    buffer: Vec<u8>,
}

/// Opens a socket and waits for the first frame.
pub(crate) async fn open(server: SocketAddr, token: &str) -> Result<(Mouth, Ear), Failure> {
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let head = format!(
        "GET /ws/chat?token={token} HTTP/1.1\r\nhost: {server}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let (stream, write) = stream.into_split();
    let mut ear = Ear { stream, buffer: Vec::new() };
    let end = loop {
        if let Some(end) = find(&ear.buffer, b"\r\n\r\n") {
            break end + 4;
        }
        ear.receive().await?;
    };
    if !ear.buffer.starts_with(b"HTTP/1.1 101") {
        return Err(String::from_utf8_lossy(&ear.buffer).into_owned().into());
    }
    ear.buffer.drain(..end);
    let first = ear.hear().await?;
    if find(&first, b":connected").is_none() {
        return Err("the socket was not accepted".into());
    }
    Ok((Mouth(write), ear))
}

impl Mouth {
    /// Sends a text. The mask a client must use is zero, which leaves the text as it is.
    pub(crate) async fn say(&mut self, text: &str) -> Result<(), Failure> {
        const TEXT: u8 = 0x81;
        const MASKED: u8 = 0x80;
        let mut frame = vec![TEXT];
        match text.len() {
            short @ ..126 => frame.push(MASKED | u8::try_from(short)?),
            long => {
                frame.push(MASKED | 126);
                frame.extend(u16::try_from(long)?.to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(text.as_bytes());
        Ok(self.0.write_all(&frame).await?)
    }
}

impl Ear {
    /// The next text; pings are passed over.
    pub(crate) async fn hear(&mut self) -> Result<Vec<u8>, Failure> {
        loop {
            let (kind, length) = (self.at(0).await?, self.at(1).await?);
            let (head, length) = match length {
                126 => (4, usize::from(u16::from_be_bytes([self.at(2).await?, self.at(3).await?]))),
                127 => {
                    let mut bytes = [0; 8];
                    for (at, byte) in bytes.iter_mut().enumerate() {
                        *byte = self.at(2 + at).await?;
                    }
                    (10, usize::try_from(u64::from_be_bytes(bytes))?)
                }
                short => (2, usize::from(short)),
            };
            while self.buffer.len() < head + length {
                self.receive().await?;
            }
            let payload = self.buffer[head..head + length].to_vec();
            self.buffer.drain(..head + length);
            match kind & 0x0f {
                1 => return Ok(payload),
                8 => return Err("the server closed a socket".into()),
                _ => {}
            }
        }
    }

    async fn at(&mut self, place: usize) -> Result<u8, Failure> {
        while self.buffer.len() <= place {
            self.receive().await?;
        }
        Ok(self.buffer[place])
    }

    async fn receive(&mut self) -> Result<(), Failure> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err("the server hung up".into());
        }
        Ok(())
    }
}
