//! Which connections have a place on a port, and which one gives it up when there is none left.
//!
//! A new connection is never kept waiting: the connection that is quiet for the longest makes room, first those that have shown no
//! valid credential, then those that have and are idle, then those whose requests' bodies are still coming. So a client that fills the
//! port closes its own connections, and a health check gets in; a call that is at a replica is never cut. Where none can make room, the connection gets one of a few spare places, on which only health checks are answered.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::task::{AbortHandle, Id, JoinError};
use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::activity::Claim;
use super::address::Address;
use super::cut::Cut;
use super::peer::{Connected, Shared};

/// Connections that one look at all of them finds to be next: looking at ten thousand for each new one would cost more than serving it.
const FOUND_MAX: usize = 256;
/// So many make room when the process has no file descriptor left.
const FILES: usize = 32;
/// The order in which connections make room.
const CLAIMS: [Claim; 3] = [Claim::Unauthenticated, Claim::Idle, Claim::Receiving];
/// One line of the log about a full port is written no more often than this.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// The connections of a port.
pub(super) struct Places {
    shared: Arc<Shared>,
    entries: HashMap<Id, Entry>,
    by_address: HashMap<Address, usize>,
    /// Places that are taken, but for the spare ones.
    taken: usize,
    spare: usize,
    serial: u64,
    found: HashMap<(Scope, Claim), VecDeque<Found>>,
    told: Option<Instant>,
}

struct Entry {
    connected: Arc<Connected>,
    task: AbortHandle,
    serial: u64,
}

/// Among which connections one makes room.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Scope {
    All,
    Of(Address),
    Spare,
}

/// A connection that may make room if nothing has happened on it since it was found.
struct Found {
    quiet_since: Instant,
    serial: u64,
    id: Id,
}

impl Places {
    pub(super) fn new(shared: Arc<Shared>) -> Places {
        Places {
            shared,
            entries: HashMap::new(),
            by_address: HashMap::new(),
            taken: 0,
            spare: 0,
            serial: 0,
            found: HashMap::new(),
            told: None,
        }
    }

    /// Makes room for a connection from `from`, and says what place it has.
    pub(super) fn admit(&mut self, from: SocketAddr) -> Arc<Connected> {
        let is_spare = !self.make_room(from);
        if is_spare && self.spare >= self.shared.limits.connections_reserved {
            self.close_one(Scope::Spare, Claim::Unauthenticated);
        }
        Arc::new(Connected::new(from, self.shared.clone(), is_spare))
    }

    /// Seats what was admitted, once its task runs.
    pub(super) fn seat(&mut self, connected: Arc<Connected>, task: AbortHandle) {
        self.serial += 1;
        if connected.is_spare {
            self.spare += 1;
        } else {
            self.taken += 1;
            *self.by_address.entry(Address::of(connected.from.ip())).or_default() += 1;
        }
        self.entries.insert(task.id(), Entry { connected, task, serial: self.serial });
        self.shared.metrics.open(self.entries.len(), self.shared.authenticated());
    }

    /// A connection's task has ended.
    pub(super) fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                if error.is_panic() {
                    error!(%error, "a connection's task panicked");
                }
                error.id()
            }
        };
        if let Some(entry) = self.remove(id) {
            entry.connected.ended();
            debug!(from = %entry.connected.from, "connection closed");
        }
        self.shared.metrics.open(self.entries.len(), self.shared.authenticated());
    }

    /// Accepting failed. Whether it is worth waiting before the next try: not for an error of one connection, or its client could make
    /// others wait. If there is no room for another socket, quiet connections give theirs up.
    pub(super) fn accept_failed(&mut self, error: &io::Error) -> bool {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, InvalidInput, NotConnected};
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | InvalidInput | NotConnected) {
            debug!(%error, "accept failed");
            return false;
        }
        let short = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
        let is_short = Errno::from_io_error(error).is_some_and(|errno| short.contains(&errno));
        let closed = if is_short { (0..FILES).take_while(|_| self.close_any(Scope::All)).count() } else { 0 };
        if self.may_tell() {
            warn!(%error, port = self.shared.metrics.port(), closed, "accept failed: quiet connections may have been closed");
        }
        true
    }

    /// Whether there is a place, perhaps after others gave theirs up.
    fn make_room(&mut self, from: SocketAddr) -> bool {
        let (limits, address) = (&self.shared.limits, Address::of(from.ip()));
        let (all, strangers) = (limits.connections_max, limits.connections_unauthenticated_max);
        let most = limits.connections_per_address_max;
        let is_crowded = self.by_address.get(&address).is_some_and(|open| *open >= most);
        if is_crowded && !self.shared.is_trusted(from) && !self.close_any(Scope::Of(address)) {
            return self.note_full();
        }
        if self.taken.saturating_sub(self.shared.authenticated()) >= strangers {
            self.close_one(Scope::All, Claim::Unauthenticated);
        }
        if self.taken >= all && !self.close_any(Scope::All) {
            return self.note_full();
        }
        true
    }

    fn note_full(&mut self) -> bool {
        if self.may_tell() {
            let (port, connections) = (self.shared.metrics.port(), self.entries.len());
            warn!(
                port,
                connections, "no connection can make room for another: calls on new connections are answered 503"
            );
        }
        false
    }

    fn may_tell(&mut self) -> bool {
        let now = Instant::now();
        let may = self.told.is_none_or(|told| now - told >= TELL_EVERY);
        if may {
            self.told = Some(now);
        }
        may
    }

    fn close_any(&mut self, scope: Scope) -> bool {
        CLAIMS.into_iter().any(|claim| self.close_one(scope, claim))
    }

    /// Closes the one that is quiet for the longest, if there is one.
    fn close_one(&mut self, scope: Scope, claim: Claim) -> bool {
        for is_fresh in [false, true] {
            if is_fresh {
                let found = self.look(scope, claim);
                self.found.insert((scope, claim), found);
            }
            while let Some(next) = self.found.get_mut(&(scope, claim)).and_then(VecDeque::pop_front) {
                if self.close(&next, claim) {
                    return true;
                }
            }
        }
        self.found.remove(&(scope, claim));
        false
    }

    fn close(&mut self, found: &Found, claim: Claim) -> bool {
        let Some(entry) = self.entries.get(&found.id) else { return false };
        if entry.connected.quiet_since() != found.quiet_since || !entry.connected.claim(claim) {
            return false;
        }
        entry.connected.cut(Cut::Room);
        debug!(from = %entry.connected.from, ?claim, "closing the connection: another needs its place");
        entry.task.abort();
        self.remove(found.id);
        true
    }

    /// The next to make room, longest quiet first.
    fn look(&self, scope: Scope, claim: Claim) -> VecDeque<Found> {
        let is_in = |connected: &Connected| match scope {
            Scope::All => !connected.is_spare,
            Scope::Of(address) => !connected.is_spare && Address::of(connected.from.ip()) == address,
            Scope::Spare => connected.is_spare,
        };
        let fits = |entry: &Entry| is_in(&entry.connected) && entry.connected.activity.fits(claim);
        let found = self.entries.iter().filter(|(_, entry)| fits(entry)).map(|(id, entry)| {
            let (quiet_since, serial) = (entry.connected.quiet_since(), entry.serial);
            Found { quiet_since, serial, id: *id }
        });
        let mut found: Vec<Found> = found.collect();
        found.sort_unstable_by_key(|found| (found.quiet_since, found.serial));
        found.truncate(FOUND_MAX);
        found.into()
    }

    fn remove(&mut self, id: Id) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        if entry.connected.is_spare {
            self.spare -= 1;
            return Some(entry);
        }
        self.taken -= 1;
        let address = Address::of(entry.connected.from.ip());
        let open = self.by_address.get_mut(&address).expect("every seated connection is counted");
        *open -= 1;
        if *open == 0 {
            self.by_address.remove(&address);
            for claim in CLAIMS {
                self.found.remove(&(Scope::Of(address), claim));
            }
        }
        Some(entry)
    }
}
