//! The bytes on disk and of the greeting between peers, as they are for ever. A test here fails when a change would make
//! this version unable to read what another wrote: then add a version, and a case, instead of changing one.

use std::collections::{BTreeMap, BTreeSet};

use raft::peers::greeting::{Hello, Lane, Welcome};
use raft::storage::records::{
    Entry, Identity, Incarnation, LogId, LogPointer, Membership, Payload, PeerDisks, Sealed, SnapshotMeta, Vote,
};
use raft::{RequestId, Timestamp};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("two hexadecimal digits")).collect()
}

/// Each case both ways: what is written, and that what was written is read.
macro_rules! frozen {
    ($kind:ty, $($value:expr => $hex:expr;)*) => {$(
        let value: $kind = $value;
        assert_eq!(hex(&value.to_bytes()), $hex.replace(' ', ""), "{value:?} is written differently");
        assert_eq!(<$kind>::from_bytes(&bytes($hex)).unwrap(), value);
    )*};
}

#[test]
fn log_entries() {
    let id = |index| LogId { term: 3, node: 2, index };
    let sealed = Sealed {
        request: RequestId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
        time: Timestamp(1_772_000_000_123),
        command: vec![0xaa, 0xbb, 0xcc].into(),
    };
    let membership = Membership {
        voters: vec![BTreeSet::from([1, 2]), BTreeSet::from([1, 2, 3])],
        nodes: BTreeMap::from([(1, "a:1".into()), (2, "b:2".into()), (3, "c:3".into())]),
    };
    frozen! { Entry,
        Entry { id: id(7), payload: Payload::Blank } => "5447 01 0001 0001 00000004 57d18606 03020700";
        Entry { id: id(300), payload: Payload::Normal(sealed) } => "5447 01 0001 0001 00000024 0fabaf5e 0302fb2c0101fe100f0e0d0c0b0a090807060504030201fd7b386e939c01000003aabbcc";
        Entry { id: id(8), payload: Payload::Membership(membership) } => "5447 01 0001 0001 0000001c 83c7f907 030208020202010203010203030103613a310203623a320303633a33";
    }
}

#[test]
fn votes() {
    frozen! { Vote,
        Vote { term: 5, node: 3, committed: false } => "5447 01 0002 0001 00000003 434b08b8 050300";
        Vote { term: 70_000, node: 1, committed: true } => "5447 01 0002 0001 00000007 78f3b82a fc701101000101";
    }
}

#[test]
fn single_values() {
    frozen! { LogPointer,
        LogPointer(None) => "5447 01 0003 0001 00000001 08d12549 00";
        LogPointer(Some(LogId { term: 1, node: 2, index: 1000 })) => "5447 01 0003 0001 00000006 6f12ff59 010102fbe803";
    }
    frozen! { Identity, Identity { format: 1, cluster: "tollgate".into(), node: 2, disk: 0xdddd_0000_1111 } => "5447 01 0004 0001 00000014 1d2b51aa 0108746f6c6c6761746502fd11110000dddd0000"; }
    frozen! { PeerDisks, PeerDisks(BTreeMap::from([(1, 5), (3, 0xffff_ffff)])) => "5447 01 0008 0001 00000009 0be41738 02010503fcffffffff"; }
    frozen! { Incarnation, Incarnation(9) => "5447 01 0005 0001 00000001 b762946a 09"; }
}

#[test]
fn what_a_snapshot_says_of_itself() {
    let meta = SnapshotMeta {
        last: Some(LogId { term: 1, node: 2, index: 5000 }),
        membership_id: Some(LogId { term: 0, node: 0, index: 0 }),
        membership: Membership { voters: vec![BTreeSet::from([1])], nodes: BTreeMap::from([(1, "a:1".into())]) },
    };
    frozen! { SnapshotMeta, meta => "5447 01 0006 0001 00000013 3a96f636 010102fb881301000000010101010103613a31"; }
}

#[test]
fn the_greeting_between_peers() {
    frozen! { Hello,
        Hello { protocol: 1, cluster: "tollgate".into(), from: 1, disk: 0xaaaa_bbbb, to: 2, lane: Lane::Calls } => "5447 01 0014 0001 00000012 4af31850 0108746f6c6c6761746501fcbbbbaaaa0200";
        Hello { protocol: 1, cluster: "tollgate".into(), from: 3, disk: u128::MAX, to: 1, lane: Lane::Snapshot } => "5447 01 0014 0001 0000001e 728db25e 0108746f6c6c6761746503feffffffffffffffffffffffffffffffff0101";
    }
    frozen! { Welcome,
        Welcome::Accepted { disk: 0xcccc } => "5447 01 0015 0001 00000004 5b8256e0 00fbcccc";
        Welcome::Refused("this is node 1, not 3".into()) => "5447 01 0015 0001 00000017 c4d15fbe 011574686973206973206e6f646520312c206e6f742033";
    }
}
