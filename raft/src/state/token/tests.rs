//! How tokens, keys and their owners end, as stories.

use uuid::Uuid;

use crate::command::{Command, CommandRefusal, NewKey, NewToken, Reply};
use crate::ids::{RequestId, Timestamp};
use crate::resources::{Kind, ObjectKey};
use crate::state::testing::{Log, object};
use crate::state::{KeyStatus, State};

const BOT: &str = "system:serviceaccount:llm:bot";

fn account() -> ObjectKey {
    ObjectKey::new(Kind::ServiceAccount, "llm", "bot")
}

/// A log in which the ServiceAccount `llm/bot` is.
fn log() -> Log {
    let mut log = Log { time: Timestamp(1_000), ..Log::default() };
    log.create(object(Kind::Namespace, "", "llm", "{}"));
    log.create(object(Kind::ServiceAccount, "llm", "bot", "{}"));
    log
}

fn new_key(number: u8, username: &str) -> NewKey {
    NewKey {
        id: Uuid::from_u128(u128::from(number)),
        hash: [number; 32],
        name: format!("key {number}"),
        description: String::new(),
        username: username.to_owned(),
        groups: Vec::new(),
        subscription: "team".to_owned(),
        expires: Timestamp(100_000),
        ephemeral: false,
        labels: Vec::new(),
    }
}

fn new_token(number: u8, username: &str, expires: Option<u64>, service_account: Option<ObjectKey>) -> Command {
    Command::CreateToken(NewToken {
        hash: [number; 32],
        username: username.to_owned(),
        groups: Vec::new(),
        expires: expires.map(Timestamp),
        service_account,
    })
}

fn issue(number: u8, username: &str, token: u8) -> Command {
    Command::IssueKey { key: new_key(number, username), token: [token; 32] }
}

fn delete(key: ObjectKey) -> Command {
    Command::DeleteObject { key, resource_version: None, uid: None }
}

fn status(log: &Log, number: u8) -> KeyStatus {
    let key = &log.state.keys[&Uuid::from_u128(u128::from(number))];
    log.state.status_of(key, log.time)
}

const GONE: Reply = Reply::Refused(CommandRefusal::TokenNotFound);

#[test]
fn an_owner_takes_keys_and_tokens_along_and_a_new_one_of_that_name_gets_none_of_them() {
    // However the owner goes: all of this within one millisecond of the state clock.
    for deleted in [account(), ObjectKey::new(Kind::Namespace, "", "llm")] {
        let mut log = log();
        log.reply(new_token(1, BOT, Some(90_000), Some(account())));
        log.reply(new_token(2, "ann", None, None));
        assert!(matches!(log.reply(issue(1, BOT, 1)), Reply::Key(_)));
        assert!(matches!(log.reply(issue(2, "ann", 2)), Reply::Key(_)));
        assert_eq!((status(&log, 1), status(&log, 2)), (KeyStatus::Active, KeyStatus::Active));

        log.reply(delete(deleted.clone()));
        assert_eq!((status(&log, 1), status(&log, 2)), (KeyStatus::Revoked, KeyStatus::Active), "{deleted}");
        assert_eq!(log.state.tokens.keys().collect::<Vec<_>>(), [&[2; 32]]);

        if deleted.kind == Kind::Namespace {
            log.create(object(Kind::Namespace, "", "llm", "{}"));
        }
        log.create(object(Kind::ServiceAccount, "llm", "bot", "{}"));
        assert_eq!(status(&log, 1), KeyStatus::Revoked, "{deleted}");

        // A request that the old owner's token was admitted for, and that comes late.
        assert_eq!(log.reply(issue(3, BOT, 1)), GONE, "{deleted}");
        log.reply(new_token(3, BOT, Some(90_000), Some(account())));
        assert!(matches!(log.reply(issue(4, BOT, 3)), Reply::Key(_)));
        assert_eq!(status(&log, 4), KeyStatus::Active);
    }
}

#[test]
fn a_key_is_made_only_while_the_token_works_and_only_for_its_user() {
    let mut log = log();
    log.reply(new_token(1, "ann", Some(2_000), None));
    assert_eq!(log.reply(issue(1, "bob", 1)), GONE);
    assert_eq!(log.reply(issue(1, "ann", 9)), GONE);
    log.time = Timestamp(1_999);
    assert!(matches!(log.reply(issue(1, "ann", 1)), Reply::Key(_)));
    log.time = Timestamp(2_000);
    assert_eq!(log.reply(issue(2, "ann", 1)), GONE);
    log.reply(new_token(2, "ann", None, None));
    log.reply(Command::RevokeToken { hash: [2; 32] });
    assert_eq!(log.reply(issue(2, "ann", 2)), GONE);
    assert_eq!(log.state.keys.len(), 1);
}

#[test]
fn a_revoked_token_is_gone_and_no_file_brings_it_back() {
    let mut log = log();
    log.reply(new_token(1, "admin", None, None));
    log.reply(new_token(2, BOT, Some(90_000), Some(account())));
    let users: Vec<String> = log.state.tokens_of("admin").map(|token| token.id()).collect();
    assert_eq!(users, ["01010101010101010101"]);
    assert_eq!(log.state.tokens_of(BOT).count(), 0, "what a ServiceAccount's token brings, its name brings");

    for number in [1, 2] {
        let revoke = || Command::RevokeToken { hash: [number; 32] };
        assert_eq!(log.reply(revoke()), Reply::Done);
        assert_eq!(log.state.access_version, log.index);
        assert_eq!(log.reply(revoke()), GONE);
    }
    assert!(log.state.tokens.is_empty() && log.state.tokens_of("admin").next().is_none());
    assert_eq!(log.reply(new_token(1, "admin", None, None)), Reply::Refused(CommandRefusal::TokenRevoked));
    // A token that would have ended by itself is drawn at random: its hash does not come again.
    assert_eq!(log.state.revoked_tokens.iter().collect::<Vec<_>>(), [&[1; 32]]);

    // So it is after a snapshot.
    let mut restored = State::from_bytes(&log.state.to_bytes()).unwrap();
    assert_eq!(restored, log.state);
    let again = restored.apply(90, RequestId(90), log.time, new_token(1, "admin", None, None));
    assert_eq!(again.reply, Reply::Refused(CommandRefusal::TokenRevoked));
}

#[test]
fn when_a_token_was_made_and_last_used_is_known_after_a_snapshot() {
    let mut log = log();
    log.reply(new_token(1, "ann", None, None));
    let access = log.state.access_version;
    let touch = |at| Command::TouchTokens(vec![([1; 32], Timestamp(at)), ([9; 32], Timestamp(at))]);
    assert!(log.apply(touch(900)).changed);
    assert!(!log.apply(touch(800)).changed);
    assert_eq!(log.state.access_version, access);
    let restored = State::from_bytes(&log.state.to_bytes()).unwrap();
    assert_eq!(restored, log.state);
    let token = restored.token_by_hash(&[1; 32]).unwrap();
    assert_eq!((token.created, token.last_used), (Some(Timestamp(1_000)), Some(Timestamp(900))));
    assert_eq!(restored.tokens_of("ann").count(), 1);
}

#[test]
fn a_key_that_an_earlier_version_left_behind_is_worth_nothing() {
    // No account.
    let mut log = Log { time: Timestamp(1_000), ..Log::default() };
    log.reply(Command::CreateKey(new_key(1, BOT)));
    assert_eq!(status(&log, 1), KeyStatus::Revoked);

    // An account that came later.
    log.time = Timestamp(2_000);
    log.create(object(Kind::Namespace, "", "llm", "{}"));
    log.create(object(Kind::ServiceAccount, "llm", "bot", "{}"));
    log.reply(Command::CreateKey(new_key(2, BOT)));
    assert_eq!((status(&log, 1), status(&log, 2)), (KeyStatus::Revoked, KeyStatus::Active));
    log.time = Timestamp(100_000);
    assert_eq!(status(&log, 2), KeyStatus::Expired);
}
