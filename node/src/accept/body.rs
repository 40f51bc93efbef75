//! A request's body, with the port's limits enforced where it is read.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

/// A request's body: at most so large, and never silent for too long.
pub struct Body {
    incoming: Incoming,
    limit: usize,
    left: usize,
    timeout: Duration,
    /// Made when the body first has to be waited for, which most never have.
    timer: Option<Pin<Box<Sleep>>>,
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is larger than the port accepts.
    #[error("the request body is larger than {limit} bytes")]
    TooLarge {
        /// What is accepted.
        limit: usize,
    },
    /// The client paused for too long.
    #[error("the request body did not go on for {0:?}")]
    TooSlow(Duration),
    /// The connection broke, or the framing is invalid.
    #[error("the request body is incomplete: {0}")]
    Broken(#[from] hyper::Error),
}

impl Body {
    pub(super) fn new(incoming: Incoming, limit: usize, timeout: Duration) -> Body {
        Body { incoming, limit, left: limit, timeout, timer: None }
    }

    /// How many bytes the port accepts of a body.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Reads on without keeping anything, for `time` at most: a client that is still sending would take a closed connection for a
    /// failure and never look at its answer.
    pub async fn discard(&mut self, time: Duration) {
        use http_body_util::BodyExt as _;
        let _ = tokio::time::timeout(time, async { while let Some(Ok(_)) = self.incoming.frame().await {} }).await;
    }

    /// Waits for the next piece no longer than allowed.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        use http_body::Body as _;
        if let Poll::Ready(piece) = Pin::new(&mut self.incoming).poll_frame(cx) {
            if let Some(timer) = &mut self.timer {
                timer.as_mut().reset(tokio::time::Instant::now() + self.timeout);
            }
            return Poll::Ready(piece.map(|frame| frame.map_err(BodyError::from)));
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.timeout)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Some(Err(BodyError::TooSlow(self.timeout))))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let too_large = BodyError::TooLarge { limit: self.limit };
        if self.incoming.size_hint().lower() > self.left as u64 {
            return Poll::Ready(Some(Err(too_large)));
        }
        let Some(piece) = ready!(self.poll_piece(cx)) else { return Poll::Ready(None) };
        let piece = piece?;
        let size = piece.data_ref().map_or(0, Bytes::len);
        match self.left.checked_sub(size) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Some(Err(too_large))),
        }
        Poll::Ready(Some(Ok(piece)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
