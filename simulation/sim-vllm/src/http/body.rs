//! Bodies of answers: whole ones, and streams of events that may be made to go wrong.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::errors::{ApiError, ENGINE_DIED};
use crate::fault::FaultKind;

/// Bytes that come as they are produced.
pub(crate) trait EventSource: Send {
    /// The next piece; `None` at the end.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>>;
}

/// The body of an answer.
pub(crate) enum Body {
    /// All of it at once.
    Whole(Bytes),
    /// Pieces, one HTTP chunk each.
    Events(Box<dyn EventSource>),
    /// The first half of a body, then the connection is cut; `content-length` tells of the whole.
    Half { bytes: Bytes, claimed: u64, flushed: bool },
    /// A stream with a fault.
    Faulty(Faulty),
}

/// The connection is to be cut without another byte.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut on purpose")]
pub(crate) struct Cut;

/// A stream that goes wrong after some events.
pub(crate) struct Faulty {
    inner: Box<dyn EventSource>,
    kind: FaultKind,
    left: usize,
    struck: bool,
}

impl Faulty {
    pub(crate) fn new(inner: Box<dyn EventSource>, kind: FaultKind, after: usize) -> Self {
        Self { inner, kind, left: after, struck: false }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        if self.left > 0 {
            self.left -= 1;
            let polled = self.inner.poll_event(cx).map(|event| event.map(Ok));
            if polled.is_pending() {
                self.left += 1;
            }
            return polled;
        }
        if !std::mem::replace(&mut self.struck, true) {
            // Once around, so that what was written before reaches the wire.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match self.kind {
            FaultKind::DieMidStream => Poll::Ready(Some(Err(Cut))),
            FaultKind::EngineErrorMidStream => self.last(engine_died_events()),
            FaultKind::GarbageJson => self.last(Bytes::from_static(b"data: {\"id\":\"chatcmpl-\",\"choi\n\n")),
            _ => Poll::Pending,
        }
    }

    /// One more event, and then what the healthy stream would have.
    fn last(&mut self, event: Bytes) -> Poll<Option<Result<Bytes, Cut>>> {
        if self.kind == FaultKind::EngineErrorMidStream {
            self.inner = Box::new(Ended);
        }
        self.left = usize::MAX;
        Poll::Ready(Some(Ok(event)))
    }
}

struct Ended;

impl EventSource for Ended {
    fn poll_event(&mut self, _: &mut Context<'_>) -> Poll<Option<Bytes>> {
        Poll::Ready(None)
    }
}

/// What a stream says when the engine dies under it; the status was 200 long ago.
pub(crate) fn engine_died_events() -> Bytes {
    let error = ApiError { message: ENGINE_DIED.to_owned(), ..ApiError::engine_died() };
    format!("data: {}\n\ndata: [DONE]\n\n", error.openai()).into()
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let polled = match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Self::Events(source) => source.poll_event(cx).map(|event| event.map(Ok)),
            Self::Faulty(faulty) => faulty.poll(cx),
            Self::Half { bytes, .. } if !bytes.is_empty() => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Self::Half { flushed, .. } => {
                if std::mem::replace(flushed, true) {
                    return Poll::Ready(Some(Err(Cut)));
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        };
        polled.map(|event| event.map(|result| result.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Half { claimed, .. } => SizeHint::with_exact(*claimed),
            Self::Events(_) | Self::Faulty(_) => SizeHint::default(),
        }
    }
}
