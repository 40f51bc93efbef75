//! The state of one replica: whether it gets calls, and if not, for which reasons. Pure; time is an argument.
//!
//! | reason | begins | ends | without any other replica |
//! |---|---|---|---|
//! | down | two probes fail, or nothing listens there | a good probe | gets no calls |
//! | unreachable | three connections in a row fail | a trial call connects | gets no calls |
//! | hung | calls are in flight and nothing has moved for 10 s | something moves | gets no calls |
//! | ejected | its answers are worse than its peers', or one says that its engine died | a trial call is answered | gets calls (panic routing) |
//!
//! A replica that said that it is busy still gets calls; for a second other replicas come first.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::half_open::HalfOpen;

/// So many connections that fail in a row make a replica unreachable.
const CONNECT_FAILURES_MAX: u32 = 3;

/// How long a busy replica comes after others.
const BUSY_FOR: Duration = Duration::from_secs(1);

/// Whether calls may go to a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Admission {
    /// Yes.
    Free,
    /// Yes, and better to another one.
    Busy,
    /// One, to see whether it works again.
    Trial,
    /// Only if no other replica takes calls.
    Ejected,
    /// No.
    Out,
}

/// What is known of one replica.
#[derive(Clone, Debug)]
pub(super) struct ReplicaState {
    /// Why probes, or a refused connection, keep calls away.
    down: Option<String>,
    /// In a row.
    connect_failures: u32,
    unreachable: Option<HalfOpen>,
    hung: Option<HalfOpen>,
    /// Why its answers keep calls away.
    ejected: Option<(String, HalfOpen)>,
    busy_until: Option<Instant>,
}

/// The state in one word, with its reason: what is logged and shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Status {
    /// It gets calls.
    Ready,
    /// Probes fail, or nothing listens at its address; why.
    Down(String),
    /// Connections fail although probes succeed.
    Unreachable,
    /// Calls are in flight, and its engine does nothing.
    Hung,
    /// Its answers are worse than its peers', or its engine says that it died; how.
    Ejected(String),
}

impl Status {
    /// Every name that [`Status::name`] has.
    pub const NAMES: [&'static str; 5] = ["ready", "down", "unreachable", "hung", "ejected"];

    /// One word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Status::Ready => "ready",
            Status::Down(_) => "down",
            Status::Unreachable => "unreachable",
            Status::Hung => "hung",
            Status::Ejected(_) => "ejected",
        }
    }
}

impl fmt::Display for Status {
    /// The reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Ready => f.write_str("it gets calls"),
            Status::Down(reason) | Status::Ejected(reason) => f.write_str(reason),
            Status::Unreachable => f.write_str("connections for calls failed in a row"),
            Status::Hung => f.write_str("calls are in flight, and for 10 s no token and no counter has moved"),
        }
    }
}

impl ReplicaState {
    /// Of a replica that was not probed yet.
    pub(super) fn new() -> ReplicaState {
        let down = Some("not probed yet".to_owned());
        ReplicaState { down, connect_failures: 0, unreachable: None, hung: None, ejected: None, busy_until: None }
    }

    pub(super) fn status(&self) -> Status {
        if let Some(reason) = &self.down {
            Status::Down(reason.clone())
        } else if self.unreachable.is_some() {
            Status::Unreachable
        } else if self.hung.is_some() {
            Status::Hung
        } else {
            match &self.ejected {
                None => Status::Ready,
                Some((reason, _)) => Status::Ejected(reason.clone()),
            }
        }
    }

    /// Whether it is ready, was not busy, and no connection has failed since the last one that worked.
    pub(super) fn is_clean(&self) -> bool {
        self.connect_failures == 0 && self.busy_until.is_none() && self.status() == Status::Ready
    }

    pub(super) fn is_down(&self) -> bool {
        self.down.is_some()
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.is_some()
    }

    pub(super) fn admission(&self, now: Instant) -> Admission {
        let is_shut = |pause: &Option<HalfOpen>| pause.as_ref().is_some_and(|pause| !pause.has_trial(now));
        if self.down.is_some() || is_shut(&self.unreachable) || is_shut(&self.hung) {
            return Admission::Out;
        }
        match &self.ejected {
            Some((_, pause)) if !pause.has_trial(now) => Admission::Ejected,
            None if self.unreachable.is_none() && self.hung.is_none() => match self.busy_until {
                Some(until) if now < until => Admission::Busy,
                Some(_) | None => Admission::Free,
            },
            Some(_) | None => Admission::Trial,
        }
    }

    // --- Trials ---

    fn pauses(&mut self) -> impl Iterator<Item = &mut HalfOpen> {
        let ejected = self.ejected.as_mut().map(|(_, pause)| pause);
        [self.unreachable.as_mut(), self.hung.as_mut(), ejected].into_iter().flatten()
    }

    /// A trial call is on its way.
    pub(super) fn start_trial(&mut self) {
        self.pauses().for_each(HalfOpen::start_trial);
    }

    /// The trial has shown nothing.
    pub(super) fn end_trial(&mut self) {
        self.pauses().for_each(HalfOpen::end_trial);
    }

    /// The trial was answered well.
    pub(super) fn pass_trial(&mut self) {
        self.ejected = None;
        self.end_trial();
    }

    /// The trial's answer was bad.
    pub(super) fn fail_trial(&mut self, now: Instant) {
        self.end_trial();
        if let Some((_, pause)) = &mut self.ejected {
            pause.fail_trial(now);
        }
    }

    // --- Probes ---

    /// A probe found it good. `is_new`: its process may be another one.
    pub(super) fn comes_up(&mut self, is_new: bool) {
        if is_new {
            *self = ReplicaState::new();
        }
        self.down = None;
    }

    /// A probe failed, or nothing listens there.
    pub(super) fn goes_down(&mut self, reason: String) {
        self.down = Some(reason);
    }

    /// Its engine works.
    pub(super) fn moves(&mut self) {
        self.hung = None;
    }

    /// Its engine does nothing although calls are in flight.
    pub(super) fn hangs(&mut self, now: Instant) {
        self.hung.get_or_insert_with(|| HalfOpen::long(now)).postpone(now);
    }

    // --- Calls ---

    /// A connection was there, whatever came through it.
    pub(super) fn connects(&mut self, now: Instant) {
        self.connect_failures = 0;
        self.unreachable = None;
        self.busy_until.take_if(|until| now >= *until);
    }

    /// It said that it takes no calls just now.
    pub(super) fn is_busy(&mut self, now: Instant) {
        self.busy_until = Some(now + BUSY_FOR);
    }

    /// There was no connection for a call.
    pub(super) fn fails_to_connect(&mut self, is_trial: bool, now: Instant) {
        self.connect_failures = self.connect_failures.saturating_add(1);
        if is_trial {
            self.end_trial();
        }
        match &mut self.unreachable {
            // Calls that were under way when the pause began say nothing new.
            Some(pause) if is_trial => pause.fail_trial(now),
            Some(_) => {}
            None if self.connect_failures >= CONNECT_FAILURES_MAX => self.unreachable = Some(HalfOpen::new(now)),
            None => {}
        }
    }

    /// Its answers keep calls away from it.
    pub(super) fn eject(&mut self, reason: String, now: Instant) {
        self.ejected.get_or_insert_with(|| (reason, HalfOpen::new(now)));
    }
}

#[cfg(test)]
mod tests;
