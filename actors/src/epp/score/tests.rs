use super::*;

fn candidate((waiting, kv_usage, cached): (f64, f64, f64)) -> Candidate {
    Candidate { waiting, kv_usage, cached }
}

/// Why it is the best, (waiting, KV use, cached) of each, and which.
type Case<'a> = (&'a str, &'a [(f64, f64, f64)], usize);

#[test]
fn the_best_has_a_short_queue_a_free_cache_and_the_prompt() {
    let table: &[Case<'_>] = &[
        ("the shorter queue", &[(3.0, 0.0, 0.0), (1.0, 0.0, 0.0), (2.0, 0.0, 0.0)], 1),
        ("the emptier cache", &[(1.0, 0.5, 0.0), (1.0, 0.4, 0.0)], 1),
        ("the cached prompt", &[(0.0, 0.0, 0.1), (0.0, 0.0, 0.2)], 1),
        ("the whole prompt outweighs the longest queue", &[(0.0, 0.0, 0.0), (9.0, 0.0, 1.0)], 1),
        ("half of it does not", &[(0.0, 0.0, 0.0), (9.0, 0.0, 0.5)], 0),
        ("a queue in the middle counts by its place", &[(0.0, 0.0, 0.0), (5.0, 0.0, 0.4), (10.0, 0.0, 0.5)], 1),
        ("a full cache outweighs half a queue", &[(5.0, 0.0, 0.0), (0.0, 1.0, 0.0), (10.0, 0.0, 0.0)], 0),
    ];
    for (case, candidates, answer) in table {
        let candidates: Vec<Candidate> = candidates.iter().copied().map(candidate).collect();
        for chance in [0, 1, u64::MAX] {
            assert_eq!(best(&candidates, chance), Some(*answer), "{case}");
        }
    }
    assert_eq!(best(&[], 0), None);
}

#[test]
fn equals_are_chosen_evenly() {
    let candidates = vec![candidate((1.0, 0.5, 0.0)); 4];
    let mut counts = [0; 4];
    let mut chance = 1_u64;
    for _ in 0..40_000 {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        counts[best(&candidates, chance ^ (chance >> 29)).unwrap()] += 1;
    }
    assert!(counts.iter().all(|count| (9_000..11_000).contains(count)), "{counts:?}");
}

#[test]
fn old_reports_fade_into_what_the_node_knows_itself() {
    let report = Observed {
        waiting: 8.0,
        kv_usage: 0.5,
        capacity_tokens: 10_000,
        age: Duration::from_secs(1),
        unseen_calls: 2,
        unseen_tokens: 1000,
        in_flight: 4,
    };
    let table = [
        // Age in seconds, waiting, KV use.
        (1, 10.0, 0.6),
        (2, 10.0, 0.6),
        (7, 7.0, 0.35),
        (12, 5.5, 0.225),
        (600, 4.0, 0.1),
    ];
    for (seconds, waiting, kv_usage) in table {
        let (seen_waiting, seen_usage) = Observed { age: Duration::from_secs(seconds), ..report }.load();
        assert!((seen_waiting - waiting).abs() < 1e-9 && (seen_usage - kv_usage).abs() < 1e-9, "{seconds} s");
    }
    // A cache cannot be more than full, and one of unknown size is not guessed at.
    assert_eq!(Observed { unseen_tokens: 1_000_000, ..report }.load().1, 1.0);
    assert_eq!(Observed { capacity_tokens: 0, ..report }.load().1, 0.5);
}
