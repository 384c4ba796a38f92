//! Audio on its way to the client: passed on as it arrives, counted, cut at the longest clip, and reported exactly once.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::Stream;

use crate::core::llm::metered::DeliveryEnd;
use crate::core::model::tts::MAX_AUDIO;
use crate::ports::upstream::{ByteStream, UpstreamError};

type OnEnd = Box<dyn FnOnce(DeliveryEnd, u64) + Send>;

/// The wrapped audio. Dropping it closes the upstream connection.
pub struct Relay {
    /// Gone once nothing more is wanted of the upstream.
    body: Option<ByteStream>,
    /// Bytes handed to the client.
    bytes: u64,
    on_end: Option<OnEnd>,
}

impl Relay {
    /// `on_end` hears how the delivery ended and how many bytes it had; it is called exactly once, at the latest when
    /// the relay is dropped, and must not block.
    pub fn new(body: ByteStream, on_end: impl FnOnce(DeliveryEnd, u64) + Send + 'static) -> Self {
        Self { body: Some(body), bytes: 0, on_end: Some(Box::new(on_end)) }
    }

    fn end(&mut self, end: DeliveryEnd) {
        self.body = None;
        if let Some(on_end) = self.on_end.take() {
            on_end(end, self.bytes);
        }
    }
}

impl Stream for Relay {
    type Item = Result<Bytes, UpstreamError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        while let Some(body) = &mut this.body {
            let (end, error) = match ready!(body.as_mut().poll_next(cx)) {
                None => {
                    this.end(DeliveryEnd::Finished);
                    return Poll::Ready(None);
                }
                Some(Ok(chunk)) if chunk.is_empty() => continue,
                Some(Ok(chunk)) if this.bytes.saturating_add(chunk.len() as u64) <= MAX_AUDIO => {
                    this.bytes += chunk.len() as u64;
                    return Poll::Ready(Some(Ok(chunk)));
                }
                // Our own cut is not the provider's fault: what was delivered is owed.
                Some(Ok(_)) => {
                    let error = UpstreamError::Transport("the clip is longer than is accepted".to_owned());
                    (DeliveryEnd::Exhausted, error)
                }
                Some(Err(error @ (UpstreamError::Stalled | UpstreamError::Timeout))) => (DeliveryEnd::Stalled, error),
                Some(Err(error)) => (DeliveryEnd::Broken, error),
            };
            this.end(end);
            return Poll::Ready(Some(Err(error)));
        }
        Poll::Ready(None)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.end(DeliveryEnd::Abandoned);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::{StreamExt, stream};

    use super::*;

    type Heard = Arc<Mutex<Vec<(DeliveryEnd, u64)>>>;

    fn relay(pieces: Vec<Result<Bytes, UpstreamError>>) -> (Relay, Heard) {
        let heard = Heard::default();
        let told = heard.clone();
        (Relay::new(stream::iter(pieces).boxed(), move |end, bytes| told.lock().unwrap().push((end, bytes))), heard)
    }

    #[tokio::test]
    async fn every_way_to_end_is_told_once_with_what_was_delivered() {
        let (mut whole, heard) = relay(vec![Ok("ab".into()), Ok(Bytes::new()), Ok("c".into())]);
        assert_eq!(whole.by_ref().count().await, 2);
        drop(whole);
        assert_eq!(*heard.lock().unwrap(), [(DeliveryEnd::Finished, 3)]);
        let (mut left, heard) = relay(vec![Ok("ab".into()), Ok("c".into())]);
        left.next().await;
        drop(left);
        assert_eq!(*heard.lock().unwrap(), [(DeliveryEnd::Abandoned, 2)]);
        for (error, end) in [
            (UpstreamError::Stalled, DeliveryEnd::Stalled),
            (UpstreamError::Transport("x".into()), DeliveryEnd::Broken),
        ] {
            let (broken, heard) = relay(vec![Ok("ab".into()), Err(error)]);
            assert_eq!(broken.count().await, 2);
            assert_eq!(*heard.lock().unwrap(), [(end, 2)]);
        }
    }

    #[tokio::test]
    async fn a_clip_that_never_ends_is_cut() {
        let mebi = Bytes::from(vec![0; 1 << 20]);
        let (endless, heard) = relay(std::iter::repeat_with(|| Ok(mebi.clone())).take(40).collect());
        let passed: Vec<_> = endless.collect().await;
        assert_eq!(passed.len(), 26);
        assert!(passed[25].is_err());
        assert_eq!(*heard.lock().unwrap(), [(DeliveryEnd::Exhausted, MAX_AUDIO)]);
    }
}
