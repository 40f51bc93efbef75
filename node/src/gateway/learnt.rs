//! What this node has learnt of one replica from the answers of its calls. Nothing depends on it: where it is not known, an answer waits
//! for a moment or an estimate is coarser.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actors::epp::Generated;
use bytes::Bytes;
use tokio::time::Instant;

/// Bytes of text in a token, as long as nothing has been learnt: few models have more in the mean.
const TOKEN_BYTES: f64 = 6.0;
/// Tokens a second of one answer, as long as nothing has been learnt.
const RATE: f64 = 100.0;
/// How far one answer moves what is learnt from all.
const STEP: f64 = 0.2;
/// The same for an answer that came more slowly than usual: its caller may have read it slowly.
const STEP_DOWN: f64 = 0.02;
/// A shorter answer teaches nothing.
const TOKENS_MIN: u64 = 16;
/// So often the log says that a replica reports nonsense, however many calls it answers.
const ABSURD_LOGGED_EVERY: Duration = Duration::from_secs(10);

/// See the module. Shared by the calls of one replica.
#[derive(Default)]
pub(super) struct Learnt(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    fingerprint: Option<Fingerprint>,
    token_bytes: Option<f64>,
    pace: Option<Pace>,
    absurd_logged: Option<Instant>,
}

/// What a replica's streams say of its `system_fingerprint`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fingerprint {
    /// They have none.
    Absent,
    /// As JSON text.
    Is(Bytes),
}

/// How fast a replica answers one call.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Pace {
    /// From sending a call to its first token.
    first: Duration,
    /// Tokens a second from there.
    rate: f64,
}

impl Pace {
    /// Of a replica that has answered nothing yet: what its engine generated for each of its calls while one was in flight.
    fn of(elapsed: Duration, generated: Option<Generated>) -> Pace {
        let measured = generated.and_then(|generated| {
            let seconds = elapsed.checked_sub(generated.age)?.as_secs_f64();
            let each = generated.tokens as f64 / generated.running.max(1.0);
            (seconds > 0.0 && each >= TOKENS_MIN as f64).then_some(each / seconds)
        });
        Pace { first: Duration::ZERO, rate: measured.unwrap_or(RATE) }
    }
}

impl Learnt {
    /// Whether the log should say that the replica has just reported nonsense.
    pub(super) fn is_to_log_absurd(&self) -> bool {
        let now = Instant::now();
        let mut inner = self.inner();
        let is_due = inner.absurd_logged.is_none_or(|logged| now - logged >= ABSURD_LOGGED_EVERY);
        if is_due {
            inner.absurd_logged = Some(now);
        }
        is_due
    }

    /// As of the last stream that told, if one did.
    pub(super) fn fingerprint(&self) -> Option<Fingerprint> {
        self.inner().fingerprint.clone()
    }

    /// A stream has told it.
    pub(super) fn has_fingerprint(&self, fingerprint: Fingerprint) {
        self.inner().fingerprint = Some(fingerprint);
    }

    /// How many bytes of text a token has in the mean, as streams write them.
    pub(super) fn token_bytes(&self) -> f64 {
        self.inner().token_bytes.unwrap_or(TOKEN_BYTES)
    }

    /// An answer of `tokens` had so many bytes of text.
    pub(super) fn had_text(&self, bytes: u64, tokens: u64) {
        if tokens >= TOKENS_MIN && bytes > 0 {
            let seen = bytes as f64 / tokens as f64;
            let mut inner = self.inner();
            inner.token_bytes = Some(inner.token_bytes.map_or(seen, |known| known + (seen - known) * STEP));
        }
    }

    /// A stream began `first` after its call was sent, and brought so many more tokens within `rest`.
    pub(super) fn streamed(&self, first: Duration, tokens: u64, rest: Duration) {
        if tokens >= TOKENS_MIN && !rest.is_zero() {
            self.moves(first, tokens as f64 / rest.as_secs_f64());
        }
    }

    /// A call that is not streamed was answered with so many tokens after `elapsed`, in each of its choices.
    pub(super) fn answered(&self, tokens: u64, elapsed: Duration) {
        let first = self.inner().pace.map_or(Duration::ZERO, |pace| pace.first.min(elapsed / 2));
        if tokens >= TOKENS_MIN && elapsed > first {
            self.moves(first, tokens as f64 / (elapsed - first).as_secs_f64());
        }
    }

    fn moves(&self, first: Duration, rate: f64) {
        let mut inner = self.inner();
        let pace = inner.pace.get_or_insert(Pace { first, rate });
        let step = if rate < pace.rate { STEP_DOWN } else { STEP };
        pace.rate += (rate - pace.rate) * step;
        pace.first = pace.first.mul_f64(1.0 - STEP) + first.mul_f64(STEP);
    }

    /// How many tokens the answers of a call have together, probably, so long after it was sent. The engine says what it has `generated`
    /// meanwhile, for all of its calls: the answers have no more.
    pub(super) fn tokens_after(&self, elapsed: Duration, choices: u64, generated: Option<Generated>) -> u64 {
        let pace = self.inner().pace.unwrap_or_else(|| Pace::of(elapsed, generated));
        let tokens = |time: Duration| time.as_secs_f64() * pace.rate * choices as f64;
        let probable = tokens(elapsed.saturating_sub(pace.first)) as u64;
        match generated {
            Some(Generated { tokens: told, age, .. }) => {
                probable.min(told.saturating_add(tokens(age.min(elapsed)) as u64))
            }
            None => probable,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_reports_nonsense_is_logged_now_and_then() {
        let learnt = Learnt::default();
        let mut logged = 0;
        for _ in 0..300 {
            logged += u32::from(learnt.is_to_log_absurd());
            tokio::time::advance(SECOND / 10).await;
        }
        assert_eq!(logged, 3, "in 30 s");
    }

    #[test]
    fn the_pace_of_a_replica_is_learnt_from_its_answers_and_hardly_from_slow_readers() {
        let learnt = Learnt::default();
        let after = |seconds: u32| learnt.tokens_after(seconds * SECOND, 1, None);
        assert_eq!(after(2), 200);
        learnt.streamed(SECOND, 400, 2 * SECOND);
        assert_eq!([1, 2, 3].map(after), [0, 200, 400]);
        for _ in 0..5 {
            learnt.streamed(SECOND, 20, 20 * SECOND);
        }
        assert!(after(2) > 175);
        for _ in 0..20 {
            learnt.answered(1000, 3 * SECOND);
        }
        assert!((490..=500).contains(&after(2)), "{}", after(2));
        // An answer of a few tokens says nothing.
        learnt.streamed(SECOND, 2, Duration::from_nanos(1));
        assert!(after(2) <= 500);
    }

    #[test]
    fn an_answer_has_no_more_tokens_than_its_engine_has_generated() {
        let engine = |tokens, running, millis| Some(Generated { tokens, running, age: Duration::from_millis(millis) });
        let learnt = Learnt::default();
        let after = |choices, generated| learnt.tokens_after(4 * SECOND, choices, generated);
        // Nothing is known: the engine's own rate, of each of its calls, and what it may have done since it was asked.
        assert_eq!(after(1, engine(600, 1.0, 1_000)), 800);
        assert_eq!(after(1, engine(600, 4.0, 1_000)), 200);
        assert_eq!(after(2, engine(600, 2.0, 1_000)), 800);
        assert_eq!(after(1, engine(0, 0.0, 500)), 50, "it hangs");
        assert_eq!(after(1, None), 400);
        learnt.streamed(SECOND, 400, 2 * SECOND);
        assert_eq!(after(1, engine(10_000, 40.0, 500)), 600);
        assert_eq!(after(1, engine(100, 40.0, 500)), 200);
        assert_eq!(after(1, engine(0, 1.0, 500)), 100, "it hangs");
    }

    #[test]
    fn the_size_of_tokens_is_learnt_from_answers_that_are_long_enough() {
        let learnt = Learnt::default();
        assert_eq!(learnt.token_bytes(), TOKEN_BYTES);
        learnt.had_text(60, 3);
        assert_eq!(learnt.token_bytes(), TOKEN_BYTES);
        learnt.had_text(400, 100);
        assert_eq!(learnt.token_bytes(), 4.0);
        learnt.had_text(900, 100);
        assert_eq!(learnt.token_bytes(), 5.0);
    }
}
