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
            assert_eq!(rank(&candidates, chance)[0], *answer, "{case}");
        }
    }
    assert_eq!(rank(&[], 0), [0; 0]);
}

#[test]
fn equals_are_chosen_evenly() {
    let candidates = vec![candidate((1.0, 0.5, 0.0)); 4];
    let mut counts = [0; 4];
    let mut chance = 1_u64;
    for _ in 0..40_000 {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        counts[rank(&candidates, chance ^ (chance >> 29))[0]] += 1;
    }
    assert!(counts.iter().all(|count| (9_000..11_000).contains(count)), "{counts:?}");
}

#[test]
fn the_ranking_has_every_candidate_once_from_the_best_to_the_worst() {
    let candidates: Vec<Candidate> =
        [(3.0, 0.0, 0.0), (0.0, 0.0, 0.0), (9.0, 0.0, 0.0), (1.0, 0.0, 0.0)].into_iter().map(candidate).collect();
    for chance in 0..20 {
        assert_eq!(rank(&candidates, chance), [1, 3, 0, 2]);
    }
}
