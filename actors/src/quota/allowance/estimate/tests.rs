use std::sync::Arc;

use raft::Timestamp;
use raft::state::{UsageKey, UsageLabels};

use super::*;

#[test]
fn callers_are_believed_up_to_a_point() {
    let table = [
        // Learnt size, asked, estimate.
        (COLD_START, None, 1024),
        (COLD_START, Some(0), 0),
        (COLD_START, Some(10), 10),
        (COLD_START, Some(4096), 4096),
        (COLD_START, Some(128_000), 4096),
        (3000.0, Some(128_000), 6000),
        (3000.0, Some(5000), 5000),
        (200.5, None, 201),
        (0.0, None, 1),
    ];
    for (high, asked, answer) in table {
        assert_eq!(estimate(high, asked), answer, "{high} {asked:?}");
    }
}

#[test]
fn a_handful_of_calls_teaches_what_such_calls_need() {
    let size = OutputSize::default();
    for _ in 0..5 {
        size.learn(5);
    }
    assert!((5..=40).contains(&size.estimate(None)), "{}", size.estimate(None));
    // It is still believed that calls may be larger than a few small ones.
    size.learn(2000);
    assert!(size.estimate(None) > 500, "{}", size.estimate(None));
}

#[test]
fn usage_teaches_a_node_that_has_just_started() {
    let name = |name: &str| Name::new("ns", name);
    let key = AccessKey { subscription: name("dev"), model: name("qwen") };
    let row = |subscription: &str, hour: u64, calls: u64, output: u64, absurd_calls: u64| {
        let pair = |name: &str| ("ns".to_owned(), name.to_owned());
        let labels = UsageLabels {
            user: format!("user {hour}"),
            key: None,
            subscription: pair(subscription),
            model: pair("qwen"),
            organization: String::new(),
            cost_center: String::new(),
        };
        let sum = UsageSum { calls, output, absurd_calls, ..UsageSum::default() };
        ((Timestamp(hour), Arc::new(labels)), sum)
    };
    let of = |rows: Vec<(UsageKey, UsageSum)>| {
        let usage = Usage { hours: rows.into_iter().collect(), ..Usage::default() };
        OutputSize::of_usage(&usage, &key).estimate(None)
    };
    let table = [
        ("nothing is known", vec![], 1024),
        ("others' calls say nothing", vec![row("prod", 1, 100, 500, 0)], 1024),
        ("twice the mean of all", vec![row("dev", 1, 10, 100, 0), row("dev", 2, 10, 300, 0)], 40),
        ("nobody learns from lies", vec![row("dev", 1, 10, 100, 0), row("dev", 2, 1, 9_999_999, 1)], 20),
        ("answers of nothing", vec![row("dev", 1, 10, 0, 0)], 1),
    ];
    for (what, rows, expected) in table {
        assert_eq!(of(rows), expected, "{what}");
    }
}

#[test]
fn the_learnt_size_is_one_that_few_outputs_exceed() {
    let size = OutputSize::default();
    // Outputs from 1 to 1000, in an order that repeats nothing.
    for call in 0..10_000_u64 {
        size.learn(call * 617 % 1000 + 1);
    }
    let learnt = size.estimate(None);
    assert!((750..=950).contains(&learnt), "{learnt}");
    // Larger outputs are believed after a few of them.
    for _ in 0..10 {
        size.learn(20_000);
    }
    assert!(size.estimate(None) > 15_000);
}
