use super::*;

/// How many of `wanted` retries the budget has.
fn taken(budget: &mut RetryBudget, wanted: u64, now: Instant) -> u64 {
    (0..wanted).filter(|_| budget.take(now)).count() as u64
}

#[tokio::test(start_paused = true)]
async fn retries_are_a_fifth_of_the_calls_of_ten_seconds_and_ten_at_least() {
    let table = [(0, 10), (1, 10), (50, 10), (54, 10), (55, 11), (100, 20), (1000, 200)];
    for (calls, retries) in table {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        (0..calls).for_each(|_| budget.call(now));
        assert_eq!(taken(&mut budget, 1000, now), retries, "{calls} calls");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_and_retries_count_for_ten_seconds() {
    let start = Instant::now();
    let at = |millis| start + Duration::from_millis(millis);
    let mut budget = RetryBudget::new(start);
    (0..100).for_each(|_| budget.call(start));
    assert_eq!(taken(&mut budget, 15, at(500)), 15);
    assert_eq!(taken(&mut budget, 15, at(9_999)), 5);
    // The calls are forgotten, and the fifteen retries with them; five are not.
    assert_eq!(taken(&mut budget, 15, at(10_000)), 5);
    assert_eq!(taken(&mut budget, 15, at(3_600_000)), 10);
    budget.give_back();
    assert_eq!(taken(&mut budget, 15, at(3_600_000)), 1);
}
