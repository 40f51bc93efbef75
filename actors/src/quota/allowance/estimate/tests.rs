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
