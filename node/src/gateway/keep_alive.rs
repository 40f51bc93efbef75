//! Signs of life in a stream that is silent, for proxies that cut what is idle (`gateway.sse_keep_alive`).
//!
//! They begin when the head of a replica's answer is here: vLLM sends it at once, and the first token may take minutes. The first
//! sign takes the head to the caller, so from then on a failure cannot have a status. Nothing of an answer has gone to the
//! caller all the same, so another replica is asked where it would have been, and the caller sees nothing of it. If none answers, the
//! stream ends with an error event. Signs stand between two events and never inside one, and they cost nothing.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use actors::Permit;
use actors::epp::Outcome;
use actors::quota::LimitStanding;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};
use tracing::info;

use super::body::BodyHold;
use super::complaint::Complaint;
use super::deliver::{self, Terms};
use super::outcome;
use super::pick::Shape;
use super::proxy::{Answer, proxy};
use super::refusal::Refusal;
use super::retry::RetryAdvice;
use super::settle::ChargeGuard;
use super::stream::{Body, Relay};
use super::upstream::{Outgoing, Upstream};
use crate::{Context, anthropic};

/// When the next sign of life is due in one stream, and how it looks.
pub(super) struct KeepAlive {
    interval: Duration,
    sign: &'static [u8],
    /// Later whenever the caller is given something.
    due: Instant,
    /// It is moved when it fires, not with every piece.
    timer: Pin<Box<Sleep>>,
}

impl KeepAlive {
    /// A sign after each `interval` of silence, which begins now.
    pub(super) fn new(interval: Duration, sign: &'static [u8]) -> KeepAlive {
        KeepAlive { interval, sign, due: Instant::now() + interval, timer: Box::pin(tokio::time::sleep(interval)) }
    }

    /// The same with the first sign at once.
    fn now(interval: Duration, sign: &'static [u8]) -> KeepAlive {
        KeepAlive { interval, sign, due: Instant::now(), timer: Box::pin(tokio::time::sleep(Duration::ZERO)) }
    }

    /// The caller was given something.
    pub(super) fn gave(&mut self) {
        self.due = Instant::now() + self.interval;
    }

    /// The next sign, once it is due.
    pub(super) fn poll_sign(&mut self, cx: &mut TaskContext<'_>) -> Poll<Bytes> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            let is_due = now >= self.due;
            if is_due {
                self.due = now + self.interval;
            }
            self.timer.as_mut().reset(self.due);
            if is_due {
                return Poll::Ready(Bytes::from_static(self.sign));
            }
        }
    }
}

/// Whether the head of a stream is here that has not brought anything yet. Set by [`proxy`].
pub(super) struct Begun(watch::Sender<bool>);

impl Begun {
    /// The head of a stream is here.
    pub(super) fn is_here(&self) {
        self.0.send_replace(true);
    }

    /// It came to nothing.
    pub(super) fn is_gone(&self) {
        self.0.send_replace(false);
    }
}

/// Resolves when a stream that has begun was silent for `interval`. Never if none is.
async fn silent(mut begun: watch::Receiver<bool>, interval: Duration) {
    while begun.wait_for(|is_here| *is_here).await.is_ok() {
        if tokio::time::timeout(interval, begun.wait_for(|is_here| !is_here)).await.is_err() {
            return;
        }
    }
    std::future::pending::<()>().await;
}

/// A streamed call on its way to a replica, with everything that its answer needs.
pub(super) struct OnItsWay {
    pub(super) context: Context,
    pub(super) upstream: Upstream,
    pub(super) permit: Permit,
    pub(super) shape: Shape,
    pub(super) request: Outgoing,
    pub(super) guard: ChargeGuard,
    pub(super) terms: Terms,
    /// Of the request, until a replica has answered.
    pub(super) room: BodyHold,
}

type Answered = (Result<Answer, Refusal>, ChargeGuard);

/// As [`proxy`] and [`deliver`], but that the caller gets signs of life if the answer is long in coming after its head.
pub(super) async fn proxy_and_deliver(call: OnItsWay, interval: Duration) -> Result<http::Response<Body>, Refusal> {
    let OnItsWay { context, upstream, permit, shape, request, mut guard, terms, room } = call;
    let standing = guard.standing();
    let (begun, beginnings) = watch::channel(false);
    let mut answered: Pin<Box<dyn Future<Output = Answered> + Send>> = Box::pin({
        let (context, permit) = (context.clone(), permit.clone());
        async move {
            let begun = Begun(begun);
            let result = proxy(&context, &upstream, &permit, &shape, request, &mut guard, Some(&begun)).await;
            drop(room);
            (result, guard)
        }
    });
    tokio::select! {
        biased;
        (result, guard) = &mut answered => deliver::deliver(&context, result?, guard, &permit, &terms).await,
        () = silent(beginnings, interval) => Ok(wait_on(context, permit, terms, answered, interval, &standing)),
    }
}

/// Takes the head to the caller before there is anything of an answer.
fn wait_on(
    context: Context,
    permit: Permit,
    terms: Terms,
    answered: Pin<Box<dyn Future<Output = Answered> + Send>>,
    interval: Duration,
    standing: &[LimitStanding],
) -> http::Response<Body> {
    let dialect = terms.dialect();
    let keep_alive = KeepAlive::now(interval, dialect.sign_of_life());
    let relay = Box::pin(async move {
        let (result, guard) = answered.await;
        begin(&context, &permit, &terms, result, guard).await
    });
    deliver::stream(Body::Waiting(Box::new(Waiting { relay, keep_alive: Some(keep_alive) })), standing, dialect)
}

/// Errors: the event that ends the stream.
async fn begin(
    context: &Context,
    permit: &Permit,
    terms: &Terms,
    result: Result<Answer, Refusal>,
    mut guard: ChargeGuard,
) -> Result<Box<Relay>, Bytes> {
    let refusal = match result {
        Ok(answer) if answer.is_stream() => return Ok(deliver::relay(context, answer, guard, permit, terms)),
        Ok(answer) => {
            let refusal = read_refusal(context, answer, terms).await;
            if outcome::of_refusal(&refusal) != Outcome::Answered {
                context.metrics.upstream_failed(&permit.model().id.name, "before_answer");
            }
            refusal
        }
        Err(refusal) => refusal,
    };
    guard.failed(refusal.code());
    guard.waive();
    let (id, status) = (guard.request_id(), refusal.status());
    info!(id, status = status.as_u16(), reason = refusal.code(), "a stream was refused after its head");
    Err(terms.dialect().error_event(anthropic::error_kind(status), &refusal.to_string(), id))
}

/// What another replica said in place of a stream. Its answer has not been paid for: there is no way to pass it on.
async fn read_refusal(context: &Context, mut answer: Answer, terms: &Terms) -> Refusal {
    let status = answer.head.status;
    if status.is_success() {
        let refusal = Refusal::BadAnswer("it is no stream of events");
        answer.route.report(outcome::of_refusal(&refusal));
        return refusal;
    }
    let retry = RetryAdvice::read(&answer.head.headers, context.doors.clock.wall());
    let complaint = Complaint::read(&answer.head.headers, &mut answer.body).await;
    let refusal = complaint.into_refusal(status, terms.endpoint(), retry);
    answer.route.report(outcome::of_refusal(&refusal));
    refusal
}

/// A stream whose head has gone to the caller, and of which nothing has come yet.
pub(super) struct Waiting {
    relay: Pin<Box<dyn Future<Output = Result<Box<Relay>, Bytes>> + Send>>,
    /// Here until the stream has begun.
    keep_alive: Option<KeepAlive>,
}

/// What comes next of it.
pub(super) enum Next {
    /// A sign of life.
    Sign(Bytes),
    /// The answer.
    Relay(Box<Relay>),
    /// The event that ends it.
    Last(Bytes),
}

impl Waiting {
    pub(super) fn poll_next(&mut self, cx: &mut TaskContext<'_>) -> Poll<Next> {
        if let Poll::Ready(relay) = self.relay.as_mut().poll(cx) {
            return Poll::Ready(match relay {
                Ok(mut relay) => {
                    relay.keep_alive(self.keep_alive.take());
                    Next::Relay(relay)
                }
                Err(event) => Next::Last(event),
            });
        }
        match &mut self.keep_alive {
            Some(keep_alive) => keep_alive.poll_sign(cx).map(Next::Sign),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_sign_is_due_after_each_interval_in_which_nothing_was_given() {
        let (mut keep_alive, began) = (KeepAlive::new(TEN, b": x\n\n"), Instant::now());
        poll_fn(|cx| keep_alive.poll_sign(cx)).await;
        assert_eq!(began.elapsed().as_secs(), 10);
        tokio::time::sleep(Duration::from_secs(7)).await;
        keep_alive.gave();
        poll_fn(|cx| keep_alive.poll_sign(cx)).await;
        assert_eq!(began.elapsed().as_secs(), 27);
        poll_fn(|cx| keep_alive.poll_sign(cx)).await;
        assert_eq!(began.elapsed().as_secs(), 37);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_from_the_head_of_the_replica_that_is_asked_now() {
        let (sender, receiver) = watch::channel(false);
        let (begun, began) = (Begun(sender), Instant::now());
        let replicas = async {
            tokio::time::sleep(Duration::from_secs(100)).await;
            begun.is_here();
            tokio::time::sleep(Duration::from_secs(9)).await;
            begun.is_gone();
            tokio::time::sleep(Duration::from_secs(100)).await;
            begun.is_here();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = replicas => {}
            () = silent(receiver, TEN) => {}
        }
        assert_eq!(began.elapsed().as_secs(), 219);
    }
}
