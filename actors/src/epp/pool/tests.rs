use std::time::Duration;

use super::*;
use crate::epp::{PrefixHashes, Status};
use crate::probe::Motion;

const A: &str = "http://a:8000";
const B: &str = "http://b:8000";
const C: &str = "http://c:8000";

/// The pool of `before` with the replicas at `urls`; all of them are up.
fn pool_of(before: &Pool, urls: &[&str], first_id: u64) -> Arc<Pool> {
    let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
    let mut next = first_id;
    let pool = before.with_replicas(&urls, || {
        next += 1;
        ReplicaId(next - 1)
    });
    pool.replicas.iter().for_each(|replica| replica.comes_up(true));
    Arc::new(pool)
}

fn pool(urls: &[&str]) -> Arc<Pool> {
    pool_of(&Pool::empty(Name::new("llm", "qwen"), 7), urls, 1)
}

/// The shape of a call of caller 1.
fn shape(prefix: &PrefixHashes) -> CallShape<'_> {
    CallShape { prefix, prompt_tokens: 1, caller: CallerId(1), is_for_engine: true }
}

/// Where a call with `prompt` would go first, second, and so on.
fn order(pool: &Arc<Pool>, prompt: &[u8]) -> Vec<String> {
    let prefix = PrefixHashes::of("qwen", "", prompt);
    let Ok(mut ranking) = pool.rank(&shape(&prefix)) else { return Vec::new() };
    std::iter::from_fn(|| ranking.next_route().ok()).map(|route| route.base().to_owned()).collect()
}

/// Where a call with `prompt` goes.
fn best(pool: &Arc<Pool>, prompt: &[u8]) -> String {
    let prefix = PrefixHashes::of("qwen", "", prompt);
    let route = pool.rank(&shape(&prefix)).and_then(|mut ranking| ranking.next_route());
    route.map_or_else(|none| format!("{none:?}"), |route| route.base().to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_ranking_has_every_replica_that_is_up_once() {
    let pool = pool(&[A, B, C]);
    pool.replicas[1].goes_down("connection refused".to_owned());
    let mut order = order(&pool, b"");
    order.sort();
    assert_eq!(order, [A, C]);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_goes_down_after_it_was_ranked_is_passed_over() {
    let pool = pool(&[A, B]);
    let prefix = PrefixHashes::default();
    let mut ranking = pool.rank(&shape(&prefix)).unwrap();
    pool.replicas[0].goes_down("connection refused".to_owned());
    assert_eq!(ranking.next_route().unwrap().base(), B);
    assert_eq!(ranking.next_route().unwrap_err(), NoReplica::Exhausted);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_changes_keeps_what_it_knows_of_the_replicas_that_stay() {
    let before = pool(&[A, B]);
    let prompt = vec![b'x'; 4096];
    let first = best(&before, &prompt);
    let (stays, goes) = if first == A { (A, B) } else { (B, A) };
    let after = pool_of(&before, &[C, stays], 10);
    let ids = |pool: &Pool| pool.replicas.iter().map(|replica| (replica.url.clone(), replica.id)).collect::<Vec<_>>();
    let id = ids(&before).into_iter().find(|(url, _)| url == stays).unwrap().1;
    assert_eq!(ids(&after), [(C.to_owned(), ReplicaId(10)), (stays.to_owned(), id)]);
    for _ in 0..20 {
        assert_eq!(best(&after, &prompt), stays, "the prompt is cached there");
    }
    // One that has left and comes back is another replica, with an empty cache.
    let again = pool_of(&pool_of(&after, &[C], 20), &[C, goes], 20);
    assert_eq!(ids(&again)[1], (goes.to_owned(), ReplicaId(20)));
}

// === How calls went ===

impl Pool {
    /// Calls of `caller` that end at the replica at `index`.
    fn calls(&self, caller: u64, index: usize, outcomes: &[Outcome]) {
        for outcome in outcomes {
            self.note(&self.replicas[index], CallerId(caller), false, *outcome, Instant::now());
        }
    }

    fn statuses(&self) -> Vec<&'static str> {
        self.replicas.iter().map(|replica| replica.status().name()).collect()
    }
}

/// Callers 1 and 2 find that the replicas at `ill` fail and the others do not.
fn fails_everybody(pool: &Pool, ill: &[usize]) {
    for caller in [1, 2] {
        for index in (0..pool.replicas.len()).filter(|index| !ill.contains(index)) {
            pool.calls(caller, index, &[Outcome::Answered; 3]);
        }
    }
    for index in ill {
        for caller in [1, 2] {
            pool.calls(caller, *index, &[Outcome::Failed; 2]);
        }
    }
}

/// What callers do at a pool of three, and the statuses of its replicas after it.
type Case<'a> = (&'a str, fn(&Pool), [&'a str; 3]);

#[tokio::test(start_paused = true)]
async fn a_replica_is_out_for_what_only_it_does_to_several_callers() {
    const READY: &str = "ready";
    let table: &[Case<'_>] = &[
        ("nothing", |_| {}, [READY; 3]),
        (
            "one caller's poison at every replica",
            |pool| (0..300).for_each(|at| pool.calls(1, at % 3, &[Outcome::Failed])),
            [READY; 3],
        ),
        (
            "one caller's poison at one replica, among good calls of all",
            |pool| {
                pool.calls(1, 0, &[Outcome::Failed; 50]);
                (0..9).for_each(|at| pool.calls(at % 2 + 1, at as usize % 3, &[Outcome::Answered]));
                pool.calls(1, 0, &[Outcome::Failed; 50]);
            },
            [READY; 3],
        ),
        (
            "every call gets 503",
            |pool| (0..9).for_each(|at| pool.calls(at, at as usize % 3, &[Outcome::Busy])),
            [READY; 3],
        ),
        ("one replica fails everybody", |pool| fails_everybody(pool, &[1]), [READY, "ejected", READY]),
        ("most replicas fail everybody", |pool| fails_everybody(pool, &[0, 1]), ["ejected", READY, READY]),
        (
            "connections to one replica break",
            |pool| {
                (0..3).for_each(|index| pool.calls(1, index, &[Outcome::Answered]));
                pool.calls(1, 2, &[Outcome::Lost; 3]);
            },
            [READY, READY, "ejected"],
        ),
        (
            "connections break everywhere",
            |pool| (0..3).for_each(|index| pool.calls(1, index, &[Outcome::Lost; 9])),
            [READY; 3],
        ),
        (
            "one replica says that its engine died",
            |pool| pool.calls(1, 0, &[Outcome::EngineDied]),
            ["ejected", READY, READY],
        ),
        (
            "all of them say so",
            |pool| (0..3).for_each(|index| pool.calls(1, index, &[Outcome::EngineDied])),
            ["ejected", READY, READY],
        ),
        ("one refuses connections", |pool| pool.calls(1, 0, &[Outcome::Refused]), ["down", READY, READY]),
        ("all of them do", |pool| (0..3).for_each(|index| pool.calls(1, index, &[Outcome::Refused])), ["down"; 3]),
        ("one cannot be reached", |pool| pool.calls(1, 1, &[Outcome::Unreachable; 3]), [READY, "unreachable", READY]),
    ];
    for (case, calls, expected) in table {
        let pool = pool(&[A, B, C]);
        calls(&pool);
        assert_eq!(pool.statuses(), *expected, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_only_replica_is_never_ejected() {
    let pool = pool(&[A]);
    for caller in 1..=5 {
        pool.calls(caller, 0, &[Outcome::Failed, Outcome::Lost, Outcome::EngineDied, Outcome::Answered]);
        pool.calls(caller, 0, &[Outcome::Failed; 20]);
    }
    assert_eq!((pool.statuses(), best(&pool, b"")), (vec!["ready"], A.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn an_ejected_replica_gets_no_calls_while_another_takes_them_and_all_of_them_when_none_does() {
    let pool = pool(&[A, B]);
    fails_everybody(&pool, &[0]);
    assert_eq!(pool.statuses(), ["ejected", "ready"]);
    assert!((0..20).all(|_| best(&pool, b"") == B));
    // It is not tried instead of a replica that is merely busy.
    assert_eq!(order(&pool, b""), [B]);

    // Panic routing, whatever keeps the other one from taking calls.
    let others: [fn(&Replica); 3] = [
        |replica| replica.goes_down("slow".to_owned()),
        |replica| (0..3).for_each(|_| replica.fails_to_connect(false, Instant::now())),
        |replica| replica.notes_motion(Motion::Hangs),
    ];
    for out in others {
        pool.replicas[1].comes_up(true);
        out(&pool.replicas[1]);
        assert!((0..20).all(|_| best(&pool, b"") == A), "{:?}", pool.replicas[1].status());
    }
    pool.replicas[0].goes_down("connection refused".to_owned());
    assert_eq!(best(&pool, b""), "Unhealthy");
}

#[tokio::test(start_paused = true)]
async fn a_busy_replica_and_one_that_fails_the_caller_come_after_others() {
    let pool = pool(&[A, B, C]);
    pool.calls(2, 0, &[Outcome::Busy]);
    (0..3).for_each(|_| pool.calls(1, 2, &[Outcome::Answered]));
    pool.calls(1, 1, &[Outcome::Failed; 3]);
    for _ in 0..20 {
        assert_eq!(order(&pool, b"")[0], C);
        assert_eq!(order(&pool, b"").len(), 3);
    }
    // The failures were caller 1's, and are nobody else's.
    let prefix = PrefixHashes::default();
    let call = CallShape { caller: CallerId(2), ..shape(&prefix) };
    let best = || pool.rank(&call).unwrap().next_route().unwrap().base().to_owned();
    assert!((0..50).any(|_| best() == B) && (0..50).all(|_| best() != A));
}

#[tokio::test(start_paused = true)]
async fn an_ejected_replica_gets_one_trial_at_a_time_and_is_back_after_a_good_one() {
    let pool = pool(&[A, B]);
    let prefix = PrefixHashes::default();
    let start = |caller| {
        let call = CallShape { caller: CallerId(caller), ..shape(&prefix) };
        let index = 0;
        pool.start(index, &call, Instant::now())
    };
    fails_everybody(&pool, &[0]);
    assert!(start(1).is_none());
    tokio::time::advance(Duration::from_millis(1001)).await;
    let trial = start(1).unwrap();
    assert!(start(2).is_none(), "one at a time");
    trial.report(Outcome::Failed);
    drop(trial);
    assert!(start(1).is_none(), "the next pause has begun");
    tokio::time::advance(Duration::from_millis(2001)).await;
    // What fails everywhere, is busy or says nothing does not count.
    for outcome in [Some(Outcome::Failed), Some(Outcome::Busy), None] {
        let trial = start(99).unwrap();
        outcome.into_iter().for_each(|outcome| trial.report(outcome));
    }
    start(2).unwrap().report(Outcome::Answered);
    assert_eq!(pool.statuses(), ["ready", "ready"]);
    // A stream need not be complete for that.
    pool.calls(1, 0, &[Outcome::EngineDied]);
    tokio::time::advance(Duration::from_millis(1001)).await;
    let stream = start(2).unwrap();
    assert_eq!(pool.statuses(), ["ejected", "ready"]);
    stream.hears();
    assert_eq!(pool.statuses(), ["ready", "ready"]);
    // It is judged anew.
    pool.calls(1, 0, &[Outcome::Failed]);
    assert_eq!(pool.statuses(), ["ready", "ready"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_retried_once_at_the_next_replica_within_the_pools_budget() {
    let pool = pool(&[A, B, C]);
    let prefix = PrefixHashes::default();
    let mut retried = 0;
    for _ in 0..100 {
        let mut ranking = pool.rank(&shape(&prefix)).unwrap();
        let first = ranking.next_route().unwrap();
        if let Some(second) = ranking.retry() {
            assert_ne!(first.replica(), second.replica());
            retried += 1;
        }
        assert!(ranking.retry().is_none(), "once");
    }
    assert_eq!(retried, 20, "a fifth of the calls");
}

#[tokio::test(start_paused = true)]
async fn a_status_says_which_replicas_are_in_trouble_and_why() {
    let pool = pool(&[A, B, C]);
    fails_everybody(&pool, &[2]);
    pool.replicas[0].goes_down("connection refused".to_owned());
    let expected = [
        "http://a:8000: connection refused",
        "http://c:8000: calls of 2 callers fail there, and not at other replicas",
    ];
    assert_eq!((pool.troubles(), pool.health()), (expected.map(str::to_owned).to_vec(), (1, 3)));
    assert!(matches!(pool.snapshot().replicas[2].status, Status::Ejected(_)));
}
