use super::*;

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
