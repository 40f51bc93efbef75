//! What a call costs in the end: the last stage. The [`Bill`] holds the reservation from admission to the answer's last byte.

use std::sync::Arc;

use actors::Reservation;
use actors::quota::{Amount, LimitStanding, Limits};
use tracing::debug;

use super::usage::Usage;
use crate::observability::{CallMetrics, Metrics};

/// Where the tokens of a settled call are known from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// The replica said so.
    Reported,
    /// Counted from what was streamed.
    Counted,
    /// Nothing was to be counted: the reservation.
    Estimated,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Source::Reported => "reported",
            Source::Counted => "counted",
            Source::Estimated => "estimated",
        }
    }
}

/// An admitted call's account. Dropping it charges what was last observed, once.
pub(super) struct Bill {
    metrics: Metrics,
    call: Arc<CallMetrics>,
    /// Gone once settled; absent for calls that cost nothing.
    reservation: Option<Reservation>,
    /// Here once settled.
    limits: Option<Limits>,
    prompt_guess: u64,
    observed: Amount,
}

impl Bill {
    /// The account of an admitted call, with its reservation if it costs anything. `prompt_guess` is what its prompt costs until a
    /// replica says better.
    pub(super) fn open(
        metrics: Metrics,
        call: Arc<CallMetrics>,
        reservation: Option<Reservation>,
        prompt_guess: u64,
    ) -> Bill {
        call.authorized_calls.inc();
        call.in_flight.inc();
        if let Some(reservation) = &reservation {
            call.reserved.inc_by(reservation.need().total());
        }
        Bill { metrics, call, reservation, limits: None, prompt_guess, observed: Amount::default() }
    }

    /// Where the limits stand, this call counted as used: what it holds, or what it cost once that is settled. Empty for calls that
    /// cost nothing.
    pub(super) fn standing(&self) -> Vec<LimitStanding> {
        match (&self.reservation, &self.limits) {
            (Some(reservation), _) => reservation.standing(),
            (None, Some(limits)) => limits.standing(),
            (None, None) => Vec::new(),
        }
    }

    /// The call is on its way to a replica: from now on its prompt costs.
    pub(super) fn sent(&mut self) {
        self.observe(Amount::of_call(self.prompt_guess, 0));
    }

    /// It never reached one.
    pub(super) fn not_sent(&mut self) {
        self.observe(Amount::default());
    }

    /// So many output tokens were produced so far. `reported` replaces what is guessed of the prompt.
    pub(super) fn produced(&mut self, output: u64, reported: Option<Usage>) {
        self.observe(reported.map_or(Amount::of_call(self.prompt_guess, output), Usage::amount));
    }

    fn observe(&mut self, used: Amount) {
        if let Some(reservation) = &mut self.reservation
            && used != self.observed
        {
            self.observed = used;
            reservation.observe(used);
        }
    }

    /// Settles with what the replica reported.
    pub(super) fn settle_reported(&mut self, usage: Usage) {
        self.settle(Source::Reported, usage.amount(), Some(usage.output));
    }

    /// Settles with what was counted: `output` tokens, and the prompt as guessed.
    pub(super) fn settle_counted(&mut self, output: u64) {
        self.settle(Source::Counted, Amount::of_call(self.prompt_guess, output), Some(output));
    }

    /// Settles with the reservation: there was an answer, and nobody knows how large it was.
    pub(super) fn settle_estimated(&mut self) {
        let reserved = self.reservation.as_ref().map(Reservation::need).unwrap_or_default();
        self.settle(Source::Estimated, reserved, None);
    }

    /// Settles with nothing: no replica did any work.
    pub(super) fn waive(&mut self) {
        if let Some(reservation) = self.reservation.take() {
            self.call.released.inc_by(reservation.need().total());
            self.limits = Some(reservation.settle(Amount::default(), None));
        }
    }

    fn settle(&mut self, source: Source, used: Amount, output: Option<u64>) {
        if let Some(reservation) = self.reservation.take() {
            self.book(source, used, reservation.need());
            self.limits = Some(reservation.settle(used, output));
        }
    }

    fn book(&self, source: Source, used: Amount, reserved: Amount) {
        let (tokens, reserved) = (used.total(), reserved.total());
        self.call.authorized_hits.inc_by(tokens);
        self.call.settled.inc_by(tokens);
        self.call.released.inc_by(reserved.saturating_sub(tokens));
        self.metrics.settled_by(source.name());
        debug!(tokens, reserved, source = source.name(), "settled");
    }
}

impl Drop for Bill {
    /// The client hung up, or we failed: what was observed is charged (by the reservation's own drop).
    fn drop(&mut self) {
        self.call.in_flight.dec();
        if let Some(reservation) = self.reservation.take() {
            self.book(Source::Counted, self.observed, reservation.need());
        }
    }
}
