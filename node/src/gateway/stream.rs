//! The answer on its way to the caller. Its body carries the charge guard and the route to the last byte, so that however the call
//! ends (read to the end, hung up, cut by the replica, drained away) it is settled once and the replica is let go.

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actors::Route;
use actors::epp::Outcome;
use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tracing::info;

use super::dialect::Dialect;
use super::keep_alive::{KeepAlive, Next, Waiting};
use super::outcome;
use super::progress::{Progress, Stage};
use super::settle::ChargeGuard;
use super::sse::Scanner;
use super::upstream::AnswerBody;
use crate::observability::Metrics;

/// The body of any answer on the gateway's port.
pub(super) enum Body {
    /// All of it is here.
    Whole(Bytes),
    /// Passed on event by event.
    Relay(Box<Relay>),
    /// A stream that has not brought an event yet.
    Waiting(Box<Waiting>),
    /// An answer of the public API.
    Public(axum::body::Body),
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Box<dyn StdError + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Body::Waiting(waiting) = &mut *self {
            match ready!(waiting.poll_next(cx)) {
                Next::Sign(sign) => return Poll::Ready(Some(Ok(Frame::data(sign)))),
                Next::Relay(relay) => *self = Body::Relay(relay),
                Next::Last(event) => *self = Body::Whole(event),
            }
        }
        match &mut *self {
            Body::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Body::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Body::Relay(relay) => relay.poll_next(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
            Body::Waiting(_) => Poll::Pending,
            Body::Public(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Whole(bytes) => bytes.is_empty(),
            Body::Relay(relay) => relay.upstream.is_none() && relay.ready.is_empty(),
            Body::Waiting(_) => false,
            Body::Public(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Body::Relay(_) | Body::Waiting(_) => SizeHint::default(),
            Body::Public(body) => body.size_hint(),
        }
    }
}

/// A stream that is passed on while it is listened to. Nothing is buffered beyond one event, and the replica is only read when
/// the caller reads.
pub(super) struct Relay {
    /// Gone at the end, however it comes.
    upstream: Option<AnswerBody>,
    scanner: Scanner,
    progress: Progress,
    dialect: Dialect,
    guard: ChargeGuard,
    /// Let go as soon as the replica has done its work.
    route: Option<Route>,
    metrics: Metrics,
    model: std::sync::Arc<str>,
    ready: VecDeque<Bytes>,
    /// Here if there are signs of life.
    keep_alive: Option<KeepAlive>,
}

/// Makes one piece of several: each would be a chunk of its own for the caller.
fn join(pieces: &mut VecDeque<Bytes>) {
    if pieces.len() > 1 {
        let mut joined = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
        pieces.drain(..).for_each(|piece| joined.extend_from_slice(&piece));
        pieces.push_back(joined.freeze());
    }
}

impl Relay {
    pub(super) fn new(
        upstream: AnswerBody,
        route: Route,
        progress: Progress,
        dialect: Dialect,
        guard: ChargeGuard,
        metrics: Metrics,
        model: std::sync::Arc<str>,
    ) -> Relay {
        let (upstream, route, scanner, ready) = (Some(upstream), Some(route), Scanner::default(), VecDeque::new());
        Relay { upstream, scanner, progress, dialect, guard, route, metrics, model, ready, keep_alive: None }
    }

    /// From now on there are these signs of life while it is silent.
    pub(super) fn keep_alive(&mut self, keep_alive: Option<KeepAlive>) {
        self.keep_alive = keep_alive;
    }

    /// Never fails: a failure is an event in the stream.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            ready!(self.guard.poll_noted(cx));
            if let Some(bytes) = self.ready.pop_front() {
                if let Some(keep_alive) = &mut self.keep_alive {
                    keep_alive.gave();
                }
                return Poll::Ready(Some(bytes));
            }
            let Some(upstream) = &mut self.upstream else { return Poll::Ready(None) };
            match upstream.poll_piece(cx) {
                Poll::Pending => return self.poll_sign(cx),
                Poll::Ready(Some(Ok(piece))) => self.take(piece),
                Poll::Ready(Some(Err(error))) => self.broken(&error.to_string(), outcome::of_error(&error)),
                Poll::Ready(None) => self.ended(),
            }
        }
    }

    /// A sign of life, once it is due. What was given to the caller before are whole events.
    fn poll_sign(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match &mut self.keep_alive {
            Some(keep_alive) if self.progress.stage() == Stage::Open => keep_alive.poll_sign(cx).map(Some),
            _ => Poll::Pending,
        }
    }

    fn take(&mut self, piece: Bytes) {
        if let Some(route) = &self.route {
            route.hears();
        }
        let Relay { scanner, progress, ready, .. } = self;
        let is_fed = scanner.feed(piece, &mut |event| progress.note(event), ready);
        if is_fed.is_err() {
            // The caller decides how much it asks for.
            self.broken("the replica sent an event that is too large", Outcome::Answered);
            return;
        }
        if progress.stage() != Stage::Open {
            scanner.give_up(ready);
        }
        join(&mut self.ready);
        match self.progress.stage() {
            Stage::Open => {
                let tally = self.progress.tally();
                self.guard.produced(tally.produced(), tally.prompt(), tally.reported());
            }
            Stage::Complete => self.complete(),
            // The caller has the replica's own error, or one that says the same. What would follow it does not matter any more.
            Stage::Failed => {
                if let Some(failure) = self.progress.take_failure() {
                    self.say(failure.kind, &failure.message);
                }
                self.failed("error event", self.progress.outcome());
            }
            Stage::Aborted => {
                self.say("api_error", "the replica gave up the call before its end");
                self.failed("aborted", Outcome::Failed);
            }
        }
    }

    /// The end mark is here, and goes to the caller only after the call is settled: whoever reads to the end and then asks for
    /// their usage sees this call in it. The connection is read on to its end, so that it can be used again.
    fn complete(&mut self) {
        if let Some(route) = self.route.take() {
            route.report(Outcome::Answered);
            self.settle();
        }
    }

    fn ended(&mut self) {
        let mut last = VecDeque::new();
        self.scanner.give_up(&mut self.ready);
        self.scanner.finish(&mut |event| self.progress.note(event), &mut last);
        match self.progress.stage() {
            Stage::Complete => {
                self.ready.append(&mut last);
                self.complete();
                self.upstream = None;
            }
            // Whatever is left of half an event is not passed on: it would garble the error event.
            Stage::Open | Stage::Failed | Stage::Aborted => {
                self.broken("the replica ended its answer too early", Outcome::Lost);
            }
        }
    }

    fn broken(&mut self, what: &str, outcome: Outcome) {
        if self.progress.stage() != Stage::Complete {
            self.scanner.give_up(&mut self.ready);
            self.say("api_error", what);
        }
        self.failed(what, outcome);
    }

    /// Adds an error event to what goes to the caller.
    fn say(&mut self, kind: &str, message: &str) {
        let event = self.dialect.error_event(kind, message, self.guard.request_id());
        self.ready.push_back(event);
    }

    fn failed(&mut self, what: &str, outcome: Outcome) {
        self.upstream = None;
        if let Some(route) = self.route.take() {
            info!(replica = route.base(), what, ?outcome, "an answer broke off");
            route.report(outcome);
            self.metrics.upstream_failed(&self.model, "mid_stream");
            self.guard.failed("mid_stream");
            self.settle();
        }
    }

    fn settle(&mut self) {
        self.progress.teach();
        let tally = self.progress.tally();
        match tally.reported() {
            Some(usage) => self.guard.settle_reported(usage),
            None => self.guard.settle_counted(tally.produced(), tally.was_absurd()),
        }
    }
}
