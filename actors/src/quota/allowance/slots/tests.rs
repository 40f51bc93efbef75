use raft::resources::{LimitKind, LimitScope};
use raft::state::Subject;

use super::*;

fn tokens(input: u64) -> Amount {
    Amount::of_call(input, 0)
}

fn written(limit: u64, window: &str, window_seconds: u32, unit: Unit, scope: LimitScope) -> Limit {
    let (window, enforcement) = (window.to_owned(), Enforcement::Reserve);
    Limit { limit, window, window_seconds, unit, scope, enforcement, price: Price::default(), alerts: Vec::new() }
}

fn slot(limit: u64, granted: u64) -> Slot {
    let id = MeterId {
        subscription: ("s".to_owned(), "s".to_owned()),
        model: ("m".to_owned(), "m".to_owned()),
        limit: LimitKind { window_seconds: 60, unit: Unit::Total, scope: LimitScope::User },
        subject: Subject::User("ann".to_owned()),
    };
    let meter = LocalMeter::new(1, Timestamp(1000));
    meter.grant(granted);
    Slot {
        meter: Arc::new(meter),
        ..Slot::new(Arc::new(Rule {
            id: Arc::new(id),
            limit,
            window: "60s".to_owned(),
            is_hard: false,
            gives_rest: true,
            price: Price::default(),
        }))
    }
}

fn take(slots: &Slots, need: Amount) -> Option<Granted> {
    slots.take(need, |_| false)
}

/// (free, held, unreported, excess).
fn parts(meter: &LocalMeter) -> (u64, u64, u64, u64) {
    (meter.free(), meter.held(), meter.unreported(), meter.excess())
}

#[test]
fn every_token_is_in_one_place() {
    let table = [
        // Used of 40 held with 100 granted: (free, held, unreported, excess).
        (0, (100, 0, 0, 0)),
        (25, (75, 0, 25, 0)),
        (40, (60, 0, 40, 0)),
        (90, (10, 0, 90, 0)),
        (130, (0, 0, 100, 30)),
    ];
    for (used, after) in table {
        let slot = slot(1000, 100);
        assert!(slot.meter.take(40));
        assert_eq!(parts(&slot.meter), (60, 40, 0, 0));
        slot.meter.settle(40, used);
        assert_eq!(parts(&slot.meter), after, "{used} used");
    }
}

#[test]
fn a_reservation_takes_from_every_meter_or_from_none() {
    let slots = Slots { limits: None, slots: vec![slot(1000, 100), slot(1000, 30), slot(1000, 100)] };
    assert_eq!(take(&slots, tokens(31)), None);
    assert!(slots.slots.iter().all(|slot| slot.meter.held() == 0));
    assert_eq!(take(&slots, tokens(30)).unwrap()[..], [30, 30, 30]);
    let free: Vec<u64> = slots.slots.iter().map(|slot| slot.meter.free()).collect();
    assert_eq!(free, [70, 0, 70]);
}

#[test]
fn a_call_larger_than_a_limit_takes_the_whole_limit() {
    let slots = Slots { limits: None, slots: vec![slot(1000, 500), slot(50, 50)] };
    let granted = take(&slots, tokens(400)).unwrap();
    let held: Vec<u64> = slots.slots.iter().map(|slot| slot.meter.held()).collect();
    assert_eq!(held, [400, 50]);
    slots.settle(&granted, tokens(60));
    assert_eq!(parts(&slots.slots[0].meter), (440, 0, 60, 0));
    assert_eq!(parts(&slots.slots[1].meter), (0, 0, 50, 10));
}

#[test]
fn a_call_that_nobody_competes_with_takes_the_rest_and_settles_what_it_took() {
    let slots = Slots { limits: None, slots: vec![slot(1000, 100), slot(1000, 30)] };
    let rest_of_second = |at: usize| at == 1;
    assert_eq!(slots.take(tokens(50), |at| at == 0), None, "the second one has no rest for it");
    assert_eq!(parts(&slots.slots[0].meter), (100, 0, 0, 0));
    let granted = slots.take(tokens(50), rest_of_second).unwrap();
    assert_eq!(granted[..], [50, 30]);
    // Now a call is in progress, and only what is needed as a whole can be had.
    slots.slots[1].meter.grant(10);
    assert_eq!(slots.take(tokens(20), rest_of_second), None);
    // The prompt turns out to be smaller: what is held beyond comes free, and of the rest nothing.
    let left = slots.left_of(&granted, tokens(40));
    assert_eq!(left[..], [40, 30]);
    slots.give_back(&granted, &left);
    slots.settle(&left, tokens(45));
    assert_eq!(slots.slots.iter().map(|slot| parts(&slot.meter)).collect::<Vec<_>>(), [(55, 0, 45, 0), (0, 0, 40, 5)]);
    assert_eq!(slots.take(tokens(20), rest_of_second), None, "nothing is no rest");
    assert_eq!(parts(&slots.slots[1].meter), (0, 0, 40, 5));
}

#[test]
fn a_meter_whose_window_is_over_only_reports_excess() {
    let slot = slot(1000, 100);
    assert!(slot.meter.take(40));
    slot.meter.lapse();
    slot.meter.close();
    assert!(!slot.meter.take(1) && !slot.meter.is_empty());
    slot.meter.settle(40, 45);
    // The excess is not covered by what was free in a window that is over.
    assert!(slot.meter.has_news() && !slot.meter.is_empty());
    assert_eq!(slot.meter.take_excess(), 5);
    assert!(!slot.meter.has_news() && slot.meter.is_empty());
}

#[test]
fn a_meter_of_a_limit_that_is_gone_gives_back_and_reports() {
    let slot = slot(1000, 100);
    assert!(slot.meter.take(40));
    slot.meter.close();
    assert!(slot.meter.has_news());
    assert_eq!(slot.meter.take_free(u64::MAX), 60);
    assert!(!slot.meter.has_news() && !slot.meter.is_empty());
    slot.meter.settle(40, 30);
    let spent = slot.meter.start_report();
    assert_eq!((spent, slot.meter.take_free(u64::MAX)), (30, 10));
    assert!(!slot.meter.is_empty());
    slot.meter.reported(spent);
    assert!(slot.meter.is_empty());
}

#[test]
fn what_was_used_stays_used_wherever_its_report_is() {
    let meter = slot(1000, 100).meter;
    assert!(meter.take(40));
    meter.settle(40, 25);
    assert_eq!((meter.used(), meter.told()), (25, Some(0)));
    let spent = meter.start_report();
    // The ledger may have it or not, so what it says of the window is not taken over.
    assert_eq!((spent, meter.used(), meter.told(), meter.has_news()), (25, 25, None, false));
    assert!(meter.take(40));
    meter.settle(40, 5);
    assert!(meter.has_news());
    meter.reported(spent);
    assert_eq!((meter.used(), meter.told()), (30, Some(25)));
    assert_eq!((meter.start_report(), meter.used()), (5, 30));
}

#[test]
fn two_limits_of_one_kind_are_the_smaller_one_and_meters_that_stay_are_kept() {
    let name = |name: &str| crate::routing::Name::new("ns", name);
    let key = AccessKey { subscription: name("s"), model: name("m") };
    let limit =
        |limit, window: &str, window_seconds| written(limit, window, window_seconds, Unit::Total, LimitScope::User);
    let ann = LimitSubject { scope: LimitScope::User, subject: Subject::User("ann".to_owned()) };
    let before = vec![limit(100, "1m", 60), limit(50, "60s", 60), limit(1000, "1h", 3600)];
    let before = Slots::of(&key, &ann, Some(before), &Slots::default());
    let rules =
        |slots: &Slots| slots.slots.iter().map(|slot| (slot.rule.limit, slot.rule.window.clone())).collect::<Vec<_>>();
    assert_eq!(rules(&before), [(50, "60s".to_owned()), (1000, "1h".to_owned())]);

    let after = Slots::of(&key, &ann, Some(vec![limit(2000, "1h", 3600), limit(5, "5m", 300)]), &before);
    assert_eq!(rules(&after), [(2000, "1h".to_owned()), (5, "5m".to_owned())]);
    assert!(Arc::ptr_eq(&after.slots[0].meter, &before.slots[1].meter));
    assert!(Slots::of(&key, &ann, None, &after).slots.is_empty());
}

#[test]
fn a_limit_that_gives_its_rest_is_spent_when_all_of_it_is_used_and_another_when_a_call_does_not_fit() {
    let now = Timestamp(500);
    let of = |gives_rest: bool| {
        let mut slot = slot(100, 0);
        let Rule { id, limit, window, price, .. } = &*slot.rule;
        let (id, limit, window, price) = (id.clone(), *limit, window.clone(), *price);
        slot.rule = Arc::new(Rule { id, limit, window, is_hard: !gives_rest, gives_rest, price });
        slot
    };
    let mut rest = of(true);
    for (settled, is_spent) in [(0, false), (60, false), (99, false), (100, true), (130, true)] {
        rest.settled = settled;
        assert_eq!(rest.is_spent_for(tokens(41), now), is_spent, "{settled} settled");
        assert!(!rest.is_spent_for(tokens(0), now) || settled > 100, "a call that needs none of it");
    }

    let mut slot = of(false);
    slot.settled = 60;
    assert!(!slot.is_spent_for(tokens(40), now) && slot.is_spent_for(tokens(41), now));
    // What this node has not told the ledger yet is spent as well.
    slot.meter.grant(10);
    assert!(slot.meter.take(10));
    slot.meter.settle(10, 10);
    assert!(!slot.is_spent_for(tokens(30), now) && slot.is_spent_for(tokens(31), now));
    let spent = slot.meter.start_report();
    assert!(slot.is_spent_for(tokens(31), now));
    slot.meter.reported(spent);
    assert!(!slot.is_spent_for(tokens(30), now) && slot.is_spent_for(tokens(31), now));
    // Once the window is over nobody knows.
    assert!(!slot.is_spent_for(tokens(31), Timestamp(1000)));
}

#[test]
fn a_limit_subject_has_the_limits_of_its_scope_and_each_takes_its_own_unit() {
    let name = |name: &str| crate::routing::Name::new("ns", name);
    let key = AccessKey { subscription: name("s"), model: name("m") };
    let (user, whole) = (LimitScope::User, LimitScope::Subscription);
    let limits = vec![
        written(1000, "1h", 3600, Unit::Total, user),
        written(1000, "1h", 3600, Unit::Input, user),
        written(1000, "1h", 3600, Unit::Output, user),
        written(1000, "1h", 3600, Unit::Requests, user),
        written(5, "1h", 3600, Unit::Total, whole),
    ];
    let limit_subject = |scope, subject| LimitSubject { scope, subject };
    let slots = |limit_subject: &LimitSubject| Slots::of(&key, limit_subject, Some(limits.clone()), &Slots::default());
    let ann = slots(&limit_subject(user, Subject::User("ann".to_owned())));
    assert_eq!(slots(&limit_subject(whole, Subject::Everybody)).slots.len(), 1);

    ann.slots.iter().for_each(|slot| slot.meter.grant(1000));
    let granted = take(&ann, Amount::of_call(300, 40)).unwrap();
    let held: Vec<u64> = ann.slots.iter().map(|slot| slot.meter.held()).collect();
    assert_eq!(held, [340, 300, 40, 1]);
    ann.settle(&granted, Amount::of_call(290, 50));
    let used: Vec<u64> = ann.slots.iter().map(|slot| slot.meter.used()).collect();
    assert_eq!(used, [340, 290, 50, 1]);
}
