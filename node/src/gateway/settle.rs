//! What a call costs in the end: the last stage. The [`ChargeGuard`] holds the reservation from admission to the answer's last byte.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actors::Reservation;
use actors::epp::EngineOutput;
use actors::quota::{Amount, Charge, LimitStanding, Limits, Source};
use tokio::time::Instant;
use tracing::warn;

use super::ceiling::Ceiling;
use super::learnt::Learnt;
use super::record::Record;
use super::usage::Usage;
use crate::observability::{CallMetrics, Metrics};

/// What an admitted call is charged. Dropping it charges what was last observed, once.
pub(super) struct ChargeGuard {
    metrics: Metrics,
    call: Arc<CallMetrics>,
    record: Record,
    /// Gone once settled; absent for calls that cost nothing.
    reservation: Option<Reservation>,
    /// Here once settled.
    limits: Option<Limits>,
    prompt_guess: u64,
    ceiling: Ceiling,
    /// Of each choice: replicas are told to stop there, because a limit is hard.
    output_max: Option<u64>,
    /// How many answers there are.
    choices: u64,
    /// They come at once, at their end.
    is_at_once: bool,
    /// Here while a replica works on the call.
    flight: Option<Flight>,
}

impl ChargeGuard {
    /// The account of an admitted call, with its reservation if it costs anything. `prompt_guess` is what its prompt costs until a
    /// replica says better.
    pub(super) fn open(
        metrics: Metrics,
        call: Arc<CallMetrics>,
        record: Record,
        reservation: Option<Reservation>,
        prompt_guess: u64,
        output_max: Option<u64>,
        ceiling: Ceiling,
    ) -> ChargeGuard {
        call.authorized_calls.inc();
        call.in_flight.inc();
        if let Some(reservation) = &reservation {
            call.reserved.inc_by(reservation.need().total());
        }
        let (limits, choices, is_at_once, flight) = (None, 1, false, None);
        ChargeGuard {
            metrics,
            call,
            record,
            reservation,
            limits,
            prompt_guess,
            ceiling,
            output_max,
            choices,
            is_at_once,
            flight,
        }
    }

    /// The id of the call, as its caller knows it.
    pub(super) fn request_id(&self) -> &str {
        self.record.id()
    }

    /// How many tokens each choice may have at most, if that is bounded.
    pub(super) fn output_max(&self) -> Option<u64> {
        self.output_max
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

    /// Ready once it is noted what the call used. The end of an answer waits for it: whoever has that pays just what it cost.
    pub(super) fn poll_noted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.limits.as_mut().map_or(Poll::Ready(()), |limits| limits.poll_noted(cx))
    }

    /// The call has so many answers. Those that are not streamed come at once, and nobody sees before how far they are.
    pub(super) fn expects(&mut self, choices: u64, is_streamed: bool) {
        (self.choices, self.is_at_once) = (choices.max(1), !is_streamed);
    }

    /// The call is on its way to a replica at the URL `base`, of which this is `learnt`: from now on its prompt costs.
    pub(super) fn sent(&mut self, base: &str, learnt: Arc<Learnt>, engine: EngineOutput) {
        let replica = base.to_owned();
        self.flight = Some(Flight { replica, since: Instant::now(), first: None, learnt, engine });
        self.observe(self.counted(0));
    }

    /// It never reached one.
    pub(super) fn not_sent(&mut self) {
        self.flight = None;
        self.observe(Charge::default());
    }

    /// So many output tokens were produced so far. What a replica says of the prompt replaces what is guessed of it.
    pub(super) fn produced(&mut self, output: u64, prompt: Option<u64>, reported: Option<Usage>) {
        if let Some(flight) = self.flight.as_mut().filter(|flight| output > 0 && flight.first.is_none()) {
            flight.first = Some((Instant::now(), output));
            self.record.streamed();
        }
        if let Some(tokens) = reported.map(|usage| usage.input).or(prompt) {
            self.prompt_guess = tokens;
            if let Some(reservation) = &mut self.reservation {
                self.call.released.inc_by(reservation.know_input(tokens));
            }
        }
        self.observe(reported.map_or(self.counted(output), Usage::charge));
    }

    /// What is charged for so many output tokens while nobody says what the prompt has.
    fn counted(&self, output: u64) -> Charge {
        let amount = Amount::of_call(self.prompt_guess, output);
        Charge { amount, source: Source::Counted, ..Charge::default() }
    }

    fn observe(&mut self, charge: Charge) {
        if let Some(reservation) = &mut self.reservation {
            let elapsed = self.flight.as_ref().map_or(Duration::ZERO, |flight| flight.since.elapsed());
            reservation.cannot_exceed(self.ceiling.after(elapsed, self.choices));
            reservation.observe(charge);
        }
    }

    /// The answer broke off.
    pub(super) fn failed(&self, kind: &'static str) {
        self.record.failed(kind);
    }

    /// Settles with what the replica reported.
    pub(super) fn settle_reported(&mut self, usage: Usage) {
        if let Some(flight) = self.flight.as_ref().filter(|_| self.is_at_once) {
            flight.learnt.answered(usage.output / self.choices, flight.since.elapsed());
        }
        self.settle(usage.charge(), Some(usage.output));
    }

    /// Settles with what was counted: `output` tokens, and the prompt as guessed. `is_absurd`: there was a report, and nobody can
    /// believe it.
    pub(super) fn settle_counted(&mut self, output: u64, is_absurd: bool) {
        self.settle(Charge { is_absurd, ..self.counted(output) }, Some(output));
    }

    /// Settles with so many bytes of text, of which nobody says how many tokens they are, and the prompt as guessed.
    pub(super) fn settle_by_text(&mut self, bytes: u64) {
        let (Some(reservation), Some(flight)) = (&self.reservation, &self.flight) else { return };
        let output = (bytes as f64 / flight.learnt.token_bytes()).ceil() as u64;
        let amount = Amount::of_call(self.prompt_guess, output.min(reservation.need().output));
        self.settle(Charge { amount, source: Source::Estimated, ..Charge::default() }, Some(output));
    }

    /// Settles with the reservation: there was an answer, and nobody knows how large it was.
    pub(super) fn settle_estimated(&mut self, is_absurd: bool) {
        let amount = self.reservation.as_ref().map(Reservation::need).unwrap_or_default();
        self.settle(Charge { amount, source: Source::Estimated, is_absurd, ..Charge::default() }, None);
    }

    /// The caller is gone and the call is not streamed, so it is charged for the time it took, at the pace of the replica: not more than
    /// is reserved. vLLM works on such a call until then.
    fn estimate_by_time(&mut self) {
        let (Some(reservation), Some(flight), true) = (&self.reservation, &self.flight, self.is_at_once) else {
            return;
        };
        let output = flight.learnt.tokens_after(flight.since.elapsed(), self.choices, flight.engine.generated());
        let amount = Amount::of_call(self.prompt_guess, output.min(reservation.need().output));
        self.observe(Charge { amount, source: Source::Estimated, ..Charge::default() });
    }

    /// Notes the pace of a stream that brought so many tokens.
    fn learn_pace(&self, output: u64) {
        if let Some(Flight { since, first: Some((first, tokens)), learnt, .. }) = &self.flight {
            learnt.streamed(*first - *since, output.saturating_sub(*tokens) / self.choices, first.elapsed());
        }
    }

    /// Settles with nothing: no replica did any work.
    pub(super) fn waive(&mut self) {
        if let Some(reservation) = self.reservation.take() {
            self.call.released.inc_by(reservation.need().total());
            self.limits = Some(reservation.settle(Charge::default(), None));
        }
    }

    fn settle(&mut self, charge: Charge, output: Option<u64>) {
        self.observe(charge);
        if let Some(reservation) = self.reservation.take() {
            self.learn_pace(reservation.charge().amount.output);
            self.record_charge(&reservation);
            self.limits = Some(reservation.settle(charge, output));
        }
        self.flight = None;
    }

    /// In metrics, and in the record of calls.
    fn record_charge(&self, reservation: &Reservation) {
        let (charge, reserved) = (reservation.charge(), reservation.need());
        let (tokens, reserved, source) = (charge.amount.total(), reserved.total(), charge.source.name());
        self.call.authorized_hits.inc_by(tokens);
        self.call.settled.inc_by(tokens);
        self.call.released.inc_by(reserved.saturating_sub(tokens));
        self.metrics.settled_by(source);
        self.call.overshoot.inc_by(reservation.overshoot());
        if charge.is_absurd {
            self.tell_of_absurd(reservation);
        }
        if charge != Charge::default() {
            self.record.write(&self.metrics, reservation.permit(), &charge, reserved);
        }
    }

    /// Counts a report that cannot be true, and logs the replica's name now and then.
    fn tell_of_absurd(&self, reservation: &Reservation) {
        let (charge, model) = (reservation.charge(), &*reservation.permit().model().id.name);
        let Charge { amount, beyond, .. } = charge;
        self.metrics.reported_absurdly(model);
        let Some(flight) = self.flight.as_ref().filter(|flight| flight.learnt.is_to_log_absurd()) else { return };
        warn!(
            replica = flight.replica,
            model,
            id = self.record.id(),
            input = amount.input + beyond.input,
            output = amount.output + beyond.output,
            charged_input = amount.input,
            charged_output = amount.output,
            "a replica reported usage that cannot be true; it is recorded, and charged as far as it can be"
        );
    }
}

/// A call on its way.
struct Flight {
    /// The URL of the replica.
    replica: String,
    since: Instant,
    /// When the first tokens of a stream were here, and how many.
    first: Option<(Instant, u64)>,
    /// Of the replica.
    learnt: Arc<Learnt>,
    engine: EngineOutput,
}

impl Drop for ChargeGuard {
    /// The client hung up, or we failed: what was observed is charged (by the reservation's own drop).
    fn drop(&mut self) {
        self.call.in_flight.dec();
        self.estimate_by_time();
        if let Some(reservation) = self.reservation.take() {
            self.learn_pace(reservation.charge().amount.output);
            self.record_charge(&reservation);
        }
    }
}
