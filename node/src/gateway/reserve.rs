//! Whether tokens are left: holds what the prompt may cost and the probable output in every limit of the permit.
//!
//! What the prompt may cost is its bound. Where that is refused and the real prompt could still fit, or where it would have to wait for
//! calls in progress, a replica is asked for its exact size, and the call is judged by that. So a hard limit can be used up to less than
//! one call's real use, and calls that fit together are not one after the other.

use actors::quota::{Amount, LimitStanding};
use actors::{Permit, QuotaRefusal, Reservation};
use raft::resources::{Enforcement, Limit, Unit};

use super::body::CallBody;
use super::ceiling::Ceiling;
use super::count::{Counter, Place};
use super::endpoint::Endpoint;
use super::estimate::PromptEstimate;
use super::record::Record;
use super::refusal::Refusal;
use super::settle::ChargeGuard;
use crate::Context;

/// Under a hard limit an answer of a call that asks for no size may have so many tokens, if there are so many.
const HARD_MIN: u64 = 4096;

/// Reserves what the call may need; one reservation serves all of its attempts. Calls that cost nothing get a charge guard without one.
pub(super) async fn reserve(
    context: &Context,
    counter: &Counter,
    permit: &Permit,
    endpoint: &Endpoint,
    body: &CallBody,
    prompt: PromptEstimate,
    record: Record,
) -> Result<ChargeGuard, Refusal> {
    let call = context.metrics.of(permit, &context.cluster.view());
    if !endpoint.is_metered() {
        return Ok(ChargeGuard::open(context.metrics.clone(), call, record, None, 0, None, Ceiling::default()));
    }
    let is_hard = is_hard(permit) && endpoint.generates();
    let output = output(context, permit, endpoint, body, is_hard);
    let output_min = if is_hard { output.min(body.choices) } else { output };
    let entry = Entry { context, permit, endpoint, body, prompt, output, output_min };
    let held = entry.held(counter).await;
    match held {
        Ok(Held { reservation, prompt_tokens }) => {
            let output_max = is_hard.then(|| reservation.need().output / body.choices.max(1));
            let ceiling = Ceiling::of(endpoint, body, prompt);
            Ok(ChargeGuard::open(
                context.metrics.clone(),
                call,
                record,
                Some(reservation),
                prompt_tokens,
                output_max,
                ceiling,
            ))
        }
        Err(Short { refusal, tokens }) => {
            let reason = match &refusal {
                QuotaRefusal::Exhausted { .. } => "exhausted",
                QuotaRefusal::Unavailable => "unavailable",
                QuotaRefusal::Changed => "changed",
            };
            context.metrics.denied(permit, reason, tokens);
            if matches!(refusal, QuotaRefusal::Exhausted { .. }) {
                call.limited_calls.inc();
                context.actors.quota.note_limited(permit);
            }
            Err(refusal.into())
        }
    }
}

/// A call that wants tokens.
struct Entry<'a> {
    context: &'a Context,
    permit: &'a Permit,
    endpoint: &'a Endpoint,
    body: &'a CallBody,
    prompt: PromptEstimate,
    /// Tokens it will probably generate.
    output: u64,
    /// With how many it would do: fewer where a limit is hard, and then it is told to stop there.
    output_min: u64,
}

/// What it got, and the best knowledge of its prompt's tokens.
struct Held {
    reservation: Reservation,
    prompt_tokens: u64,
}

/// Why it got nothing, and how many tokens it wanted.
struct Short {
    refusal: QuotaRefusal,
    tokens: u64,
}

impl Entry<'_> {
    async fn held(&self, counter: &Counter) -> Result<Held, Short> {
        if self.is_worth_counting_first()
            && let Some(place) = counter.place_now()
        {
            // It is not asked for twice.
            return match self.count(place).await {
                Some(exact) => self.hold(exact, exact).await,
                None => self.by_bound().await,
            };
        }
        match self.by_bound().await {
            Err(short) if self.could_fit(&short.refusal) => self.by_count(counter, short).await,
            held => held,
        }
    }

    /// Whether calls in progress hold what the bound needs, and the call may fit beside them, or after one of them.
    fn is_worth_counting_first(&self) -> bool {
        let need = Amount::of_call(self.prompt.bound, self.output);
        self.endpoint.render_path().is_some()
            && self.context.actors.quota.contended(self.permit, need).is_some_and(|standing| {
                standing.unit.counts_input() && has_room(&standing, self.prompt.guess, self.output_min)
            })
    }

    async fn count(&self, place: Place<'_>) -> Option<u64> {
        let may_tokenize = !self.prompt.has_media && !has_hard_limit(self.permit);
        place.count(self.context, self.permit, self.endpoint, self.body, may_tokenize).await
    }

    async fn by_bound(&self) -> Result<Held, Short> {
        self.hold(self.prompt.bound, self.prompt.guess).await
    }

    /// The second judgement, by the exact size of the prompt. Without a count the `first` one stands.
    async fn by_count(&self, counter: &Counter, first: Short) -> Result<Held, Short> {
        let Some(place) = counter.place(self.context, self.permit).await else { return Err(first) };
        let mut first = first;
        if place.was_waited_for {
            // Those who were counted before may have left nothing that is worth a count.
            first = match self.by_bound().await {
                Err(short) if self.could_fit(&short.refusal) => short,
                held => return held,
            };
        }
        let Some(exact) = self.count(place).await else { return Err(first) };
        match self.hold(exact, exact).await {
            // That nobody could be asked this time does not make the first answer untrue.
            Err(Short { refusal: QuotaRefusal::Unavailable | QuotaRefusal::Changed, .. }) => Err(first),
            judged => judged,
        }
    }

    async fn hold(&self, prompt_max: u64, prompt_tokens: u64) -> Result<Held, Short> {
        let mut output = self.output;
        loop {
            let need = Amount::of_call(prompt_max, output);
            let refusal = match self.context.actors.quota.reserve(self.permit, need).await {
                Ok(reservation) => match noted(reservation).await {
                    Ok(reservation) => return Ok(Held { reservation, prompt_tokens }),
                    Err(refusal) => return Err(Short { refusal, tokens: need.total() }),
                },
                Err(refusal) => refusal,
            };
            // What there was room for a moment ago, then the least that will do.
            let fewer = match room(&refusal, prompt_max) {
                Some(room) if output == self.output && room < output => room.max(self.output_min),
                Some(_) => self.output_min,
                None => output,
            };
            if fewer == output {
                return Err(Short { refusal, tokens: need.total() });
            }
            output = fewer;
        }
    }

    /// Whether the call may fit although its bound does not, and a replica can be asked.
    fn could_fit(&self, refusal: &QuotaRefusal) -> bool {
        self.endpoint.render_path().is_some() && could_fit(refusal, self.prompt.guess, self.output_min)
    }
}

/// The reservation, once it is noted: only then may the call be sent.
async fn noted(mut reservation: Reservation) -> Result<Reservation, QuotaRefusal> {
    reservation.noted().await?;
    Ok(reservation)
}

/// Whether a limit that refused a bound may have room for the real thing.
fn could_fit(refusal: &QuotaRefusal, prompt_guess: u64, output: u64) -> bool {
    let QuotaRefusal::Exhausted { standing, retry_after, .. } = refusal else { return false };
    // Else calls in progress hold the tokens, and the same call can be expected to pass soon.
    let is_spent = *retry_after >= standing.resets_in;
    // A count of the prompt changes nothing for a limit that does not count prompts.
    is_spent && standing.unit.counts_input() && has_room(standing, prompt_guess, output)
}

/// Whether a call may fit into what is not used of a limit. The guess may be twice the truth, hardly more: with less than half of it the
/// call is hopeless, and a caller who asks again and again costs no replica anything.
fn has_room(standing: &LimitStanding, prompt_guess: u64, output: u64) -> bool {
    let least = standing.share_of(Amount::of_call(prompt_guess / 2, output));
    standing.limit.saturating_sub(standing.used) >= least
}

/// What output there is room for in the hard limit that refused a call, beside its prompt.
fn room(refusal: &QuotaRefusal, prompt_max: u64) -> Option<u64> {
    let QuotaRefusal::Exhausted { standing, .. } = refusal else { return None };
    match standing.unit {
        Unit::Total if standing.is_hard => Some(standing.remaining.saturating_sub(prompt_max)),
        Unit::Output if standing.is_hard => Some(standing.remaining),
        Unit::Cost if standing.is_hard => {
            let prompt = standing.share_of(Amount::of_call(prompt_max, 0));
            Some(standing.remaining.saturating_sub(prompt).checked_div(standing.price.output).unwrap_or(u64::MAX))
        }
        Unit::Total | Unit::Output | Unit::Input | Unit::Requests | Unit::InProgress | Unit::Cost => None,
    }
}

/// Whether a limit must never be passed.
fn has_hard_limit(permit: &Permit) -> bool {
    let counts_tokens = |limit: &Limit| limit.unit.counts_input() || limit.unit.counts_output();
    let is_hard = |limit: &Limit| limit.enforcement == Enforcement::Hard && counts_tokens(limit);
    permit.subscription().limits.iter().any(is_hard)
}

/// Whether a limit that counts outputs must never be passed.
fn is_hard(permit: &Permit) -> bool {
    let is_hard = |limit: &Limit| limit.enforcement == Enforcement::Hard && limit.unit.counts_output();
    permit.subscription().limits.iter().any(is_hard)
}

/// The output tokens a call will probably have, all of its choices together. Where a limit is hard they are the most it can have: what the
/// caller asked for, else a multiple of what such calls have.
fn output(context: &Context, permit: &Permit, endpoint: &Endpoint, body: &CallBody, is_hard: bool) -> u64 {
    if !endpoint.generates() {
        return 0;
    }
    let quota = &context.actors.quota;
    if is_hard {
        let each = body.max_tokens.unwrap_or_else(|| HARD_MIN.max(4 * quota.output_estimate(permit, None)));
        return each.saturating_mul(body.choices);
    }
    match body.max_tokens {
        Some(each) => quota.output_estimate(permit, Some(each.saturating_mul(body.choices))),
        None => quota.output_estimate(permit, None).saturating_mul(body.choices),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actors::routing::Name;
    use raft::Timestamp;
    use raft::resources::{LimitScope, Price};

    use super::*;

    fn exhausted(used: u64, retry_after: Duration) -> QuotaRefusal {
        let standing = LimitStanding {
            unit: Unit::Total,
            scope: LimitScope::User,
            is_hard: false,
            price: Price::default(),
            limit: 1000,
            window: "1h".to_owned(),
            window_seconds: 3600,
            used,
            reserved: 0,
            remaining: 1000 - used,
            debt: 0,
            resets_in: Duration::from_secs(60),
            resets_at: Timestamp(0),
        };
        QuotaRefusal::Exhausted {
            subscription: Name::new("a", "b"),
            standing,
            needed: 500,
            retry_after,
            silent: Vec::new(),
        }
    }

    #[test]
    fn a_count_is_worth_asking_for_only_where_it_may_change_the_answer() {
        let (end, soon) = (Duration::from_secs(60), Duration::from_secs(1));
        let table = [
            ("room for all that is guessed", exhausted(900, end), 80, 20, true),
            ("room for half of it", exhausted(940, end), 80, 20, true),
            ("not even that", exhausted(941, end), 80, 20, false),
            ("nothing left", exhausted(1000, end), 1, 1, false),
            ("calls in progress hold it", exhausted(500, soon), 80, 20, false),
            ("an output beyond everything", exhausted(0, end), 80, u64::MAX, false),
            ("the ledger is away", QuotaRefusal::Unavailable, 0, 0, false),
            ("the limits have changed", QuotaRefusal::Changed, 0, 0, false),
        ];
        for (what, refusal, guess, output, expected) in table {
            assert_eq!(could_fit(&refusal, guess, output), expected, "{what}");
        }
    }
}
