//! A request's body, with the port's limits enforced where it is read.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::cut::Cut;
use super::limits::Limits;
use super::peer::{Connected, Peer};

/// Pieces that a body may have, whatever their size.
const PIECES_MAX: usize = 4_096;
/// Beyond those, pieces have so many bytes on average: each costs as much work as a large one.
const PIECE_MIN: usize = 16;

/// A request's body: at most so large, never silent for too long, and never too slow on the whole.
pub struct Body {
    incoming: Incoming,
    connected: Arc<Connected>,
    received: usize,
    pieces: usize,
    /// How long the client has been waited for in all, but for the wait that is going on.
    waited: Duration,
    /// Since when the client is waited for.
    since: Option<Instant>,
    /// Made when the body first has to be waited for, which most never have.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Drop for Body {
    fn drop(&mut self) {
        self.connected.activity.end_body();
    }
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
    /// The client was waited for again and again.
    #[error(
        "the request body is too slow: {received} bytes came in {waited:?}; send at least {rate} bytes a second, and all of it within {within:?}"
    )]
    TooSlowOnTheWhole {
        /// Bytes that came.
        received: usize,
        /// How long the client was waited for.
        waited: Duration,
        /// The average that is wanted, in bytes a second.
        rate: usize,
        /// For the whole body.
        within: Duration,
    },
    /// It has too many pieces for its size.
    #[error("the request body comes in too small pieces: {pieces} for {received} bytes")]
    TooManyPieces {
        /// Chunks or DATA frames that came.
        pieces: usize,
        /// Bytes in them.
        received: usize,
    },
    /// The connection broke, or the framing is invalid.
    #[error("the request body is incomplete: {0}")]
    Broken(#[from] hyper::Error),
}

impl BodyError {
    /// The client did not send it in the time that it has.
    pub fn is_timeout(&self) -> bool {
        matches!(self, BodyError::TooSlow(_) | BodyError::TooSlowOnTheWhole { .. })
    }
}

impl Body {
    pub(super) fn new(incoming: Incoming, connected: Arc<Connected>) -> Body {
        connected.activity.begin_body();
        let waited = Duration::ZERO;
        Body { incoming, connected, received: 0, pieces: 0, waited, since: None, timer: None }
    }

    /// The other end of the connection that the body comes on.
    pub fn peer(&self) -> Peer {
        Peer(self.connected.clone())
    }

    /// How many bytes the port accepts of a body.
    pub fn limit(&self) -> usize {
        self.connected.limits().body_max
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
            if let Some(since) = self.since.take() {
                self.waited += since.elapsed();
            }
            return Poll::Ready(piece.map(|frame| frame.map_err(BodyError::from)));
        }
        let limits = self.connected.limits();
        let left = allowed(limits, self.received).saturating_sub(self.waited);
        let since = *self.since.get_or_insert_with(Instant::now);
        let deadline = since + left.min(limits.body_read_timeout);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        self.connected.cut(Cut::Body);
        Poll::Ready(Some(Err(if left > limits.body_read_timeout {
            BodyError::TooSlow(limits.body_read_timeout)
        } else {
            let (received, waited) = (self.received, self.waited + since.elapsed());
            let (rate, within) = (limits.body_rate_min, limits.body_timeout);
            BodyError::TooSlowOnTheWhole { received, waited, rate, within }
        })))
    }

    fn count(&mut self, size: usize) -> Result<(), BodyError> {
        self.received += size;
        self.pieces += 1;
        let (received, pieces) = (self.received, self.pieces);
        if received > self.connected.limits().body_max {
            return Err(self.too_large());
        }
        if pieces > PIECES_MAX + received / PIECE_MIN {
            self.connected.cut(Cut::Body);
            return Err(BodyError::TooManyPieces { pieces, received });
        }
        Ok(())
    }

    fn too_large(&self) -> BodyError {
        BodyError::TooLarge { limit: self.connected.limits().body_max }
    }
}

/// How long a client may be waited for in all when so many bytes are here.
fn allowed(limits: &Limits, received: usize) -> Duration {
    let earned = received as f64 / limits.body_rate_min as f64;
    let earned = Duration::try_from_secs_f64(earned).unwrap_or(limits.body_timeout);
    limits.body_timeout.min(limits.body_read_timeout.saturating_add(earned))
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let left = self.connected.limits().body_max.saturating_sub(self.received);
        if self.incoming.size_hint().lower() > left as u64 {
            return Poll::Ready(Some(Err(self.too_large())));
        }
        let Some(piece) = ready!(self.poll_piece(cx)) else { return Poll::Ready(None) };
        let piece = piece?;
        self.count(piece.data_ref().map_or(0, Bytes::len))?;
        Poll::Ready(Some(Ok(piece)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_earned_by_bytes_up_to_the_deadline_of_the_whole() {
        let limits = Limits::default();
        let table = [(0, 30), (1024, 31), (100 * 1024, 130), (570 * 1024, 600), (32 << 20, 600)];
        for (received, seconds) in table {
            assert_eq!(allowed(&limits, received), Duration::from_secs(seconds), "{received}");
        }
    }
}
