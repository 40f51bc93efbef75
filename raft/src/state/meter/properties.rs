//! The ledger against a model that knows what really happened: every node's local allowance, every token it spent, every batch on the wire.
//!
//! The model does not repeat the ledger's arithmetic: it adds up grants, spendings and returns as they were accepted, and asks
//! whether the ledger agrees, and whether more was spent in any window than its limit, reported or not.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::command::{Acquire, Command, EarlierIncarnations, QuotaBatch, QuotaEntry, QuotaGrant, Reply};
use crate::state::testing::{Log, meter, subscription};

const NODES: u64 = 3;
const USERS: [&str; 2] = ["ann", "bob"];
const WINDOW_SECONDS: u32 = 10;

#[derive(Clone, Debug)]
enum Step {
    /// The node spends from its local allowance; what that does not have is used anyway, as excess.
    Spend { node: u64, user: usize, tokens: u64 },
    /// The node takes tokens out of its local allowance to give them back.
    Return { node: u64, user: usize, tokens: u64 },
    /// The node proposes what it has to tell, and acquires for the users that want something. It waits if a batch is in flight.
    Propose { node: u64, acquires: [Option<Acquire>; 2] },
    /// The batch in flight is applied so many times; the node hears the answer or does not.
    Deliver { node: u64, times: usize, heard: bool },
    /// A batch from long ago arrives again.
    DeliverOld { which: prop::sample::Index },
    /// The node loses its local allowance and everything it had not told.
    Restart { node: u64 },
    /// The node is taken out, unless it is the last. It goes on as if it had not heard of that.
    Retire { node: u64 },
    /// The leader's stamp moves, perhaps back.
    Time { millis: i64 },
    /// The subscription gets another limit.
    Limit { tokens: u64 },
    /// The state goes through a snapshot.
    Snapshot,
}

fn acquire(need: std::ops::Range<u64>, extra: std::ops::Range<u64>) -> impl Strategy<Value = Acquire> {
    (need, extra, any::<bool>()).prop_map(|(need, extra, alone)| Acquire { need, extra, alone })
}

fn step() -> impl Strategy<Value = Step> {
    let (node, user) = (1..=NODES, 0..USERS.len());
    let acquire = || prop::option::of(acquire(1..120, 0..200));
    prop_oneof![
        4 => (node.clone(), user.clone(), 1..80_u64).prop_map(|(node, user, tokens)| Step::Spend { node, user, tokens }),
        2 => (node.clone(), user, 1..80_u64).prop_map(|(node, user, tokens)| Step::Return { node, user, tokens }),
        8 => (node.clone(), acquire(), acquire()).prop_map(|(node, ann, bob)| Step::Propose { node, acquires: [ann, bob] }),
        8 => (node.clone(), 1..3_usize, any::<bool>()).prop_map(|(node, times, heard)| Step::Deliver { node, times, heard }),
        1 => any::<prop::sample::Index>().prop_map(|which| Step::DeliverOld { which }),
        1 => node.clone().prop_map(|node| Step::Restart { node }),
        1 => node.prop_map(|node| Step::Retire { node }),
        2 => (-2_000..6_000_i64).prop_map(|millis| Step::Time { millis }),
        1 => (1..300_u64).prop_map(|tokens| Step::Limit { tokens }),
        1 => Just(Step::Snapshot),
    ]
}

/// What one node holds of one meter, and what it has not told yet.
#[derive(Clone, Default)]
struct Allowance {
    window: u64,
    free: u64,
    spent: u64,
    returned: u64,
    excess: u64,
}

#[derive(Default)]
struct Node {
    incarnation: u64,
    sequence: u64,
    allowances: [Allowance; 2],
    flying: Option<QuotaBatch>,
}

/// What was accepted of one window.
#[derive(Clone, Default, Debug)]
struct Account {
    carried: u64,
    granted: u64,
    spent: u64,
    returned: u64,
    /// The highest limit there was while it was open.
    ceiling: u64,
    /// Spent out of its grants in truth, told or not.
    truly_spent: u64,
}

#[derive(Default)]
struct World {
    log: Log,
    limit: u64,
    nodes: BTreeMap<u64, Node>,
    sent: Vec<QuotaBatch>,
    accepted: BTreeSet<(NodeId, u64, u64)>,
    accounts: BTreeMap<(usize, u64), Account>,
    /// By user: excess that was accepted.
    excess: [u64; 2],
}

impl World {
    fn new(limit: u64) -> World {
        let mut world = World { limit, ..World::default() };
        world.log.time = Timestamp(1_000_000);
        world.log.create(subscription(limit, "10s"));
        for node in 1..=NODES {
            world.nodes.insert(node, Node { incarnation: 1, ..Node::default() });
        }
        world
    }

    fn node(&mut self, node: u64) -> &mut Node {
        self.nodes.get_mut(&node).expect("nodes are never removed")
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Spend { node, user, tokens } => self.spend(*node, *user, *tokens),
            Step::Return { node, user, tokens } => {
                let allowance = &mut self.node(*node).allowances[*user];
                let given = allowance.free.min(*tokens);
                allowance.free -= given;
                allowance.returned += given;
            }
            Step::Propose { node, acquires } => self.propose(*node, acquires),
            Step::Deliver { node, times, heard } => self.deliver(*node, *times, *heard),
            Step::DeliverOld { which } => {
                if !self.sent.is_empty() {
                    let batch = which.get(&self.sent).clone();
                    self.apply(&batch);
                }
            }
            Step::Restart { node } => {
                let node = self.node(*node);
                *node = Node { incarnation: node.incarnation + 1, ..Node::default() };
            }
            Step::Retire { node } => {
                // The last one is refused, and then nothing changes.
                self.log.reply(Command::RetireNode { node: NodeId(*node) });
            }
            Step::Time { millis } => self.log.time = Timestamp(self.log.time.0.saturating_add_signed(*millis)),
            Step::Limit { tokens } => {
                self.limit = *tokens;
                self.log.update(subscription(*tokens, "10s"));
            }
            Step::Snapshot => {
                let restored = State::from_bytes(&self.log.state.to_bytes()).unwrap();
                assert_eq!(restored, self.log.state);
                self.log.state = restored;
            }
        }
    }

    fn spend(&mut self, node: u64, user: usize, tokens: u64) {
        let allowance = &mut self.node(node).allowances[user];
        let spent = allowance.free.min(tokens);
        allowance.free -= spent;
        allowance.spent += spent;
        allowance.excess += tokens - spent;
        let window = allowance.window;
        if spent > 0 {
            self.accounts.get_mut(&(user, window)).expect("tokens come from a window").truly_spent += spent;
        }
    }

    fn propose(&mut self, number: u64, acquires: &[Option<Acquire>; 2]) {
        let node = self.node(number);
        if node.flying.is_some() {
            return;
        }
        node.sequence += 1;
        let entries = (0..USERS.len()).map(|user| {
            let allowance = &mut node.allowances[user];
            let entry = QuotaEntry {
                meter: meter(USERS[user], WINDOW_SECONDS),
                window: allowance.window,
                spent: allowance.spent,
                returned: allowance.returned,
                excess: allowance.excess,
                acquire: acquires[user],
            };
            *allowance = Allowance { window: allowance.window, free: allowance.free, ..Allowance::default() };
            entry
        });
        let entries = entries.collect();
        let batch = QuotaBatch {
            node: NodeId(number),
            incarnation: node.incarnation,
            sequence: node.sequence,
            entries,
            usage: Vec::new(),
            earlier: EarlierIncarnations::default(),
        };
        node.flying = Some(batch.clone());
        self.sent.push(batch);
    }

    fn deliver(&mut self, node: u64, times: usize, heard: bool) {
        let Some(batch) = self.node(node).flying.clone() else { return };
        let first = self.apply(&batch);
        for _ in 1..times {
            assert_eq!(self.apply(&batch), first, "a repeated batch is answered alike");
        }
        let (true, Some(grants)) = (heard, first) else { return };
        let node = self.node(node);
        node.flying = None;
        for (allowance, grant) in node.allowances.iter_mut().zip(grants) {
            if grant.window != allowance.window {
                // What is left of another window has lapsed, and so has what was to be told of it.
                *allowance = Allowance { window: grant.window, excess: allowance.excess, ..Allowance::default() };
            }
            allowance.free += grant.granted;
        }
    }

    /// Applies a batch and enters it into the accounts if it is new.
    fn apply(&mut self, batch: &QuotaBatch) -> Option<Vec<QuotaGrant>> {
        let open = |state: &State, user: usize| {
            let window = state.meters.get(&meter(USERS[user], WINDOW_SECONDS))?.window.clone()?;
            Some(window.number)
        };
        let before = self.log.state.meters.clone();
        let outcome = self.log.apply(Command::Quota(batch.clone()));
        let Reply::Quota(grants) = outcome.reply else {
            assert_eq!(self.log.state.meters, before, "a refused batch changes no meter");
            return None;
        };
        if !self.accepted.insert((batch.node, batch.incarnation, batch.sequence)) {
            assert_eq!(self.log.state.meters, before, "a repeated batch changes no meter");
            return Some(grants);
        }
        for (user, (entry, grant)) in batch.entries.iter().zip(&grants).enumerate() {
            self.excess[user] += entry.excess;
            let meter = before.get(&entry.meter).map(|meter| Meter::clone(meter)).unwrap_or_default();
            self.check_entry(meter, batch.node, entry, *grant);
            let Some(number) = open(&self.log.state, user) else { continue };
            let opened = self.log.state.meters[&entry.meter].window.clone().unwrap();
            let account = self
                .accounts
                .entry((user, number))
                .or_insert_with(|| Account { carried: opened.settled, ..Account::default() });
            account.granted += grant.granted;
            assert!(grant.granted == 0 || !self.log.state.retired.contains(&batch.node), "nothing for who is out");
            if entry.window == number {
                account.spent += entry.spent;
                account.returned += entry.returned;
            }
        }
        Some(grants)
    }

    /// Whether one entry was answered as the rule says, and every token of it is charged or owed. `before`: the meter before the batch.
    fn check_entry(&self, mut before: Meter, node: NodeId, entry: &QuotaEntry, grant: QuotaGrant) {
        before.pass_time(&entry.meter, self.log.state.time, Some(self.limit));
        let after = self.log.state.meters.get(&entry.meter).map(|meter| Meter::clone(meter)).unwrap_or_default();
        let charged = |meter: &Meter| meter.debt + meter.window.as_ref().map_or(0, |window| window.settled);
        let is_open = before.window.as_ref().is_some_and(|window| window.number == entry.window);
        let spent = if is_open { entry.spent } else { 0 };
        assert_eq!(charged(&after), charged(&before) + spent + entry.excess, "{before:?} {entry:?} {after:?}");

        let (Some(acquire), Some(window)) = (entry.acquire, &after.window) else { return };
        if grant.granted == 0 {
            return;
        }
        if grant.granted < acquire.need {
            assert!(acquire.alone, "only who is alone gets less than it needs: {entry:?} {grant:?}");
            assert!(window.granted.keys().all(|holder| *holder == node), "another node holds something: {window:?}");
            assert_eq!(window.free(self.limit), 0, "the rest is all there is: {window:?}");
        }
        assert!(grant.granted <= acquire.need + acquire.extra, "{entry:?} {grant:?}");
    }

    fn check(&mut self) {
        for (user, name) in USERS.iter().enumerate() {
            let id = meter(name, WINDOW_SECONDS);
            let Some(found) = self.log.state.meters.get(&id).cloned() else { continue };
            let mut covered_by_debt = found.debt;
            if let Some(window) = &found.window {
                let account = self.accounts.get_mut(&(user, window.number)).expect("a window opens in a batch");
                account.ceiling = account.ceiling.max(self.limit);
                assert!(window.settled + window.held() <= account.ceiling, "{window:?} under {}", account.ceiling);
                let waited_for = window.granted.keys().chain(window.wanted.keys());
                assert!(waited_for.into_iter().all(|node| !self.log.state.retired.contains(node)), "{window:?}");
                // Every granted token is held, spent or given back.
                assert_eq!(window.held(), account.granted - account.spent - account.returned, "{window:?} {account:?}");
                covered_by_debt += window.settled - account.spent;
            }
            // What is owed or was charged beyond grants was used beyond grants.
            assert!(covered_by_debt <= self.excess[user], "{found:?} of {}", self.excess[user]);
            assert_eq!(self.log.state.recalled.contains(&id), found.is_recalled());
        }
        for (window, account) in &self.accounts {
            assert!(account.truly_spent + account.carried <= account.ceiling, "window {window:?}: {account:?}");
        }
    }

    /// Long after everything, a few batches about nothing sweep the map.
    fn forget(&mut self) {
        self.log.time = self.log.time.plus(Duration::from_secs(1_000_000));
        self.node(1).incarnation += 1;
        for sequence in 1..=2 {
            let batch = QuotaBatch {
                node: NodeId(1),
                incarnation: self.node(1).incarnation,
                sequence,
                entries: Vec::new(),
                usage: Vec::new(),
                earlier: EarlierIncarnations::default(),
            };
            self.log.reply(Command::Quota(batch));
        }
        assert!(self.log.state.meters.is_empty() && self.log.state.recalled.is_empty());
        assert!(self.log.state.meters_due.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_window_gives_out_more_than_its_limit_whatever_happens_to_honest_nodes(
        limit in 1..300_u64,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(limit);
        for step in &steps {
            world.run(step);
            world.check();
        }
        world.forget();
    }

    #[test]
    fn nodes_that_report_nonsense_cannot_push_a_window_over_its_limit(
        limit in 1..300_u64,
        reports in prop::collection::vec(nonsense(), 1..60),
    ) {
        let mut log = Log { time: Timestamp(1_000_000), ..Log::default() };
        log.create(subscription(limit, "10s"));
        for (sequence, (node, report, acquire, millis)) in (1..).zip(reports) {
            log.time = log.time.plus(Duration::from_millis(millis));
            let open = log.state.meters.get(&meter("ann", WINDOW_SECONDS)).and_then(|meter| meter.window.as_ref());
            let window = open.map_or(0, |window| window.number);
            let entry = QuotaEntry { meter: meter("ann", WINDOW_SECONDS), window, acquire, ..report };
            log.reply(Command::Quota(QuotaBatch { node: NodeId(node), incarnation: 1, sequence, entries: vec![entry], usage: Vec::new(), earlier: EarlierIncarnations::default() }));
            if let Some(window) = log.state.meters.get(&meter("ann", WINDOW_SECONDS)).and_then(|meter| meter.window.as_ref()) {
                prop_assert!(window.settled + window.held() <= limit, "{window:?}");
            }
        }
    }
}

/// A node, amounts out of the air, an acquire, and how long later.
fn nonsense() -> impl Strategy<Value = (u64, QuotaEntry, Option<Acquire>, u64)> {
    let amount = || prop_oneof![3 => 0..400_u64, 1 => Just(u64::MAX)];
    let parts = (amount(), amount(), any::<bool>());
    let acquire = prop::option::of(parts.prop_map(|(need, extra, alone)| Acquire { need, extra, alone }));
    (1..=NODES, amount(), amount(), amount(), acquire, 0..4_000_u64).prop_map(
        |(node, spent, returned, excess, acquire, millis)| {
            let entry =
                QuotaEntry { meter: meter("ann", WINDOW_SECONDS), window: 0, spent, returned, excess, acquire: None };
            (node, entry, acquire, millis)
        },
    )
}
