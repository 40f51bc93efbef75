//! Which disk each node had when this one first met it.
//!
//! A node that lost its disk forgot what it voted for and what it acknowledged: let back in under the same number, it
//! could help to elect a leader that lacks acknowledged changes. So every disk has a number drawn at its first start,
//! nodes say it when they greet, remember the other's, and refuse a node that comes back with another. It joins
//! under a new number instead.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::sync::{Mutex, PoisonError};

use crate::storage::records::PeerDisks;
use crate::storage::{Key, Write, Writer};

/// The disks of this node and of those it met.
pub(crate) struct Acquaintances {
    own: u128,
    met: Mutex<BTreeMap<u64, u128>>,
    writer: Writer,
}

impl Acquaintances {
    /// As the disk remembers them.
    pub(crate) fn new(own: u128, met: BTreeMap<u64, u128>, writer: Writer) -> Acquaintances {
        Acquaintances { own, met: Mutex::new(met), writer }
    }

    /// This node's disk.
    pub(super) fn own(&self) -> u128 {
        self.own
    }

    /// Meets `node`: at the first time its disk is remembered durably before this returns. Errors: it has another
    /// disk than before, or ours cannot be written.
    pub(super) async fn meet(&self, node: u64, disk: u128) -> io::Result<()> {
        let remembered = {
            let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
            match met.entry(node) {
                Entry::Occupied(known) if *known.get() == disk => return Ok(()),
                Entry::Occupied(_) => {
                    let message = format!(
                        "node {node} came back with another disk: remove it from the cluster and start it under a new \
                         number"
                    );
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
                }
                Entry::Vacant(unknown) => unknown.insert(disk),
            };
            PeerDisks(met.clone())
        };
        let record = remembered.to_bytes().into();
        self.writer.commit(vec![Write::Put { key: Key::PeerDisks, record }]).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::{Disk, MemoryDisk};

    #[tokio::test]
    async fn a_node_is_known_by_its_disk_for_ever() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let (writer, _) = Writer::start(disk.clone());
        let acquaintances = Acquaintances::new(1, BTreeMap::new(), writer.clone());
        acquaintances.meet(2, 22).await.unwrap();
        acquaintances.meet(2, 22).await.unwrap();
        acquaintances.meet(3, 33).await.unwrap();
        assert_eq!(acquaintances.meet(2, 99).await.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let written = disk.get(Key::PeerDisks).await.unwrap().expect("it was written");
        let PeerDisks(met) = PeerDisks::from_bytes(&written).unwrap();
        let after_restart = Acquaintances::new(1, met, writer);
        assert!(after_restart.meet(3, 99).await.is_err());
        after_restart.meet(3, 33).await.unwrap();
    }
}
