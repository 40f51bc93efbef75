//! The network between hosts: which messages arrive, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use turmoil::Sim;

use super::LATENCY;

/// What is wrong with the network.
#[derive(Default)]
pub(super) struct Wires {
    /// Nothing gets from the one host to the other.
    cut: BTreeSet<(String, String)>,
    /// Messages are kept.
    held: BTreeSet<Link>,
    /// Messages take up to so long.
    slow: BTreeMap<Link, Duration>,
    /// Of so many messages in a hundred, all that is on its way is lost.
    lossy: BTreeMap<Link, u64>,
}

/// Two hosts, in order: what happens to a link happens both ways.
type Link = (String, String);

fn link(a: &str, b: &str) -> Link {
    (a.min(b).to_owned(), a.max(b).to_owned())
}

impl Wires {
    pub(super) fn cut(&mut self, from: &str, to: &str) {
        self.cut.insert((from.to_owned(), to.to_owned()));
    }

    pub(super) fn hold(&mut self, a: &str, b: &str) {
        self.held.insert(link(a, b));
    }

    pub(super) fn slow(&mut self, a: &str, b: &str, most: Duration) {
        self.slow.insert(link(a, b), most);
    }

    pub(super) fn lose(&mut self, a: &str, b: &str, percent: u64) {
        self.lossy.insert(link(a, b), percent);
    }

    /// Nothing that `host` says from now on arrives anywhere, until the wires become as they are wanted: a machine without power does
    /// not even say that its connections are closed.
    pub(super) fn silence(&mut self, sim: &Sim<'_>, host: &str, others: impl Iterator<Item = String>) {
        self.held.retain(|(a, b)| a != host && b != host);
        for other in others.filter(|other| other != host) {
            sim.partition_oneway(host, other.as_str());
            self.cut(host, &other);
        }
    }

    /// Makes the network what is `wanted`. It cannot both cut a link and hold it, or lose some of what is on it: cutting wins.
    pub(super) fn become_as(&mut self, sim: &mut Sim<'_>, mut wanted: Wires) {
        let cut = &wanted.cut;
        let is_whole = |(a, b): &Link| !cut.contains(&(a.clone(), b.clone())) && !cut.contains(&(b.clone(), a.clone()));
        wanted.held.retain(is_whole);
        wanted.lossy.retain(|link, _| is_whole(link));
        for (a, b) in self.held.difference(&wanted.held) {
            sim.release(a.as_str(), b.as_str());
        }
        for (from, to) in self.cut.difference(&wanted.cut) {
            sim.repair_oneway(from.as_str(), to.as_str());
        }
        for (from, to) in wanted.cut.difference(&self.cut) {
            sim.partition_oneway(from.as_str(), to.as_str());
        }
        for (a, b) in wanted.held.difference(&self.held) {
            sim.hold(a.as_str(), b.as_str());
        }
        for (a, b) in self.slow.keys().filter(|link| !wanted.slow.contains_key(*link)) {
            sim.set_link_max_message_latency(a.as_str(), b.as_str(), LATENCY.1);
        }
        for ((a, b), latency) in &wanted.slow {
            sim.set_link_max_message_latency(a.as_str(), b.as_str(), *latency);
        }
        for (a, b) in self.lossy.keys().filter(|link| !wanted.lossy.contains_key(*link)) {
            sim.set_link_fail_rate(a.as_str(), b.as_str(), 0.0);
        }
        for ((a, b), percent) in &wanted.lossy {
            sim.set_link_fail_rate(a.as_str(), b.as_str(), *percent as f64 / 100.0);
        }
        *self = wanted;
    }
}
