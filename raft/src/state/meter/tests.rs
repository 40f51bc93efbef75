//! The ledger as tables. A line is a batch with one entry, and what became of it:
//! `TIME NODE.INCARNATION.SEQUENCE what -> granted: settled, held, owed`, `recalled` if the meter is marked then.
//! `spent` and `returned` belong to the window that the node was last granted from. `alone` is an acquire of a node whose calls hold nothing.

use std::collections::BTreeMap;

use super::*;
use crate::command::{
    Acquire, Command, CommandRefusal, EarlierIncarnations, QuotaBatch, QuotaEntry, QuotaGrant, Reply,
};
use crate::resources::{Enforcement, Limit, LimitKind, LimitScope, NewObject, Unit};
use crate::state::testing::{self, Log, meter, subscription};

/// Runs a table against one meter of `limit` tokens per minute.
fn check(limit: u64, table: &str) {
    check_in(subscription(limit, "60s"), table);
}

/// The same with a subscription that says more of its limit.
fn check_in(subscription: NewObject, table: &str) {
    let mut log = Log::default();
    log.create(subscription);
    let mut windows = BTreeMap::new();
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (batch, wanted) = line.split_once("->").expect("a line has a result");
        let words: Vec<&str> = batch.split_whitespace().collect();
        log.time = Timestamp(1_000_000 + words[0].parse::<u64>().expect("a time in seconds") * 1000);
        if let Some(limit) = words[1].strip_prefix("limit=") {
            log.update(testing::subscription(limit.parse().expect("a limit"), "60s"));
            continue;
        }
        if let Some(node) = words[1].strip_prefix("retire=") {
            let node = NodeId(node.parse().expect("a node"));
            assert_eq!(log.reply(Command::RetireNode { node }), Reply::Done);
            continue;
        }
        let batch = parse(&words, &windows);
        let node = batch.node;
        let reply = log.reply(Command::Quota(batch));
        if let Reply::Quota(grants) = &reply
            && grants[0].granted > 0
        {
            windows.insert(node, grants[0].window);
        }
        assert_eq!(shown(&log.state, &reply), wanted.trim(), "after: {line}");
    }
}

fn parse(words: &[&str], windows: &BTreeMap<NodeId, u64>) -> QuotaBatch {
    let ids: Vec<u64> = words[1].split('.').map(|id| id.parse().expect("node.incarnation.sequence")).collect();
    let node = NodeId(ids[0]);
    let window = windows.get(&node).copied().unwrap_or(0);
    let mut entry = QuotaEntry { meter: meter("ann", 60), window, spent: 0, returned: 0, excess: 0, acquire: None };
    for word in &words[2..] {
        let (name, amount) = word.split_once('=').expect("name=amount");
        let (amount, extra) = amount.split_once('+').unwrap_or((amount, "0"));
        let (amount, extra) = (amount.parse().expect("an amount"), extra.parse().expect("an amount"));
        match name {
            "spent" => entry.spent = amount,
            "returned" => entry.returned = amount,
            "excess" => entry.excess = amount,
            "acquire" | "alone" => entry.acquire = Some(Acquire { need: amount, extra, alone: name == "alone" }),
            _ => panic!("unknown word {word}"),
        }
    }
    QuotaBatch {
        node,
        incarnation: ids[1],
        sequence: ids[2],
        entries: vec![entry],
        usage: Vec::new(),
        earlier: EarlierIncarnations::default(),
    }
}

fn shown(state: &State, reply: &Reply) -> String {
    let granted = match reply {
        Reply::Quota(grants) => grants[0].granted.to_string(),
        Reply::Refused(CommandRefusal::StaleBatch { .. }) => "stale".to_owned(),
        other => panic!("{other:?}"),
    };
    let meter = state.meters.get(&meter("ann", 60)).map(|meter| Meter::clone(meter)).unwrap_or_default();
    let (settled, held) = meter.window.as_ref().map_or((0, 0), |window| (window.settled, window.held()));
    let recalled = if state.recalled.is_empty() { "" } else { ", recalled" };
    format!("{granted}: {settled} settled, {held} held, {} owed{recalled}", meter.debt)
}

#[test]
fn tokens_are_granted_spent_and_given_back() {
    check(
        100,
        "
        0   1.1.1 acquire=40                -> 40: 0 settled, 40 held, 0 owed
        1   1.1.2 spent=25 returned=5       -> 0: 25 settled, 10 held, 0 owed
        1   1.1.3 acquire=65                -> 65: 25 settled, 75 held, 0 owed
        # All or nothing: everything is settled or held.
        2   1.1.4 acquire=1                 -> 0: 25 settled, 75 held, 0 owed
        2   1.1.5 spent=75                  -> 0: 100 settled, 0 held, 0 owed
        59  1.1.6 acquire=1                 -> 0: 100 settled, 0 held, 0 owed
        # The window ends 60 s after its first acquire, to the millisecond; the next one starts with the next acquire.
        60  1.1.7 spent=0                   -> 0: 0 settled, 0 held, 0 owed
        200 1.1.8 acquire=100               -> 100: 0 settled, 100 held, 0 owed
        ",
    );
}

#[test]
fn more_than_needed_is_granted_only_up_to_half_a_fair_share_of_what_is_free() {
    check(
        1000,
        "
        # One node: half of what is left. Two nodes: a quarter.
        0   1.1.1 acquire=100+9999          -> 550: 0 settled, 550 held, 0 owed
        0   2.1.1 acquire=50+9999           -> 150: 0 settled, 700 held, 0 owed
        0   2.1.2 acquire=50+10             -> 60: 0 settled, 760 held, 0 owed
        # Running low, a grant shrinks to what is needed.
        0   2.1.3 acquire=240+9999          -> 240: 0 settled, 1000 held, 0 owed
        ",
    );
}

#[test]
fn a_batch_counts_once_however_often_it_arrives() {
    check(
        100,
        "
        0   1.1.1 acquire=40                -> 40: 0 settled, 40 held, 0 owed
        0   1.1.1 acquire=40                -> 40: 0 settled, 40 held, 0 owed
        1   1.1.2 spent=30 acquire=20       -> 20: 30 settled, 30 held, 0 owed
        2   1.1.2 spent=30 acquire=20       -> 20: 30 settled, 30 held, 0 owed
        # Older numbers and earlier incarnations are refused, and so is number 0.
        3   1.1.1 acquire=40                -> stale: 30 settled, 30 held, 0 owed
        4   1.2.1 returned=0                -> 0: 30 settled, 30 held, 0 owed
        5   1.1.3 acquire=1                 -> stale: 30 settled, 30 held, 0 owed
        5   1.3.0 acquire=1                 -> stale: 30 settled, 30 held, 0 owed
        ",
    );
}

#[test]
fn what_a_restarted_node_held_is_orphaned_until_it_says_what_became_of_it_or_the_window_ends() {
    check(
        100,
        "
        0   1.1.1 acquire=40                -> 40: 0 settled, 40 held, 0 owed
        0   2.1.1 acquire=20                -> 20: 0 settled, 60 held, 0 owed
        # The new incarnation cannot acquire what the old one may have spent, and nobody is asked to give it back.
        1   1.2.1 acquire=10                -> 10: 0 settled, 70 held, 0 owed
        1   2.1.2 acquire=60                -> 0: 0 settled, 70 held, 0 owed
        # Its journal shows 25 spent: 10 of the new grant and 15 of the old one; another node cannot claim the rest.
        2   1.2.2 spent=25                  -> 0: 25 settled, 45 held, 0 owed
        2   2.1.3 returned=40               -> 0: 25 settled, 25 held, 0 owed
        3   1.2.3 acquire=4                 -> 4: 25 settled, 29 held, 0 owed
        3   1.2.4 returned=24               -> 0: 25 settled, 5 held, 0 owed
        60  1.2.5 acquire=100               -> 100: 0 settled, 100 held, 0 owed
        ",
    );
}

#[test]
fn what_a_node_that_was_taken_out_holds_stays_held_unless_it_tells_and_it_gets_no_more() {
    check(
        100,
        "
        0   1.1.1 acquire=30                -> 30: 0 settled, 30 held, 0 owed
        0   2.1.1 acquire=40                -> 40: 0 settled, 70 held, 0 owed
        # It wants what node 1 holds: nobody is asked for that any more.
        1   2.1.2 acquire=60                -> 0: 0 settled, 70 held, 0 owed, recalled
        2   retire=2                        ->
        2   1.1.2 returned=0                -> 0: 0 settled, 70 held, 0 owed
        # Nobody waits for it to give back: what it holds could meet this acquire, and is not recalled.
        3   1.1.3 acquire=70                -> 0: 0 settled, 70 held, 0 owed
        # It shares no more: half of what is left goes to node 1, not a quarter.
        3   1.1.4 acquire=10+99             -> 20: 0 settled, 90 held, 0 owed
        # What it tells counts; what it wants does not, also after a new start.
        4   2.1.3 spent=15 returned=5 acquire=1 -> 0: 15 settled, 70 held, 0 owed
        4   1.1.5 acquire=16                -> 0: 15 settled, 70 held, 0 owed
        5   2.2.1 spent=5 acquire=1         -> 0: 20 settled, 65 held, 0 owed
        # When the window is over, so is what it held.
        60  2.2.2 acquire=10                -> 0: 0 settled, 0 held, 0 owed
        61  1.1.6 acquire=100               -> 100: 0 settled, 100 held, 0 owed
        61  2.2.3 acquire=50                -> 0: 0 settled, 100 held, 0 owed
        ",
    );
}

#[test]
fn a_node_is_not_believed_to_have_held_more_than_it_was_granted() {
    check(
        100,
        "
        0   1.1.1 acquire=40                -> 40: 0 settled, 40 held, 0 owed
        0   2.1.1 acquire=10                -> 10: 0 settled, 50 held, 0 owed
        # 25 beyond its grant are excess: charged to what is free.
        1   2.1.2 spent=35                  -> 0: 35 settled, 40 held, 0 owed
        2   2.1.3 returned=40               -> 0: 35 settled, 40 held, 0 owed
        ",
    );
}

#[test]
fn excess_takes_what_is_free_and_the_rest_is_owed_to_the_next_window() {
    check(
        100,
        "
        0   1.1.1 acquire=90                -> 90: 0 settled, 90 held, 0 owed
        1   1.1.2 spent=90 excess=30        -> 0: 100 settled, 0 held, 20 owed
        # Without a window there is nothing free.
        60  1.1.3 excess=5                  -> 0: 0 settled, 0 held, 25 owed
        61  1.1.4 acquire=75                -> 75: 25 settled, 75 held, 0 owed
        # Spent in a window that has closed changes nothing.
        121 1.1.5 spent=75                  -> 0: 0 settled, 0 held, 0 owed
        ",
    );
}

#[test]
fn debt_beyond_a_whole_limit_takes_several_windows_and_idle_windows_pay_it() {
    check(
        100,
        "
        0   1.1.1 acquire=100               -> 100: 0 settled, 100 held, 0 owed
        1   1.1.2 spent=100 excess=250      -> 0: 100 settled, 0 held, 250 owed
        # A window in which nothing is free pays one limit, and so does one that nobody opens.
        60  1.1.3 acquire=1                 -> 0: 100 settled, 0 held, 150 owed
        179 1.1.4 spent=0                   -> 0: 0 settled, 0 held, 150 owed
        180 1.1.5 spent=0                   -> 0: 0 settled, 0 held, 50 owed
        181 1.1.6 acquire=50                -> 50: 50 settled, 50 held, 0 owed
        ",
    );
}

#[test]
fn an_acquire_that_other_nodes_could_meet_marks_the_meter_until_it_is_met_or_given_up() {
    check(
        100,
        "
        0   1.1.1 acquire=80                -> 80: 0 settled, 80 held, 0 owed
        0   2.1.1 acquire=30                -> 0: 0 settled, 80 held, 0 owed, recalled
        # While somebody waits, nobody gets more than it needs.
        1   3.1.1 acquire=1+10              -> 1: 0 settled, 81 held, 0 owed, recalled
        1   1.1.2 returned=50               -> 0: 0 settled, 31 held, 0 owed, recalled
        1   2.1.2 acquire=30                -> 30: 0 settled, 61 held, 0 owed
        # Given up, and ended with the window.
        2   2.1.3 acquire=50                -> 0: 0 settled, 61 held, 0 owed, recalled
        3   2.1.4 returned=0                -> 0: 0 settled, 61 held, 0 owed
        4   2.1.5 acquire=50                -> 0: 0 settled, 61 held, 0 owed, recalled
        60  3.1.2 returned=0                -> 0: 0 settled, 0 held, 0 owed
        # Nothing is recalled in vain: what others hold would not be enough, or nobody holds anything.
        61  1.1.3 acquire=50                -> 50: 0 settled, 50 held, 0 owed
        61  1.1.4 spent=40                  -> 0: 40 settled, 10 held, 0 owed
        62  2.1.6 acquire=61                -> 0: 40 settled, 10 held, 0 owed
        62  2.1.7 acquire=101               -> 0: 40 settled, 10 held, 0 owed
        62  1.1.5 acquire=60                -> 0: 40 settled, 10 held, 0 owed
        ",
    );
}

#[test]
fn a_node_that_acquires_alone_gets_the_rest_where_less_than_its_need_is_free() {
    check(
        100,
        "
        # What is needed is there: it makes no difference.
        0   1.1.1 alone=40+10               -> 50: 0 settled, 50 held, 0 owed
        # What the node spent and gives back with the acquire is settled before.
        1   1.1.2 spent=10 returned=40 alone=95 -> 90: 10 settled, 90 held, 0 owed
        # What the node holds itself is no obstacle, and there must be something.
        2   1.1.3 spent=60 alone=95         -> 0: 70 settled, 30 held, 0 owed
        2   1.1.4 returned=10 alone=95      -> 10: 70 settled, 30 held, 0 owed
        # Another node holds nothing, and so is the first for what comes free.
        3   2.1.1 alone=50                  -> 0: 70 settled, 30 held, 0 owed, recalled
        3   1.1.5 spent=5 returned=5        -> 0: 75 settled, 20 held, 0 owed, recalled
        4   2.1.2 alone=50                  -> 0: 75 settled, 20 held, 0 owed, recalled
        5   1.1.6 returned=20               -> 0: 75 settled, 0 held, 0 owed, recalled
        5   2.1.3 alone=50                  -> 25: 75 settled, 25 held, 0 owed
        # Beyond what it got it is owed, and then the limit is spent.
        6   2.1.4 spent=25 excess=15        -> 0: 100 settled, 0 held, 15 owed
        7   2.1.5 alone=1                   -> 0: 100 settled, 0 held, 15 owed
        # The next window begins with what is owed, and its rest is one as well.
        60  2.1.6 alone=100                 -> 85: 15 settled, 85 held, 0 owed
        ",
    );
}

#[test]
fn what_a_dead_node_held_keeps_nobody_from_the_rest_once_it_is_orphaned() {
    check(
        100,
        "
        0   1.1.1 acquire=40                -> 40: 0 settled, 40 held, 0 owed
        # Node 1 has died, and the ledger does not know that yet.
        1   2.1.1 alone=100                 -> 0: 0 settled, 40 held, 0 owed, recalled
        2   1.2.1 returned=0                -> 0: 0 settled, 40 held, 0 owed, recalled
        3   2.1.2 alone=100                 -> 60: 0 settled, 100 held, 0 owed
        ",
    );
}

#[test]
fn limits_that_are_hard_or_count_calls_have_no_rest() {
    let table = "
        0   1.1.1 alone=70                  -> 70: 0 settled, 70 held, 0 owed
        1   1.1.2 spent=70 alone=31         -> 0: 70 settled, 0 held, 0 owed
        1   1.1.3 alone=30                  -> 30: 70 settled, 30 held, 0 owed
        ";
    let mut hard = subscription(100, "60s");
    hard.body = hard.body.replace(r#""window":"60s""#, r#""window":"60s","enforcement":"hard""#);
    check_in(hard, table);

    let count = |unit, enforcement| Limit { unit, enforcement, ..one_limit(&subscription(100, "60s")) };
    let (hard, reserve) = (Enforcement::Hard, Enforcement::Reserve);
    let (tokens, calls) = ([Unit::Total, Unit::Input, Unit::Output, Unit::Cost], [Unit::Requests, Unit::InProgress]);
    assert!(tokens.into_iter().all(|unit| count(unit, reserve).gives_rest() && !count(unit, hard).gives_rest()));
    assert!(calls.into_iter().all(|unit| !count(unit, reserve).gives_rest()));
}

fn one_limit(subscription: &NewObject) -> Limit {
    let mut log = Log::default();
    log.create(subscription.clone());
    log.state.rule_of(&meter("ann", 60)).expect("it has one").clone()
}

#[test]
fn a_changed_limit_counts_at_once_and_takes_nothing_back() {
    check(
        100,
        "
        0   1.1.1 acquire=80                -> 80: 0 settled, 80 held, 0 owed
        1   limit=50                        ->
        1   1.1.2 acquire=1                 -> 0: 0 settled, 80 held, 0 owed
        2   1.1.3 spent=40 returned=40      -> 0: 40 settled, 0 held, 0 owed
        3   1.1.4 acquire=10                -> 10: 40 settled, 10 held, 0 owed
        4   limit=200                       ->
        4   1.1.5 acquire=150               -> 150: 40 settled, 160 held, 0 owed
        ",
    );
}

#[test]
fn an_acquire_beyond_the_whole_limit_opens_no_window() {
    check(100, "0 1.1.1 acquire=101 -> 0: 0 settled, 0 held, 0 owed");
}

#[test]
fn a_meter_without_a_limit_grants_nothing_and_is_forgotten() {
    let mut log = Log { time: Timestamp(1_000_000), ..Log::default() };
    let batch = |sequence, user: &str, acquire| {
        let acquire = Some(Acquire::of(acquire));
        let entry = QuotaEntry { meter: meter(user, 60), window: 0, spent: 0, returned: 0, excess: 7, acquire };
        Command::Quota(QuotaBatch {
            node: NodeId(1),
            incarnation: 1,
            sequence,
            entries: vec![entry],
            usage: Vec::new(),
            earlier: EarlierIncarnations::default(),
        })
    };
    let nothing = QuotaGrant { granted: 0, window: 0, ends: Timestamp(0) };
    assert_eq!(log.reply(batch(1, "ann", 1)), Reply::Quota(vec![nothing]));
    assert_eq!(log.state.reading(&meter("ann", 60), log.time), None);

    // After one idle window nobody is left to collect the debt; another meter's batch sweeps it away.
    log.time = log.time.plus(Duration::from_secs(60));
    log.reply(batch(2, "bob", 1));
    assert_eq!(log.state.meters.keys().map(|id| id.subject.to_string()).collect::<Vec<_>>(), ["bob"]);
}

#[test]
fn a_reading_needs_no_meter_and_sees_a_window_end_without_a_command() {
    let mut log = Log { time: Timestamp(1_000_000), ..Log::default() };
    log.create(subscription(100, "60s"));
    let id = meter("ann", 60);
    let fresh = MeterReading { limit: 100, used: 0, held: 0, free: 100, debt: 0, ends: None };
    assert_eq!(log.state.reading(&id, log.time), Some(fresh));

    let acquire = Some(Acquire::of(30));
    let entry = QuotaEntry { meter: id.clone(), window: 0, spent: 0, returned: 0, excess: 80, acquire };
    log.reply(Command::Quota(QuotaBatch {
        node: NodeId(1),
        incarnation: 1,
        sequence: 1,
        entries: vec![entry],
        usage: Vec::new(),
        earlier: EarlierIncarnations::default(),
    }));
    let ends = log.time.plus(Duration::from_secs(60));
    let open = MeterReading { limit: 100, used: 80, held: 0, free: 20, debt: 0, ends: Some(ends) };
    assert_eq!(log.state.reading(&id, log.time), Some(open));
    assert_eq!(log.state.reading(&id, ends), Some(fresh));
    assert_eq!(log.state.reading(&meter("ann", 61), log.time), None);
}

#[test]
fn places_of_calls_in_progress_end_with_their_node_and_leave_nothing_behind() {
    let mut log = Log::default();
    let mut object = subscription(100, "60s");
    object.body = object.body.replace(r#""name":"granite","#, r#""name":"granite","concurrency":{"user":8},"#);
    log.create(object);
    let limit = LimitKind { window_seconds: 0, unit: Unit::InProgress, scope: LimitScope::User };
    let id = MeterId { limit, ..meter("ann", 60) };
    let entry = |window, returned, acquire: Option<u64>| QuotaEntry {
        meter: id.clone(),
        window,
        spent: 0,
        returned,
        excess: 0,
        acquire: acquire.map(Acquire::of),
    };
    let mut tell = |node, incarnation, sequence, entry| {
        let batch = QuotaBatch {
            node: NodeId(node),
            incarnation,
            sequence,
            entries: vec![entry],
            usage: Vec::new(),
            earlier: EarlierIncarnations::default(),
        };
        let Reply::Quota(grants) = log.reply(Command::Quota(batch)) else { panic!("no grants") };
        let held = log.state.meters.get(&id).map(|meter| meter.window.as_ref().map_or(0, MeterWindow::held));
        (grants[0], held)
    };
    let (first, held) = tell(1, 1, 1, entry(0, 0, Some(5)));
    assert_eq!((first.granted, held), (5, Some(5)));
    assert_eq!(tell(2, 1, 1, entry(0, 0, Some(4))).0.granted, 0, "only three are free");
    // The node dies with its calls, and its next incarnation says so with its first batch.
    let (second, held) = tell(1, 2, 1, entry(0, 0, Some(8)));
    assert_eq!((second.granted, held), (8, Some(8)));
    // Nobody waits any more, and then nobody calls.
    assert_eq!(tell(2, 1, 2, entry(0, 0, None)).1, Some(8));
    assert_eq!(tell(1, 2, 2, entry(second.window, 8, None)).1, None, "a meter that nobody uses is forgotten");
}
