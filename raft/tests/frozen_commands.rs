//! What commands, replies and snapshots look like as bytes: nodes of different versions share a log, so these never change.
//! Lines are only added, with the change that adds the variant. A line that has to be edited is a broken upgrade.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};

use raft::command::{
    Acquire, Command, CommandRefusal, EarlierIncarnations, NewKey, NewToken, QuotaBatch, QuotaEntry, QuotaGrant, Reply,
};
use raft::resources::{Kind, LimitKind, LimitScope, NewObject, ObjectKey, Unit};
use raft::state::{MeterId, Subject, UsageLabels, UsageRow, UsageSum};
use raft::{NodeId, RequestId, State, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

// Each line a name and the bytes in hex.
const COMMANDS: &str = include_str!("frozen/commands.txt");
const REPLIES: &str = include_str!("frozen/replies.txt");
const REFUSALS: &str = include_str!("frozen/refusals.txt");
const SNAPSHOTS: &str = include_str!("frozen/snapshots.txt");

fn uid(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn object(kind: Kind, namespace: &str, name: &str, body: &str) -> NewObject {
    NewObject {
        key: ObjectKey::new(kind, namespace, name),
        labels: BTreeMap::from([("l".to_owned(), "1".to_owned())]),
        annotations: BTreeMap::from([("a".to_owned(), "2".to_owned())]),
        body: body.to_owned(),
    }
}

fn meter() -> MeterId {
    MeterId {
        subscription: ("models-as-a-service".to_owned(), "s".to_owned()),
        model: ("n".to_owned(), "m".to_owned()),
        limit: LimitKind { window_seconds: 3600, unit: Unit::Total, scope: LimitScope::User },
        subject: Subject::User("ann".to_owned()),
    }
}

fn usage() -> UsageRow {
    let labels = UsageLabels {
        user: "ann".to_owned(),
        key: Some(uid(2)),
        subscription: ("models-as-a-service".to_owned(), "s".to_owned()),
        model: ("n".to_owned(), "m".to_owned()),
        organization: "o".to_owned(),
        cost_center: "c".to_owned(),
    };
    let sum = UsageSum {
        calls: 1,
        limited: 2,
        input: 3,
        cached: 4,
        output: 5,
        reasoning: 6,
        counted_calls: 7,
        counted: 8,
        estimated_calls: 9,
        estimated: 10,
        absurd_calls: 11,
    };
    UsageRow { at: Timestamp(50_000), labels, sum }
}

fn key() -> NewKey {
    NewKey {
        id: uid(2),
        hash: [3; 32],
        name: "k".to_owned(),
        description: "d".to_owned(),
        username: "ann".to_owned(),
        groups: vec!["g".to_owned()],
        subscription: "s".to_owned(),
        expires: Timestamp(90_000),
        ephemeral: true,
        labels: vec![("l".to_owned(), "1".to_owned())],
    }
}

fn commands() -> Vec<(&'static str, Command)> {
    let subscription =
        r#"{"spec":{"modelRefs":[{"name":"m","namespace":"n","tokenRateLimits":[{"limit":300,"window":"1h"}]}]}}"#;
    let group = ObjectKey::new(Kind::Group, "", "g");
    let token = NewToken {
        hash: [4; 32],
        username: "bot".to_owned(),
        groups: vec!["g".to_owned()],
        expires: Some(Timestamp(80_000)),
        service_account: None,
    };
    let acquire = Some(Acquire { need: 250, extra: 9, alone: false });
    let entry = QuotaEntry { meter: meter(), window: 7, spent: 1, returned: 2, excess: 3, acquire };
    let batch = QuotaBatch {
        node: NodeId(1),
        incarnation: 2,
        sequence: 3,
        entries: vec![entry],
        usage: vec![usage()],
        earlier: EarlierIncarnations::default(),
    };
    vec![
        (
            "create-object",
            Command::CreateObject {
                object: object(Kind::Subscription, "models-as-a-service", "s", subscription),
                uid: uid(1),
            },
        ),
        (
            "update-object",
            Command::UpdateObject {
                object: object(Kind::Group, "", "g", r#"{"users":["ann"]}"#),
                resource_version: Some(5),
            },
        ),
        ("delete-object", Command::DeleteObject { key: group, resource_version: None, uid: Some(uid(1)) }),
        ("create-key", Command::CreateKey(key())),
        ("revoke-key", Command::RevokeKey { id: uid(9), owner: Some("ann".to_owned()) }),
        ("revoke-keys", Command::RevokeKeys { username: "bob".to_owned() }),
        ("touch-keys", Command::TouchKeys(vec![(uid(2), Timestamp(60_000))])),
        ("create-token", Command::CreateToken(token)),
        ("quota", Command::Quota(batch)),
        ("retire-node", Command::RetireNode { node: NodeId(3) }),
    ]
}

/// Commands with what came after the state of [`snapshots_of_every_format_can_be_read`] was frozen.
fn later_commands() -> Vec<(&'static str, Command)> {
    let acquire = Some(Acquire { need: 250, extra: 9, alone: true });
    let entries = [acquire, None].map(|acquire| QuotaEntry {
        meter: meter(),
        window: 7,
        spent: 1,
        returned: 2,
        excess: 3,
        acquire,
    });
    let batch = QuotaBatch {
        node: NodeId(1),
        incarnation: 2,
        sequence: 3,
        entries: entries.to_vec(),
        usage: Vec::new(),
        earlier: EarlierIncarnations::default(),
    };
    vec![("quota", Command::Quota(batch))]
}
/// Commands about tokens, and keys that are made with one.
fn token_commands() -> Vec<(&'static str, Command)> {
    let key = NewKey { id: uid(8), hash: [6; 32], username: "bot".to_owned(), ..key() };
    vec![
        ("issue-key", Command::IssueKey { key, token: [4; 32] }),
        ("revoke-token", Command::RevokeToken { hash: [5; 32] }),
        ("touch-tokens", Command::TouchTokens(vec![([4; 32], Timestamp(60_000))])),
    ]
}

/// Commands that keep to the bounds of one user.
fn bounded_commands() -> Vec<(&'static str, Command)> {
    let account = ObjectKey::new(Kind::ServiceAccount, "n", "bot");
    let token = NewToken {
        hash: [7; 32],
        username: "system:serviceaccount:n:bot".to_owned(),
        groups: Vec::new(),
        expires: Some(Timestamp(80_000)),
        service_account: Some(account),
    };
    vec![
        (
            "make-key",
            Command::MakeKey { key: NewKey { id: uid(10), hash: [8; 32], ..key() }, token: [4; 32], seen: 300 },
        ),
        ("make-token", Command::MakeToken { token, seen: 300 }),
    ]
}

fn refusals() -> Vec<(&'static str, CommandRefusal)> {
    let key = ObjectKey::new(Kind::Tenant, "n", "t");
    vec![
        ("already-exists", CommandRefusal::AlreadyExists(key.clone())),
        ("object-not-found", CommandRefusal::ObjectNotFound(key.clone())),
        ("namespace-not-found", CommandRefusal::NamespaceNotFound("n".to_owned())),
        ("conflict", CommandRefusal::Conflict { key: key.clone(), wanted: 1, current: 2 }),
        ("uid-mismatch", CommandRefusal::UidMismatch(key.clone())),
        ("key-not-found", CommandRefusal::KeyNotFound),
        ("duplicate", CommandRefusal::Duplicate),
        ("stale-batch", CommandRefusal::StaleBatch { incarnation: 1, sequence: 2 }),
        ("last-node", CommandRefusal::LastNode(NodeId(3))),
        ("token-not-found", CommandRefusal::TokenNotFound),
        ("token-revoked", CommandRefusal::TokenRevoked),
        ("too-many-keys", CommandRefusal::TooManyKeys { max: 1000 }),
        ("key-field-too-long", CommandRefusal::KeyFieldTooLong { field: "name".to_owned(), bytes: 600, max: 512 }),
        ("key-text-used-up", CommandRefusal::KeyTextUsedUp { max: 300 }),
        ("too-many-tokens", CommandRefusal::TooManyTokens { account: key, max: 1000 }),
        ("too-late", CommandRefusal::TooLate),
    ]
}

/// A state to which all commands and then `more` were applied, the quota twice: once acquiring, once for an incarnation that starts anew.
fn state(more: Vec<(&str, Command)>) -> State {
    let mut state = State::default();
    for (index, (_, command)) in (1..).zip(commands().into_iter().chain(more)) {
        state.apply(index, RequestId(u128::from(index)), Timestamp(50_000 + index), command);
    }
    let batch = QuotaBatch {
        node: NodeId(1),
        incarnation: 3,
        sequence: 1,
        entries: Vec::new(),
        usage: Vec::new(),
        earlier: EarlierIncarnations::default(),
    };
    state.apply(20, RequestId(20), Timestamp(51_000), Command::Quota(batch));
    state
}

/// What the first format says: not when a token was made.
fn first_state() -> State {
    let mut state = state(Vec::new());
    for hash in state.tokens.keys().copied().collect::<Vec<_>>() {
        std::sync::Arc::make_mut(state.tokens.get_mut(&hash).expect("it is there")).created = None;
    }
    state
}

/// With a token that was revoked.
fn second_state() -> State {
    let mut state = state(token_commands());
    let token = NewToken {
        hash: [5; 32],
        username: "admin".to_owned(),
        groups: Vec::new(),
        expires: None,
        service_account: None,
    };
    for (index, command) in (21..).zip([Command::CreateToken(token), Command::RevokeToken { hash: [5; 32] }]) {
        state.apply(index, RequestId(u128::from(index)), Timestamp(51_000), command);
    }
    state
}

fn replies() -> Vec<(&'static str, Reply)> {
    let state = state(Vec::new());
    let subscription = ObjectKey::new(Kind::Subscription, "models-as-a-service", "s");
    let grant = QuotaGrant { granted: 1, window: 2, ends: Timestamp(3) };
    vec![
        ("done", Reply::Done),
        ("object", Reply::Object(state.object(&subscription).expect("it was created").clone())),
        ("key", Reply::Key(state.keys[&uid(2)].clone())),
        ("revoked", Reply::Revoked(300)),
        ("quota", Reply::Quota(vec![grant])),
        ("refused", Reply::Refused(CommandRefusal::KeyNotFound)),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().map(|digit| digit.to_digit(16).expect("hex") as u8).collect();
    digits.chunks(2).map(|pair| pair[0] * 16 + pair[1]).collect()
}

/// The same bytes as ever, and back.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(values: &[(&str, T)], frozen: &str) {
    let config = bincode::config::standard();
    let mut now = String::new();
    for (name, value) in values {
        let bytes = bincode::serde::encode_to_vec(value, config).expect("our types have bytes");
        writeln!(now, "{name} {}", hex(&bytes)).expect("writing to a string does not fail");
        let (read, used): (T, usize) = bincode::serde::decode_from_slice(&bytes, config).expect("it was just written");
        assert_eq!((&read, used), (value, bytes.len()), "{name} comes back as it was");
    }
    assert!(now == frozen, "the bytes changed; now they are\n{now}");
}

#[test]
fn every_command_keeps_its_bytes() {
    let named = [commands(), later_commands(), token_commands(), bounded_commands()].concat();
    assert!(named.iter().all(|(name, command)| *name == command.name()));
    check(&named, COMMANDS);
}

#[test]
fn every_reply_and_refusal_keeps_its_bytes() {
    check(&replies(), REPLIES);
    check(&refusals(), REFUSALS);
}

#[test]
fn snapshots_of_every_format_can_be_read() {
    let second = second_state();
    assert_eq!((second.objects.len(), second.keys.len(), second.tokens.len(), second.meters.len()), (4, 2, 1, 1));
    assert_eq!((second.retired.len(), second.revoked_tokens.len()), (1, 1));
    let now = hex(&second.to_bytes());
    let formats = [("first", first_state()), ("second", second)];
    assert!(SNAPSHOTS.trim_end().ends_with(&format!(" {now}")), "the bytes changed; now they are\n{now}");
    assert_eq!(SNAPSHOTS.lines().count(), formats.len());
    for (line, (format, state)) in SNAPSHOTS.lines().zip(formats) {
        let (name, hex) = line.split_once(' ').expect("a format and bytes");
        assert_eq!(name, format);
        assert_eq!(State::from_bytes(&bytes(hex)).unwrap(), state, "{format}");
    }
}
