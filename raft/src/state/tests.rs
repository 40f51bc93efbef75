//! Objects, keys, tokens and snapshots, as stories.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::testing::{Log, meter, object, subscription};
use super::*;
use crate::command::{Acquire, EarlierIncarnations, NewKey, NewToken, QuotaBatch, QuotaEntry};
use crate::resources::{Kind, Spec, TENANT_NAMESPACE};

fn uid(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn body(owner: &str) -> String {
    format!(r#"{{"users":["{owner}"]}}"#)
}

fn create(log: &mut Log, kind: Kind, namespace: &str, name: &str) -> Reply {
    let body = if kind == Kind::Group { body("ann") } else { "{}".to_owned() };
    let uid = uid(u128::from(log.index) + 1);
    log.reply(Command::CreateObject { object: object(kind, namespace, name, &body), uid })
}

fn object_of(reply: Reply) -> Arc<Object> {
    match reply {
        Reply::Object(object) => object,
        other => panic!("{other:?}"),
    }
}

fn new_key(number: u8, username: &str) -> NewKey {
    NewKey {
        id: uid(u128::from(number)),
        hash: [number; 32],
        name: format!("key {number}"),
        description: String::new(),
        username: username.to_owned(),
        groups: vec!["tutors".to_owned()],
        subscription: "team".to_owned(),
        expires: Timestamp(100_000),
        ephemeral: false,
        labels: vec![("team".to_owned(), "calculus".to_owned())],
    }
}

#[test]
fn a_new_cluster_has_the_namespaces_and_the_tenant_that_manifests_take_for_granted() {
    let mut log = Log { time: Timestamp(5_000), ..Log::default() };
    let names: Vec<String> = log.state.objects.keys().map(ToString::to_string).collect();
    let tenant = "Tenant models-as-a-service/default-tenant";
    assert_eq!(names, ["Namespace default", "Namespace models-as-a-service", tenant]);
    assert!(log.state.objects.values().all(|object| object.resource_version == 1 && !object.uid.is_nil()));

    // They are as old as the first command, since the cluster knows no time before.
    log.reply(Command::RevokeKeys { username: "nobody".to_owned() });
    assert!(log.state.objects.values().all(|object| object.created == Timestamp(5_000)));
}

#[test]
fn an_object_lives_through_create_update_and_delete() {
    let mut log = Log { time: Timestamp(5_000), ..Log::default() };
    let key = ObjectKey::new(Kind::Group, "", "tutors");

    // Created once.
    let created = object_of(create(&mut log, Kind::Group, "", "tutors"));
    assert_eq!((created.generation, created.resource_version, created.created), (1, 1, Timestamp(5_000)));
    assert_eq!(create(&mut log, Kind::Group, "", "tutors"), Reply::Refused(CommandRefusal::AlreadyExists(key.clone())));
    assert_eq!(log.state.groups_of("ann"), ["tutors"]);

    // An update that changes nothing, or only the blanks, is no change.
    let same = object(Kind::Group, "", "tutors", r#"{ "users": ["ann"] }"#);
    let outcome = log.apply(Command::UpdateObject { object: same.clone(), resource_version: Some(1) });
    assert_eq!((object_of(outcome.reply), outcome.changed), (Arc::clone(&created), false));

    // A label moves the version, a body moves the generation too.
    let mut labelled = same;
    labelled.labels.insert("team".to_owned(), "calculus".to_owned());
    log.time = Timestamp(6_000);
    let updated = object_of(log.reply(Command::UpdateObject { object: labelled, resource_version: Some(1) }));
    assert_eq!((updated.generation, updated.resource_version, updated.updated), (1, 4, Timestamp(6_000)));
    let object = object(Kind::Group, "", "tutors", &body("bob"));
    let updated = object_of(log.reply(Command::UpdateObject { object: object.clone(), resource_version: None }));
    assert_eq!((updated.generation, updated.resource_version, updated.uid), (2, 5, created.uid));
    assert_eq!((updated.created, log.state.groups_of("ann").len()), (Timestamp(5_000), 0));

    // What the caller has in mind must be what is there.
    let conflict = CommandRefusal::Conflict { key: key.clone(), wanted: 4, current: 5 };
    let stale = Command::UpdateObject { object, resource_version: Some(4) };
    assert_eq!(log.reply(stale), Reply::Refused(conflict.clone()));
    let delete = |resource_version, uid| Command::DeleteObject { key: key.clone(), resource_version, uid };
    assert_eq!(log.reply(delete(Some(4), None)), Reply::Refused(conflict));
    assert_eq!(log.reply(delete(None, Some(uid(99)))), Reply::Refused(CommandRefusal::UidMismatch(key.clone())));
    assert_eq!(object_of(log.reply(delete(Some(5), Some(created.uid)))), updated);
    assert_eq!(log.state.access_version, log.index);
    assert_eq!(log.reply(delete(None, None)), Reply::Refused(CommandRefusal::ObjectNotFound(key.clone())));
}

#[test]
fn a_namespace_comes_first_and_takes_its_objects_and_their_tokens_with_it() {
    let mut log = Log::default();
    let account = ObjectKey::new(Kind::ServiceAccount, "llm", "bot");
    let missing = Reply::Refused(CommandRefusal::NamespaceNotFound("llm".to_owned()));
    assert_eq!(create(&mut log, Kind::ServiceAccount, "llm", "bot"), missing);
    for (kind, namespace, name) in [
        (Kind::Namespace, "", "llm"),
        (Kind::Namespace, "", "llm-2"),
        (Kind::ServiceAccount, "llm", "bot"),
        (Kind::ServiceAccount, "llm-2", "bot"),
        (Kind::InferenceService, "llm", "granite"),
        (Kind::Group, "", "llm"),
    ] {
        object_of(create(&mut log, kind, namespace, name));
    }
    let token = |number: u8, service_account| NewToken {
        hash: [number; 32],
        username: "bot".to_owned(),
        groups: Vec::new(),
        expires: None,
        service_account,
    };
    log.reply(Command::CreateToken(token(1, Some(account.clone()))));
    log.reply(Command::CreateToken(token(2, None)));

    object_of(log.reply(Command::DeleteObject {
        key: ObjectKey::new(Kind::Namespace, "", "llm"),
        resource_version: None,
        uid: None,
    }));
    let left: Vec<String> =
        log.state.objects.keys().map(ToString::to_string).filter(|name| name.contains("llm")).collect();
    assert_eq!(left, ["Namespace llm-2", "ServiceAccount llm-2/bot", "Group llm"]);
    assert_eq!(log.state.tokens.len(), 1);
    assert!(log.state.token_by_hash(&[2; 32]).is_some());

    // A token cannot come after its account.
    let late = log.reply(Command::CreateToken(token(3, Some(account.clone()))));
    assert_eq!(late, Reply::Refused(CommandRefusal::ObjectNotFound(account)));
}

#[test]
fn expired_tokens_are_swept_when_another_is_drawn() {
    let mut log = Log::default();
    let token = |number: u8, expires| {
        Command::CreateToken(NewToken {
            hash: [number; 32],
            username: "ann".to_owned(),
            groups: Vec::new(),
            expires,
            service_account: None,
        })
    };
    assert_eq!(log.reply(token(1, Some(Timestamp(2_000)))), Reply::Done);
    assert_eq!(log.reply(token(1, None)), Reply::Refused(CommandRefusal::Duplicate));
    assert!(log.state.token_by_hash(&[1; 32]).unwrap().is_valid(Timestamp(1_999)));
    assert!(!log.state.token_by_hash(&[1; 32]).unwrap().is_valid(Timestamp(2_000)));
    log.time = Timestamp(2_000);
    log.reply(token(2, None));
    assert_eq!(log.state.tokens.keys().collect::<Vec<_>>(), [&[2; 32]]);
}

#[test]
fn a_key_is_found_by_its_hash_until_it_is_revoked_once_and_for_all() {
    let mut log = Log { time: Timestamp(1_000), ..Log::default() };
    let not_found = || Reply::Refused(CommandRefusal::KeyNotFound);
    for (number, owner) in [(1, "ann"), (2, "ann"), (3, "bob")] {
        assert!(matches!(log.reply(Command::CreateKey(new_key(number, owner))), Reply::Key(_)));
    }
    assert_eq!(log.reply(Command::CreateKey(new_key(1, "eve"))), Reply::Refused(CommandRefusal::Duplicate));
    assert_eq!(log.state.key_by_hash(&[2; 32]).map(|key| key.id), Some(uid(2)));
    assert_eq!(log.state.keys_of("ann").count(), 2);

    // Uses arrive in any order, and do not count as a change of access.
    let access = log.state.access_version;
    assert!(log.apply(Command::TouchKeys(vec![(uid(1), Timestamp(900)), (uid(9), Timestamp(900))])).changed);
    assert!(!log.apply(Command::TouchKeys(vec![(uid(1), Timestamp(800))])).changed);
    assert_eq!(log.state.keys[&uid(1)].last_used, Some(Timestamp(900)));
    assert_eq!(log.state.access_version, access);

    // Only its owner, and only once.
    let revoke = |number, owner: Option<&str>| Command::RevokeKey { id: uid(number), owner: owner.map(str::to_owned) };
    assert_eq!(log.reply(revoke(1, Some("bob"))), not_found());
    let Reply::Key(revoked) = log.reply(revoke(1, Some("ann"))) else { panic!("refused") };
    assert_eq!(revoked.status(log.time), KeyStatus::Revoked);
    assert_eq!(log.state.access_version, log.index);
    assert_eq!(log.reply(revoke(1, None)), not_found());
    assert_eq!(log.reply(revoke(9, None)), not_found());

    // All of a user: those that still work.
    assert_eq!(log.reply(Command::RevokeKeys { username: "ann".to_owned() }), Reply::Revoked(1));
    assert!(!log.apply(Command::RevokeKeys { username: "ann".to_owned() }).changed);
    log.time = Timestamp(100_000);
    assert_eq!(log.reply(revoke(3, None)), not_found());
    assert_eq!(log.state.keys[&uid(3)].status(log.time), KeyStatus::Expired);
}

#[test]
fn ephemeral_keys_are_forgotten_half_an_hour_after_their_end() {
    let mut log = Log { time: Timestamp(1_000), ..Log::default() };
    for number in 1..=6 {
        log.reply(Command::CreateKey(NewKey { ephemeral: true, ..new_key(number, "ann") }));
    }
    let half_an_hour = Duration::from_secs(30 * 60);
    log.time = Timestamp(99_999).plus(half_an_hour);
    log.reply(Command::CreateKey(new_key(7, "ann")));
    assert_eq!(log.state.keys.len(), 7);

    // A few at a time, and never one that is meant to stay.
    log.time = Timestamp(100_000).plus(half_an_hour);
    log.reply(Command::CreateKey(new_key(8, "bob")));
    log.reply(Command::CreateKey(new_key(9, "bob")));
    assert_eq!(log.state.keys.keys().copied().collect::<Vec<_>>(), [uid(7), uid(8), uid(9)]);
    assert_eq!((log.state.keys_of("ann").count(), log.state.key_by_hash(&[1; 32])), (1, None));
    assert_eq!(
        (log.state.keys_by_hash.len(), log.state.keys_by_owner.len(), log.state.ephemeral_ends.len()),
        (3, 2, 0)
    );
}

#[test]
fn a_snapshot_gives_the_same_state_and_the_same_future() {
    let mut log = Log { time: Timestamp(1_000), ..Log::default() };
    log.create(subscription(100, "60s"));
    log.create(object(Kind::Subscription, TENANT_NAMESPACE, "odd", r#"{"spec":{"modelRefs":7}}"#));
    log.reply(Command::CreateKey(NewKey { ephemeral: true, ..new_key(1, "ann") }));
    let acquire = |node, need| {
        let acquire = Some(Acquire::of(need));
        let entry = QuotaEntry { meter: meter("ann", 60), window: 0, spent: 0, returned: 0, excess: 3, acquire };
        Command::Quota(QuotaBatch {
            node: NodeId(node),
            incarnation: 1,
            sequence: 1,
            entries: vec![entry],
            usage: Vec::new(),
            earlier: EarlierIncarnations::default(),
        })
    };
    log.reply(acquire(1, 60));
    log.reply(acquire(2, 60));
    assert_eq!(log.state.recalled.len(), 1);

    // A body that nobody understands is kept and means nothing.
    let odd = log.state.object(&ObjectKey::new(Kind::Subscription, TENANT_NAMESPACE, "odd")).unwrap();
    let Spec::Unreadable(why) = &odd.spec else { panic!("{:?}", odd.spec) };
    assert_eq!(why, "spec.modelRefs: must be a list, not 7");

    let bytes = log.state.to_bytes();
    let mut restored = State::from_bytes(&bytes).unwrap();
    assert_eq!(restored, log.state);
    assert_eq!(restored.to_bytes(), bytes);

    // A request from before the snapshot is still known after it.
    let again = restored.apply(50, RequestId(1), Timestamp(1_000), Command::CreateKey(new_key(4, "ann")));
    assert!(matches!(again.reply, Reply::Object(_)));

    // Damage is noticed, not guessed around.
    assert!(State::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    assert!(State::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
    assert!(State::from_bytes(&[200; 40]).is_err());
}

#[test]
fn the_state_clock_and_the_index_never_go_back() {
    let mut log = Log { time: Timestamp(9_000), ..Log::default() };
    create(&mut log, Kind::Group, "", "tutors");
    log.time = Timestamp(8_000);
    let late = object_of(create(&mut log, Kind::Group, "", "pupils"));
    assert_eq!((late.created, log.state.time, log.state.applied), (Timestamp(9_000), Timestamp(9_000), 2));
}
