//! A stream that passes an upstream's bytes on and reports exactly once how it ended
//! (contract `gateway.md` §6.3 c, d, g, h).

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures::channel::oneshot;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream};

use super::allowance::{Allowance, Growth};
use super::usage::{Standing, TokenCounts, UsageScanner};
use crate::core::model::ledger::Flux;
use crate::ports::upstream::{ByteStream, UpstreamError};

/// The last event a client sees of a stream that broke; the connection is then ended abnormally.
pub const INTERRUPTED: &[u8] =
    b"data: {\"error\":{\"code\":\"stream_interrupted\",\"message\":\"Upstream stream interrupted\"}}\n\n";

/// How a stream ended and what had been delivered of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// How it ended.
    pub end: DeliveryEnd,
    /// Bytes handed to the client.
    pub bytes: u64,
    /// Usage, as far as reported.
    pub counts: TokenCounts,
    /// Tokens of the text, counted or estimated.
    pub text_tokens: u64,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryEnd {
    /// With `[DONE]`, or by a clean close.
    Finished,
    /// By us: the balance does not afford more, and what was affordable was said.
    Exhausted,
    /// The upstream broke it off or sent an error event.
    Broken,
    /// No byte for too long, or too long in all.
    Stalled,
    /// The client left.
    Abandoned,
}

type OnEnd = Box<dyn FnOnce(Delivery) -> oneshot::Receiver<Flux> + Send>;

/// The wrapped stream. Dropping it closes the upstream connection.
pub struct Metered {
    /// Gone once nothing more is wanted of the upstream.
    body: Option<ByteStream>,
    scanner: UsageScanner,
    bytes: u64,
    on_end: Option<OnEnd>,
    /// What may be said, when it is paid beforehand.
    allowance: Option<Allowance>,
    growing: Option<BoxFuture<'static, Growth>>,
    tells_price: bool,
    /// Whether the client holds a line whose end is missing.
    inside_line: bool,
    /// What the call cost, once that is known.
    receipt: Option<oneshot::Receiver<Flux>>,
    /// What is still to be said after the upstream is gone, the next at the end.
    epilogue: Vec<Result<Bytes, UpstreamError>>,
}

impl Metered {
    /// `on_end` is called exactly once, at the latest when the stream is dropped; it must not block. What it answers
    /// becomes known when the call is charged.
    pub fn new(
        body: ByteStream,
        scanner: UsageScanner,
        on_end: impl FnOnce(Delivery) -> oneshot::Receiver<Flux> + Send + 'static,
    ) -> Self {
        Self {
            body: Some(body),
            scanner,
            bytes: 0,
            on_end: Some(Box::new(on_end)),
            allowance: None,
            growing: None,
            tells_price: false,
            inside_line: false,
            receipt: None,
            epilogue: Vec::new(),
        }
    }

    /// Ends a stream that was charged with a comment that tells how much. Only for event streams, whose readers pass
    /// over comments.
    pub fn with_receipt(mut self) -> Self {
        self.tells_price = true;
        self
    }

    /// Lets no more be said than is paid beforehand; the scanner must be counting.
    pub fn within(mut self, allowance: Option<Allowance>) -> Self {
        self.allowance = allowance;
        self
    }

    fn report(&mut self, end: DeliveryEnd) {
        let Some(on_end) = self.on_end.take() else { return };
        // An extension on its way must not come after the capture, and none must follow.
        self.growing = None;
        self.allowance = None;
        let receipt = on_end(Delivery {
            end,
            bytes: self.bytes,
            counts: self.scanner.counts(),
            text_tokens: self.scanner.text_tokens(),
        });
        if self.tells_price && matches!(end, DeliveryEnd::Finished | DeliveryEnd::Exhausted) {
            self.receipt = Some(receipt);
        }
    }

    /// Sees to it that what is said is paid beforehand; pending while nothing more may be said.
    fn poll_allowance(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(allowance) = &mut self.allowance else { return Poll::Ready(()) };
        let said = self.scanner.written();
        if self.growing.is_none() && allowance.runs_low(said) {
            self.growing = Some(allowance.grow(said));
        }
        if let Some(growing) = &mut self.growing {
            match growing.poll_unpin(cx) {
                Poll::Ready(growth) => {
                    self.growing = None;
                    allowance.hear(growth);
                }
                Poll::Pending if allowance.covers(said) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        if !allowance.covers(said) {
            let prompt = allowance.prompt();
            self.body = None;
            self.epilogue = vec![Ok(self.scanner.cut_off(prompt))];
            self.report(DeliveryEnd::Exhausted);
        }
        Poll::Ready(())
    }

    /// The last line of a stream that was charged.
    fn poll_receipt(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(receipt) = &mut self.receipt else { return Poll::Ready(None) };
        let charged = ready!(receipt.poll_unpin(cx));
        self.receipt = None;
        // Without a word it is not known yet.
        let before = if self.inside_line { "\n" } else { "" };
        Poll::Ready(charged.ok().map(|charged| format!("{before}: airi-flux-charged {}\n\n", charged.get()).into()))
    }

    fn pass(&mut self, bytes: Bytes) -> Option<Bytes> {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if let Some(last) = bytes.last() {
            self.inside_line = !matches!(last, b'\n' | b'\r');
        }
        (!bytes.is_empty()).then_some(bytes)
    }

    fn interrupt(&mut self, cause: UpstreamError, torn: bool) {
        self.body = None;
        let mut last = BytesMut::new();
        if torn {
            // The client holds an unfinished line; the event below must not become its tail.
            last.extend_from_slice(b"\n\n");
        }
        last.extend_from_slice(INTERRUPTED);
        let stalled = matches!(cause, UpstreamError::Stalled | UpstreamError::Timeout);
        self.epilogue = vec![Err(cause), Ok(last.freeze())];
        self.report(if stalled { DeliveryEnd::Stalled } else { DeliveryEnd::Broken });
    }

    fn settle(&mut self, standing: Standing) {
        match standing {
            Standing::Open => {}
            Standing::Done => {
                // Some upstreams keep the connection open after their last word.
                self.body = None;
                self.report(DeliveryEnd::Finished);
            }
            Standing::Failed => {
                self.interrupt(error_event(), false);
            }
        }
    }

    fn ended(&mut self) -> Option<Bytes> {
        let (bytes, standing) = self.scanner.finish();
        let last = self.pass(bytes);
        self.body = None;
        match standing {
            Standing::Open | Standing::Done => self.settle(Standing::Done),
            // The error event came without its blank line.
            Standing::Failed => self.interrupt(error_event(), true),
        }
        last
    }

    fn broke(&mut self, cause: UpstreamError) -> Option<Bytes> {
        let torn = self.scanner.is_torn();
        let (bytes, standing) = self.scanner.finish();
        if standing == Standing::Done {
            // All was said but the blank line behind `[DONE]`.
            let last = self.pass(bytes);
            self.settle(standing);
            return last;
        }
        self.interrupt(cause, torn);
        None
    }
}

fn error_event() -> UpstreamError {
    UpstreamError::Transport("error event inside the stream".to_owned())
}

impl Stream for Metered {
    type Item = Result<Bytes, UpstreamError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            ready!(this.poll_allowance(cx));
            let Some(body) = &mut this.body else { break };
            let passed = match ready!(body.as_mut().poll_next(cx)) {
                Some(Ok(chunk)) => {
                    let (bytes, standing) = this.scanner.feed(&chunk);
                    let passed = this.pass(bytes);
                    this.settle(standing);
                    passed
                }
                Some(Err(cause)) => this.broke(cause),
                None => this.ended(),
            };
            if let Some(bytes) = passed {
                return Poll::Ready(Some(Ok(bytes)));
            }
        }
        if let Some(last) = this.epilogue.pop() {
            return Poll::Ready(Some(last));
        }
        this.poll_receipt(cx).map(|comment| comment.map(Ok))
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.body = None;
        self.report(DeliveryEnd::Abandoned);
    }
}
