//! What a connection is doing and since when: written by its socket and its requests, read by its watchdog.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Limits;

/// One connection's doings. Times are whole milliseconds since it began, plus one, so that 0 means "not now".
/// The fields are hints for a watchdog that looks again: they need no order among each other.
pub(super) struct Activity {
    began: Instant,
    requests: AtomicU32,
    head_since: AtomicU64,
    idle_since: AtomicU64,
    write_blocked_since: AtomicU64,
    /// HTTP/2: bytes between requests need not be the start of a head.
    multiplexed: AtomicBool,
}

/// What the watchdog should do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Look again after so long.
    LookAgain(Duration),
    /// Close the connection, for this reason.
    Close(&'static str),
}

impl Activity {
    pub(super) fn new() -> Arc<Activity> {
        // A new connection owes us a head.
        Arc::new(Activity {
            began: Instant::now(),
            requests: AtomicU32::new(0),
            head_since: AtomicU64::new(1),
            idle_since: AtomicU64::new(1),
            write_blocked_since: AtomicU64::new(0),
            multiplexed: AtomicBool::new(false),
        })
    }

    fn now(&self) -> u64 {
        1 + u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }

    fn since(&self, moment: &AtomicU64) -> Option<Duration> {
        match moment.load(Ordering::Relaxed) {
            0 => None,
            then => Some(Duration::from_millis(self.now().saturating_sub(then))),
        }
    }

    /// A request's head is complete. The guard counts the request until it is dropped.
    pub(super) fn request(self: &Arc<Activity>, multiplexed: bool) -> InProgress {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        self.multiplexed.store(multiplexed, Ordering::Relaxed);
        InProgress(self.clone())
    }

    fn read_some(&self) {
        let between_requests = self.requests.load(Ordering::Relaxed) == 0
            && self.head_since.load(Ordering::Relaxed) == 0
            && !self.multiplexed.load(Ordering::Relaxed);
        if between_requests {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    fn wrote(&self, blocked: bool) {
        let known = self.write_blocked_since.load(Ordering::Relaxed) != 0;
        if blocked != known {
            self.write_blocked_since.store(if blocked { self.now() } else { 0 }, Ordering::Relaxed);
        }
    }

    /// The pause between two looks never exceeds the header timeout, so a head that begins in it is never overlooked.
    pub(super) fn verdict(&self, limits: &Limits) -> Verdict {
        if self.since(&self.write_blocked_since).is_some_and(|blocked| blocked >= limits.write_timeout) {
            return Verdict::Close("the client takes no more bytes");
        }
        if self.requests.load(Ordering::Relaxed) > 0 {
            return Verdict::LookAgain(limits.header_read_timeout);
        }
        let (spent, allowed, reason) = match self.since(&self.head_since) {
            Some(spent) => (spent, limits.header_read_timeout, "the request's head took too long"),
            None => (self.since(&self.idle_since).unwrap_or_default(), limits.idle_timeout, "idle"),
        };
        match allowed.checked_sub(spent) {
            None | Some(Duration::ZERO) => Verdict::Close(reason),
            Some(left) => Verdict::LookAgain(left.min(limits.header_read_timeout)),
        }
    }
}

/// A request in progress: from its head's end to its answer's last byte.
pub(super) struct InProgress(Arc<Activity>);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.idle_since.store(self.0.now(), Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A socket that notes its doings.
pub(super) struct Watched<I> {
    pub(super) io: I,
    pub(super) activity: Arc<Activity>,
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.read_some();
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.activity.wrote(polled.is_pending());
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.activity.wrote(polled.is_pending());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line: what has happened, after how many seconds, what the watchdog says.
    #[tokio::test(start_paused = true)]
    async fn a_connection_is_closed_when_it_owes_us_something_for_too_long() {
        let limits = Limits::default();
        let after = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        let left = |seconds| Verdict::LookAgain(Duration::from_secs(seconds));

        let silent = Activity::new();
        assert_eq!(silent.verdict(&limits), left(10));
        after(10).await;
        assert_eq!(silent.verdict(&limits), Verdict::Close("the request's head took too long"));

        let served = Activity::new();
        drop(served.request(false));
        after(70).await;
        assert_eq!(served.verdict(&limits), left(5), "idle");
        served.read_some();
        after(6).await;
        served.read_some();
        assert_eq!(served.verdict(&limits), left(4), "a byte now and then does not start the head anew");

        let busy = Activity::new();
        let request = busy.request(false);
        after(1000).await;
        assert_eq!(busy.verdict(&limits), left(10), "a call in progress may take its time");
        busy.wrote(true);
        after(59).await;
        busy.wrote(true);
        after(1).await;
        assert_eq!(busy.verdict(&limits), Verdict::Close("the client takes no more bytes"));
        drop(request);
    }
}
