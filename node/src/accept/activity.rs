//! What a connection is doing and since when: written by its socket and its requests, read by its watchdog and by what makes room.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::cut::Cut;
use super::limits::Limits;

/// One connection's doings. Times are whole milliseconds since it began, plus one, so that 0 means "not now".
/// The times are hints for a watchdog that looks again: they need no order among each other.
pub(super) struct Activity {
    began: Instant,
    /// [`CLOSED`], [`AUTHENTICATED`], and the number of requests in progress. In one word, so that a connection is never closed for
    /// want of room while it begins a request.
    state: AtomicU32,
    /// Requests in progress whose bodies are still coming.
    receiving: AtomicU32,
    head_since: AtomicU64,
    quiet_since: AtomicU64,
    write_blocked_since: AtomicU64,
    /// HTTP/2: bytes between requests need not be the start of a head.
    multiplexed: AtomicBool,
    /// A stream was cut because the client took nothing of it.
    is_stalled: AtomicBool,
}

const CLOSED: u32 = 1 << 31;
const AUTHENTICATED: u32 = 1 << 30;
const REQUESTS: u32 = AUTHENTICATED - 1;

/// What a connection has to be, to be closed for the sake of another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Claim {
    /// It has shown no valid credential, whatever it is doing.
    Unauthenticated,
    /// It has no request in progress.
    Idle,
    /// It has requests in progress, and the bodies of all of them are still coming.
    Receiving,
}

/// What the watchdog should do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum WatchdogAction {
    /// Look again after so long.
    LookAgain(Duration),
    /// Close the connection, for this reason.
    Close(Cut),
}

impl Activity {
    pub(super) fn new() -> Activity {
        // A new connection owes us a head.
        Activity {
            began: Instant::now(),
            state: AtomicU32::new(0),
            receiving: AtomicU32::new(0),
            head_since: AtomicU64::new(1),
            quiet_since: AtomicU64::new(1),
            write_blocked_since: AtomicU64::new(0),
            multiplexed: AtomicBool::new(false),
            is_stalled: AtomicBool::new(false),
        }
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

    fn requests(&self) -> u32 {
        self.state.load(Ordering::Relaxed) & REQUESTS
    }

    /// The TLS handshake is over: the first head is owed from now on.
    pub(super) fn owes_head(&self) {
        self.head_since.store(self.now(), Ordering::Relaxed);
    }

    /// A request's head is complete. `false` if the connection is being closed: the request must not begin.
    pub(super) fn begin_request(&self, multiplexed: bool) -> bool {
        let begin = |state: u32| (state & CLOSED == 0).then_some(state + 1);
        if self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, begin).is_err() {
            return false;
        }
        self.head_since.store(0, Ordering::Relaxed);
        self.quiet_since.store(self.now(), Ordering::Relaxed);
        self.multiplexed.store(multiplexed, Ordering::Relaxed);
        true
    }

    /// A request that began has its answer's last byte, or never will.
    pub(super) fn end_request(&self) {
        self.quiet_since.store(self.now(), Ordering::Relaxed);
        self.state.fetch_sub(1, Ordering::Relaxed);
    }

    /// A request's body begins to come.
    pub(super) fn begin_body(&self) {
        self.receiving.fetch_add(1, Ordering::Relaxed);
    }

    /// The body is here, or nobody wants the rest.
    pub(super) fn end_body(&self) {
        self.receiving.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether it was this call that made the connection an authenticated one.
    pub(super) fn authenticate(&self) -> bool {
        let authenticate = |state: u32| (state & (CLOSED | AUTHENTICATED) == 0).then_some(state | AUTHENTICATED);
        self.state.load(Ordering::Relaxed) & AUTHENTICATED == 0
            && self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, authenticate).is_ok()
    }

    pub(super) fn is_authenticated(&self) -> bool {
        self.state.load(Ordering::Relaxed) & AUTHENTICATED != 0
    }

    /// Whether the connection could be claimed now.
    pub(super) fn fits(&self, claim: Claim) -> bool {
        self.is(claim, self.state.load(Ordering::Relaxed))
    }

    fn is(&self, claim: Claim, state: u32) -> bool {
        match claim {
            Claim::Unauthenticated => state & AUTHENTICATED == 0,
            Claim::Idle => state & REQUESTS == 0,
            Claim::Receiving => state & REQUESTS <= self.receiving.load(Ordering::Relaxed),
        }
    }

    /// Closes the connection for further requests if it is open and fits `claim`. Whether it was this call that closed it.
    pub(super) fn claim(&self, claim: Claim) -> bool {
        self.close_if(|state| self.is(claim, state))
    }

    /// The same, whatever it is doing.
    pub(super) fn close(&self) -> bool {
        self.close_if(|_| true)
    }

    fn close_if(&self, fits: impl Fn(u32) -> bool) -> bool {
        let close = |state: u32| (state & CLOSED == 0 && fits(state)).then_some(state | CLOSED);
        self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, close).is_ok()
    }

    /// When a request last began or ended; without one, when the connection began.
    pub(super) fn quiet_since(&self) -> Instant {
        self.began + Duration::from_millis(self.quiet_since.load(Ordering::Relaxed).saturating_sub(1))
    }

    /// A stream was cut because the client took nothing of it: without other requests the connection goes, too.
    pub(super) fn note_stalled(&self) {
        self.is_stalled.store(true, Ordering::Relaxed);
    }

    pub(super) fn read_some(&self) {
        let between_requests = self.requests() == 0
            && self.head_since.load(Ordering::Relaxed) == 0
            && !self.multiplexed.load(Ordering::Relaxed);
        if between_requests {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    pub(super) fn wrote(&self, blocked: bool) {
        let known = self.write_blocked_since.load(Ordering::Relaxed) != 0;
        if blocked != known {
            self.write_blocked_since.store(if blocked { self.now() } else { 0 }, Ordering::Relaxed);
        }
    }

    /// The pause between two looks never exceeds the header timeout, so a head that begins in it is never overlooked.
    pub(super) fn next_action(&self, limits: &Limits) -> WatchdogAction {
        let pause = limits.header_read_timeout.min(limits.write_timeout);
        if self.since(&self.write_blocked_since).is_some_and(|blocked| blocked >= limits.write_timeout) {
            return WatchdogAction::Close(Cut::Write);
        }
        if self.requests() > 0 {
            return WatchdogAction::LookAgain(pause);
        }
        if self.is_stalled.load(Ordering::Relaxed) {
            return WatchdogAction::Close(Cut::Stream);
        }
        let (spent, allowed, reason) = match self.since(&self.head_since) {
            Some(spent) => (spent, limits.header_read_timeout, Cut::Head),
            None => (self.since(&self.quiet_since).unwrap_or_default(), limits.idle_timeout, Cut::Idle),
        };
        match allowed.checked_sub(spent) {
            None | Some(Duration::ZERO) => WatchdogAction::Close(reason),
            Some(left) => WatchdogAction::LookAgain(left.min(pause)),
        }
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
        let left = |seconds| WatchdogAction::LookAgain(Duration::from_secs(seconds));

        let silent = Activity::new();
        assert_eq!(silent.next_action(&limits), left(10));
        after(10).await;
        assert_eq!(silent.next_action(&limits), WatchdogAction::Close(Cut::Head));

        let served = Activity::new();
        assert!(served.begin_request(false));
        served.end_request();
        after(70).await;
        assert_eq!(served.next_action(&limits), left(5), "idle");
        served.read_some();
        after(6).await;
        served.read_some();
        assert_eq!(served.next_action(&limits), left(4), "a byte now and then does not start the head anew");

        let busy = Activity::new();
        assert!(busy.begin_request(false));
        after(1000).await;
        assert_eq!(busy.next_action(&limits), left(10), "a call in progress may take its time");
        busy.wrote(true);
        after(59).await;
        busy.wrote(true);
        after(1).await;
        assert_eq!(busy.next_action(&limits), WatchdogAction::Close(Cut::Write));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_makes_room_begins_no_request_and_one_that_began_one_makes_no_room() {
        let first = Activity::new();
        assert!(first.begin_request(true));
        assert!(!first.claim(Claim::Idle));
        first.end_request();
        assert!(first.claim(Claim::Idle) && !first.claim(Claim::Idle), "once");
        assert!(!first.begin_request(true) && !first.authenticate());

        let second = Activity::new();
        assert!(second.authenticate() && !second.authenticate(), "counted once");
        assert!(!second.claim(Claim::Unauthenticated) && second.claim(Claim::Idle) && second.is_authenticated());

        let third = Activity::new();
        assert!(third.begin_request(true) && third.begin_request(true));
        third.begin_body();
        assert!(!third.fits(Claim::Receiving), "one of its calls may be at a replica");
        third.begin_body();
        assert!(third.fits(Claim::Receiving));
        third.end_body();
        assert!(!third.claim(Claim::Receiving));
    }
}
