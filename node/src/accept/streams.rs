//! The streams of an HTTP/2 connection, each a task. A stream of which the client takes nothing for too long is dropped, and with it
//! the body of its answer: the socket says nothing of it, because a client can read everything and open the stream's window for none.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;

use tokio::time::Instant;

use super::cut::Cut;
use super::peer::Connected;

tokio::task_local! {
    /// The stream that is being polled.
    static CURRENT: Arc<Taking>;
}

/// Whether the client takes an answer. The HTTP library asks an answer's body for a piece, then waits until the stream's window takes it.
#[derive(Default)]
pub(super) struct Taking(AtomicU8);

/// Nothing was asked for since the last look.
const STILL: u8 = 0;
/// A piece was given.
const GAVE: u8 = 1;
/// The body has no piece yet: the client waits for us.
const OWES: u8 = 2;

impl Taking {
    /// Of the request that is being served; `None` on HTTP/1, whose answers fill the socket.
    pub(super) fn current() -> Option<Arc<Taking>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    pub(super) fn gave(&self) {
        self.0.store(GAVE, Ordering::Relaxed);
    }

    pub(super) fn owes(&self) {
        self.0.store(OWES, Ordering::Relaxed);
    }
}

/// Runs the streams of one connection.
#[derive(Clone)]
pub(super) struct Streams(pub(super) Arc<Connected>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let (connected, taking) = (self.0.clone(), Arc::<Taking>::default());
        tokio::spawn(CURRENT.scope(taking.clone(), run(stream, taking, connected)));
    }
}

async fn run(stream: impl Future<Output = ()>, taking: Arc<Taking>, connected: Arc<Connected>) {
    let timeout = connected.limits().write_timeout;
    let mut stream = pin!(stream);
    let mut timer = pin!(None);
    std::future::poll_fn(|cx| {
        taking.0.store(STILL, Ordering::Relaxed);
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match taking.0.load(Ordering::Relaxed) {
            GAVE => timer.set(Some(tokio::time::sleep_until(Instant::now() + timeout))),
            OWES => timer.set(None),
            // Before a body was asked for, the client owes nothing; after a piece was given, its time runs on.
            _ => {}
        }
        let is_late = timer.as_mut().as_pin_mut().is_some_and(|timer| timer.poll(cx).is_ready());
        if !is_late {
            return Poll::Pending;
        }
        connected.cut(Cut::Stream);
        connected.activity.note_stalled();
        Poll::Ready(())
    })
    .await;
}
