//! What waits to be written to a socket, within a bound.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Sink;
use poem::web::websocket::Message;

/// Most bytes that may wait for a peer that does not read.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// Fewer waiting bytes than this are no reason to hold anything back.
const FEW_BYTES: usize = 1024 * 1024;

/// Frames in order, and how far they are.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Message>,
    bytes: usize,
    unflushed: bool,
}

/// More waits than may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overflow;

impl Outbox {
    /// Puts a frame at the end. A single frame is never too much.
    pub(super) fn push(&mut self, message: Message) -> Result<(), Overflow> {
        let bytes = length(&message);
        if !self.waiting.is_empty() && self.bytes + bytes > MOST_BYTES {
            return Err(Overflow);
        }
        self.bytes += bytes;
        self.waiting.push_back(message);
        Ok(())
    }

    /// Puts the frame behind which nothing comes. It must not be lost: what waits gives way when both are too much.
    pub(super) fn push_last(&mut self, message: Message) {
        if let Err(Overflow) = self.push(message.clone()) {
            self.clear();
            self.waiting.push_back(message);
        }
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.bytes = 0;
    }

    /// Whether a peer keeps up.
    pub(super) fn is_low(&self) -> bool {
        self.bytes < FEW_BYTES
    }

    /// Writes until something was written or nothing waits; never ready while there is nothing to do.
    pub(super) fn poll_progress<S>(&mut self, socket: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: Sink<Message, Error = io::Error> + Unpin,
    {
        let mut socket = Pin::new(socket);
        if !self.waiting.is_empty() {
            ready!(socket.as_mut().poll_ready(cx))?;
            if let Some(message) = self.waiting.pop_front() {
                self.bytes -= length(&message);
                socket.as_mut().start_send(message)?;
                self.unflushed = true;
            }
            return Poll::Ready(Ok(()));
        }
        if self.unflushed {
            ready!(socket.as_mut().poll_flush(cx))?;
            self.unflushed = false;
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// Whether everything is written.
    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty() && !self.unflushed
    }
}

fn length(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
        Message::Close(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_holds_for_what_waits_and_not_for_a_single_frame() {
        let mut outbox = Outbox::default();
        let frame = |bytes| Message::Text("x".repeat(bytes));
        outbox.push(frame(MOST_BYTES * 2)).unwrap();
        assert_eq!(outbox.push(frame(1)), Err(Overflow));
        outbox.clear();
        outbox.push(frame(MOST_BYTES)).unwrap();
        assert!(!outbox.is_low());
        assert_eq!(outbox.push(frame(1)), Err(Overflow));
    }

    #[test]
    fn the_last_frame_is_never_lost() {
        let close = || Message::Close(None);
        let mut outbox = Outbox::default();
        outbox.push(Message::Text("a".to_owned())).unwrap();
        outbox.push_last(close());
        assert_eq!(outbox.waiting.len(), 2, "what fits is kept before it");
        let mut outbox = Outbox::default();
        outbox.push(Message::Text("x".repeat(MOST_BYTES + 1))).unwrap();
        outbox.push_last(close());
        assert!(matches!(outbox.waiting.make_contiguous(), [Message::Close(None)]), "a long frame gives way");
        assert!(outbox.is_low());
    }
}
