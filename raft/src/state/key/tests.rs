//! What one user can make the cluster keep, and for how long, as tables and stories.

use std::time::Duration;

use uuid::Uuid;

use super::bounds::{KEY_DESCRIPTION_BYTES_MAX, KEY_LABELS_BYTES_MAX, KEY_NAME_BYTES_MAX};
use super::{ApiKey, KeyStatus};
use crate::command::{
    Acquire, Command, CommandRefusal, EarlierIncarnations, NewKey, NewToken, QuotaBatch, QuotaEntry, Reply,
};
use crate::ids::{NodeId, RequestId, Timestamp};
use crate::resources::{
    ADMINISTRATORS, DEFAULT_TENANT, Kind, LimitKind, LimitScope, ObjectKey, TENANT_NAMESPACE, Unit,
};
use crate::state::testing::{Log, meter, object};
use crate::state::{MeterId, State, Subject};

const START: Timestamp = Timestamp(1_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);
const FOR_EVER: Timestamp = Timestamp(u64::MAX / 2);

/// A log in which ann, bob and the administrator have a token each: 1, 2 and 9.
fn log(api_keys: &str) -> Log {
    let mut log = Log { time: START, ..Log::default() };
    bound(&mut log, api_keys);
    for (number, user, groups) in [(1, "ann", &[][..]), (2, "bob", &[]), (9, "root", &[ADMINISTRATORS])] {
        let token = NewToken {
            hash: [number; 32],
            username: user.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            expires: None,
            service_account: None,
        };
        assert_eq!(log.reply(Command::CreateToken(token)), Reply::Done);
    }
    log
}

/// Sets the Tenant's `spec.apiKeys`.
fn bound(log: &mut Log, api_keys: &str) {
    let body = format!(r#"{{"spec":{{"apiKeys":{api_keys}}}}}"#);
    log.update(object(Kind::Tenant, TENANT_NAMESPACE, DEFAULT_TENANT, &body));
}

fn new_key(number: u64, username: &str) -> NewKey {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.to_be_bytes());
    NewKey {
        id: id(number),
        hash,
        name: format!("key {number}"),
        description: String::new(),
        username: username.to_owned(),
        groups: Vec::new(),
        subscription: "team".to_owned(),
        expires: FOR_EVER,
        ephemeral: false,
        labels: Vec::new(),
    }
}

fn id(number: u64) -> Uuid {
    Uuid::from_u128(u128::from(number))
}

/// What somebody with a token gets who asks for this key now.
fn make(log: &mut Log, key: NewKey) -> Reply {
    let token = match key.username.as_str() {
        "ann" => 1,
        "bob" => 2,
        _ => 9,
    };
    let seen = log.index;
    log.reply(Command::MakeKey { key, token: [token; 32], seen })
}

fn made(log: &mut Log, key: NewKey) {
    let reply = make(log, key);
    assert!(matches!(reply, Reply::Key(_)), "{reply:?}");
}

fn revoke(log: &mut Log, number: u64) {
    let reply = log.reply(Command::RevokeKey { id: id(number), owner: None });
    assert!(matches!(reply, Reply::Key(_)), "{reply:?}");
}

/// An entry that is about nothing of all this.
fn pass(log: &mut Log) {
    log.reply(Command::TouchKeys(Vec::new()));
}

/// The numbers of a user's keys, those of the ended ones in brackets, by their end.
fn keys_of(log: &Log, username: &str) -> String {
    let shown = |key: &std::sync::Arc<ApiKey>| match key.status(log.time) {
        KeyStatus::Active => key.id.as_u128().to_string(),
        KeyStatus::Expired | KeyStatus::Revoked => format!("({})", key.id.as_u128()),
    };
    log.state.keys_of(username).map(shown).collect::<Vec<_>>().join(" ")
}

/// Nothing is derived for keys that are not there, and a snapshot gives the same.
fn check_derived(log: &Log) {
    let restored = State::from_bytes(&log.state.to_bytes()).unwrap();
    assert_eq!(restored, log.state);
    assert_eq!(log.state.keys_by_hash.len(), log.state.keys.len());
}

const FULL: Reply = Reply::Refused(CommandRefusal::TooManyKeys { max: 3 });

#[test]
fn a_user_has_so_many_working_keys_and_no_more_whoever_asks_wherever() {
    let mut log = log(r#"{"maxPerUser":3}"#);
    for number in 1..=3 {
        made(&mut log, new_key(number, "ann"));
    }
    let before = log.state.access_version;
    assert_eq!(make(&mut log, new_key(4, "ann")), FULL);
    assert_eq!((log.state.access_version, log.state.keys.len()), (before, 3));
    // Another user's do not count, and an administrator's have no bound.
    made(&mut log, new_key(5, "bob"));
    for number in 11..=20 {
        made(&mut log, new_key(number, "root"));
    }

    // A revoked one makes room, and one that has expired; an ephemeral one takes it like any other.
    revoke(&mut log, 2);
    made(&mut log, NewKey { ephemeral: true, expires: START.plus(DAY), ..new_key(4, "ann") });
    assert_eq!(make(&mut log, new_key(6, "ann")), FULL);
    log.time = START.plus(DAY);
    made(&mut log, new_key(6, "ann"));
    assert_eq!(keys_of(&log, "ann"), "(2) (4) 1 3 6");

    // An administrator by a Group is one as long as the Group says so.
    log.create(object(Kind::Group, "", ADMINISTRATORS, r#"{"users":["ann"]}"#));
    made(&mut log, new_key(7, "ann"));
    log.update(object(Kind::Group, "", ADMINISTRATORS, r#"{"users":["bob"]}"#));
    assert_eq!(make(&mut log, new_key(8, "ann")), FULL);
    // A higher bound is in force at once, and a lower one takes nothing away.
    bound(&mut log, r#"{"maxPerUser":5}"#);
    made(&mut log, new_key(8, "ann"));
    bound(&mut log, r#"{"maxPerUser":3}"#);
    assert_eq!(make(&mut log, new_key(9, "ann")), FULL);
    assert_eq!(keys_of(&log, "ann"), "(2) (4) 1 3 6 7 8");
    check_derived(&log);
}

#[test]
fn what_earlier_versions_recorded_stays_as_it_was() {
    let mut log = log(r#"{"maxPerUser":3}"#);
    let long = |number| NewKey { description: "d".repeat(60_000), ..new_key(number, "ann") };
    for number in 1..=10 {
        assert!(matches!(log.reply(Command::CreateKey(long(number))), Reply::Key(_)));
    }
    assert!(matches!(log.reply(Command::IssueKey { key: long(11), token: [1; 32] }), Reply::Key(_)));
    check_derived(&log);
    assert_eq!(make(&mut log, new_key(12, "ann")), FULL);
    assert_eq!(log.reply(Command::RevokeKeys { username: "ann".to_owned() }), Reply::Revoked(11));
    made(&mut log, new_key(12, "ann"));
    // So long texts have no room among one user's ended keys.
    assert_eq!(keys_of(&log, "ann"), "(11) 12");
}

#[test]
fn a_loop_of_creations_and_revocations_keeps_the_newest_only() {
    let mut log = log(r#"{"maxPerUser":3}"#);
    for number in 1..=500 {
        log.time = Timestamp(START.0 + number);
        made(&mut log, new_key(number, "ann"));
        revoke(&mut log, number);
        assert!(log.state.keys.len() <= 4, "{}", log.state.keys.len());
    }
    assert_eq!(keys_of(&log, "ann"), "(497) (498) (499) (500)");
    assert!(log.state.key_by_hash(&new_key(1, "ann").hash).is_none());
    assert_eq!((log.state.key_ends.len(), log.state.keys_by_owner.len()), (4, 1));
    check_derived(&log);
}

#[test]
fn the_texts_of_a_key_have_bounds_and_so_have_all_of_a_users() {
    let mut log = log("{}");
    let text = |bytes| "x".repeat(bytes);
    let labels = |bytes: usize| vec![("team".to_owned(), text(bytes - 4)), (String::new(), String::new())];
    let too_long = |field: &str, max: usize| {
        let (bytes, max) = (max as u64 + 1, max as u64);
        Reply::Refused(CommandRefusal::KeyFieldTooLong { field: field.to_owned(), bytes, max })
    };
    let key = new_key(1, "ann");
    let (name, description, all) = (KEY_NAME_BYTES_MAX, KEY_DESCRIPTION_BYTES_MAX, KEY_LABELS_BYTES_MAX);
    let table = [
        (NewKey { name: text(name + 1), ..key.clone() }, too_long("name", name)),
        (NewKey { description: text(description + 1), ..key.clone() }, too_long("description", description)),
        (NewKey { labels: labels(all + 1), ..key.clone() }, too_long("labels", all)),
        // An administrator's, too.
        (NewKey { name: text(name + 1), username: "root".to_owned(), ..key.clone() }, too_long("name", name)),
    ];
    for (key, refusal) in table {
        assert_eq!(make(&mut log, key), refusal);
    }
    let longest = |number, username| NewKey {
        name: text(name),
        description: text(description),
        labels: labels(all),
        ..new_key(number, username)
    };

    // A thousand keys' share are 320 of the longest.
    let used_up = Reply::Refused(CommandRefusal::KeyTextUsedUp { max: 4_096_000 });
    for number in 1..=319 {
        made(&mut log, longest(number, "ann"));
    }
    made(&mut log, new_key(329, "ann"));
    assert_eq!(make(&mut log, longest(328, "ann")), used_up);
    made(&mut log, new_key(331, "ann"));
    assert_eq!(log.state.keys_by_owner["ann"].text_bytes, 319 * 12_800 + 14);
    for number in 1001..=1321 {
        made(&mut log, longest(number, "root"));
    }
    // What has ended makes room: as much as is needed.
    revoke(&mut log, 5);
    log.time = log.time.plus(DAY);
    revoke(&mut log, 4);
    made(&mut log, longest(330, "ann"));
    assert!(log.state.keys.contains_key(&id(4)) && !log.state.keys.contains_key(&id(5)));
    check_derived(&log);
}

#[test]
fn ended_keys_are_forgotten_after_the_retention_a_few_with_each_entry() {
    let mut log = log(r#"{"retention":"24h"}"#);
    for number in 1..=40 {
        let expires = if number <= 20 { START.plus(DAY) } else { FOR_EVER };
        made(&mut log, NewKey { expires, ..new_key(number, "ann") });
    }
    // Twenty expire after a day, nineteen are revoked half a day later.
    log.time = START.plus(DAY + DAY / 2);
    for number in 21..=39 {
        revoke(&mut log, number);
    }
    let left = |log: &Log| log.state.keys.len();
    let kept = |log: &Log, number| log.state.keys[&id(number)].is_kept(log.state.key_bounds().retention, log.time);
    log.time = Timestamp(START.plus(2 * DAY).0 - 1);
    pass(&mut log);
    assert_eq!((left(&log), kept(&log, 1)), (40, true));
    log.time = START.plus(2 * DAY);
    pass(&mut log);
    assert_eq!((left(&log), kept(&log, 20)), (24, false), "sixteen with one entry");
    pass(&mut log);
    pass(&mut log);
    assert_eq!((left(&log), kept(&log, 21)), (20, true));

    // A change of the retention counts for those that are there.
    bound(&mut log, r#"{"retention":"12h"}"#);
    pass(&mut log);
    pass(&mut log);
    assert_eq!((keys_of(&log, "ann"), kept(&log, 40)), ("40".to_owned(), true));
    // Unknown is what they are: nothing is found, and nothing can be revoked.
    assert!(log.state.key_by_hash(&new_key(30, "ann").hash).is_none());
    let again = log.reply(Command::RevokeKey { id: id(30), owner: None });
    assert_eq!(again, Reply::Refused(CommandRefusal::KeyNotFound));
    assert_eq!(log.state.key_ends.len(), 1);
    check_derived(&log);
}

#[test]
fn what_the_ledger_keeps_for_a_key_goes_with_the_key_or_with_the_last_that_a_node_holds() {
    let mut log = log(r#"{"maxPerUser":1}"#);
    let body = r#"{"spec":{"owner":{"users":["ann"]},"modelRefs":[{"namespace":"llm","name":"granite",
        "tokenRateLimits":[{"limit":100,"window":"720h","scope":"key"}]}]}}"#;
    log.create(object(Kind::Subscription, TENANT_NAMESPACE, "team", body));
    let limit = LimitKind { window_seconds: 720 * 3600, unit: Unit::Total, scope: LimitScope::Key };
    let meter = |number| MeterId { limit, subject: Subject::Key(id(number)), ..meter("ann", 0) };
    let mut sequence = 0;
    let mut tell = |log: &mut Log, number, (window, spent, returned), need| {
        sequence += 1;
        let acquire = (need > 0).then(|| Acquire::of(need));
        let entry = QuotaEntry { meter: meter(number), window, spent, returned, excess: 0, acquire };
        let batch = QuotaBatch {
            node: NodeId(1),
            incarnation: 1,
            sequence,
            entries: vec![entry],
            usage: Vec::new(),
            earlier: EarlierIncarnations::default(),
        };
        match log.reply(Command::Quota(batch)) {
            Reply::Quota(grants) => (grants[0].window, grants[0].granted),
            other => panic!("{other:?}"),
        }
    };
    // Two keys, one after the other. Of the second's meter the node still holds 20.
    made(&mut log, new_key(1, "ann"));
    let (window, granted) = tell(&mut log, 1, (0, 0, 0), 30);
    tell(&mut log, 1, (window, granted, 0), 0);
    revoke(&mut log, 1);
    made(&mut log, new_key(2, "ann"));
    let (window, granted) = tell(&mut log, 2, (0, 0, 0), 30);
    assert!(granted >= 30);
    tell(&mut log, 2, (window, 10, granted - 30), 0);
    assert_eq!(log.state.meters.len(), 2);
    revoke(&mut log, 2);
    for number in 3..=5 {
        made(&mut log, new_key(number, "ann"));
        revoke(&mut log, number);
    }
    assert_eq!(keys_of(&log, "ann"), "(4) (5)");
    assert_eq!(log.state.meters.keys().collect::<Vec<_>>(), [&meter(2)]);

    // Whoever is late gets nothing, and nothing is left when all is told.
    assert_eq!(tell(&mut log, 1, (0, 0, 0), 30), (0, 0));
    assert_eq!(tell(&mut log, 2, (window, 15, 0), 30), (0, 0));
    assert_eq!(log.state.meters.len(), 1);
    assert_eq!(tell(&mut log, 2, (window, 0, 5), 0), (0, 0));
    assert!(log.state.meters.is_empty() && log.state.meters_due.is_empty());
    check_derived(&log);
}

#[test]
fn a_creation_that_is_repeated_after_its_key_was_forgotten_makes_nothing() {
    let mut log = log(r#"{"maxPerUser":1,"retention":"1s"}"#);
    let seen = log.index;
    let creation = || Command::MakeKey { key: new_key(1, "ann"), token: [1; 32], seen };
    let account = ObjectKey::new(Kind::ServiceAccount, TENANT_NAMESPACE, "bot");
    log.create(object(Kind::ServiceAccount, TENANT_NAMESPACE, "bot", "{}"));
    let new_token = NewToken {
        hash: [5; 32],
        username: "bot".to_owned(),
        groups: Vec::new(),
        expires: Some(FOR_EVER),
        service_account: Some(account),
    };
    let token_creation = || Command::MakeToken { token: new_token.clone(), seen };
    let (first, second) = (RequestId(1 << 100), RequestId(2 << 100));
    let apply = |log: &mut Log, request, command| {
        log.index += 1;
        log.state.apply(log.index, request, log.time, command).reply
    };
    let answers = [apply(&mut log, first, creation()), apply(&mut log, second, token_creation())];
    assert!(matches!(answers[0], Reply::Key(_)) && answers[1] == Reply::Done);
    revoke(&mut log, 1);
    assert_eq!(log.reply(Command::RevokeToken { hash: [5; 32] }), Reply::Done);
    log.time = log.time.plus(Duration::from_secs(1));
    pass(&mut log);
    assert!(log.state.keys.is_empty());

    // However late the repetition is: first its answer is remembered, then it comes too late.
    let too_late = [Reply::Refused(CommandRefusal::TooLate), Reply::Refused(CommandRefusal::TooLate)];
    let mut passed = 0;
    loop {
        let repeated = [apply(&mut log, first, creation()), apply(&mut log, second, token_creation())];
        assert_eq!((log.state.keys.len(), log.state.tokens.len()), (0, 3), "{passed}");
        if repeated == too_late {
            break;
        }
        assert_eq!(repeated, answers, "{passed}");
        pass(&mut log);
        passed += 1;
    }
    assert!((4_000..4_100).contains(&passed), "{passed}");
    // A new request is as good as ever.
    made(&mut log, new_key(2, "ann"));
}

#[test]
fn an_account_has_so_many_valid_tokens() {
    let mut log = log("{}");
    let account = |name: &str| ObjectKey::new(Kind::ServiceAccount, TENANT_NAMESPACE, name);
    for name in ["bot", "other"] {
        log.create(object(Kind::ServiceAccount, TENANT_NAMESPACE, name, "{}"));
    }
    let create = |log: &mut Log, number: u64, name: &str, expires| {
        let NewKey { hash, .. } = new_key(number, "");
        let token = NewToken {
            hash,
            username: name.to_owned(),
            groups: Vec::new(),
            expires: Some(expires),
            service_account: Some(account(name)),
        };
        let seen = log.index;
        log.reply(Command::MakeToken { token, seen })
    };
    let soon = START.plus(Duration::from_secs(600));
    for number in 1..=1000 {
        let expires = if number <= 100 { soon } else { FOR_EVER };
        assert_eq!(create(&mut log, number, "bot", expires), Reply::Done);
    }
    let full = Reply::Refused(CommandRefusal::TooManyTokens { account: account("bot"), max: 1000 });
    assert_eq!(create(&mut log, 1001, "bot", FOR_EVER), full);
    assert_eq!(create(&mut log, 1002, "other", FOR_EVER), Reply::Done);

    // Those that have expired make room at once, and are gone a few entries later.
    log.time = soon;
    assert_eq!(create(&mut log, 1001, "bot", FOR_EVER), Reply::Done);
    assert_eq!(log.state.tokens.len(), 3 + 1002 - 16);
    for _ in 0..6 {
        pass(&mut log);
    }
    assert_eq!(log.state.tokens.len(), 3 + 902);
    check_derived(&log);
    log.reply(Command::DeleteObject { key: account("bot"), resource_version: None, uid: None });
    assert_eq!((log.state.tokens.len(), log.state.token_ends.len(), log.state.tokens_by_account.len()), (4, 1, 1));
}
