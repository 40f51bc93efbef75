//! Who calls and what they may use: the newest state counts, at once.

use std::time::Duration;

use actors::routing::Lookup;
use actors::{Denied, Unauthenticated};
use raft::resources::Kind;
use raft::{Command, Timestamp};
use serde_json::json;

use crate::support::Node;

const START: Timestamp = Timestamp(1_772_000_000_000);

#[tokio::test(start_paused = true)]
async fn a_key_works_until_it_is_revoked() {
    let node = Node::start().await;
    let (id, key) = node.key("ann", "dev").await;
    let caller = node.caller(&key);
    assert_eq!((caller.user(), caller.key_id(), caller.bound_subscription()), ("ann", Some(id), Some("dev")));
    assert_eq!(caller.groups(), ["team", "system:authenticated"]);
    assert!(!caller.is_admin());

    node.propose(Command::RevokeKey { id, owner: None }).await;
    assert_eq!(node.actors.auth.authenticate(Some(&key)).unwrap_err(), Unauthenticated::RevokedKey);
}

#[tokio::test(start_paused = true)]
async fn a_key_expires_by_wall_time_even_if_nothing_is_written() {
    let node = Node::start().await;
    let (_, key) = node.key("ann", "dev").await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(node.actors.auth.authenticate(Some(&key)).unwrap_err(), Unauthenticated::ExpiredKey);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_credential_is_told_apart() {
    let node = Node::start().await;
    let authenticate = |bearer| node.actors.auth.authenticate(bearer).unwrap_err();
    assert_eq!(authenticate(None), Unauthenticated::Missing);
    assert_eq!(authenticate(Some(" ")), Unauthenticated::Missing);
    assert_eq!(authenticate(Some("sk-oai-nothing")), Unauthenticated::MalformedKey);
    assert_eq!(authenticate(Some("sk-oai-a_b")), Unauthenticated::UnknownKey);
    assert_eq!(authenticate(Some("something")), Unauthenticated::UnknownToken);
}

#[tokio::test(start_paused = true)]
async fn a_token_has_its_own_groups_those_of_group_objects_and_that_of_everybody() {
    let node = Node::start().await;
    node.token("secret", "ann", &["system:masters"], Some(START.plus(Duration::from_secs(60)))).await;
    node.apply(Kind::Group, "", "team", json!({"users": ["bob", "ann"]})).await;
    let caller = node.caller("secret");
    assert_eq!(caller.groups(), ["system:masters", "team", "system:authenticated"]);
    assert!(caller.is_admin() && caller.key_id().is_none());

    // Leaving a group counts for the next call.
    node.apply(Kind::Group, "", "team", json!({"users": ["bob"]})).await;
    assert_eq!(node.caller("secret").groups(), ["system:masters", "system:authenticated"]);

    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(node.actors.auth.authenticate(Some("secret")).unwrap_err(), Unauthenticated::UnknownToken);
}

#[tokio::test(start_paused = true)]
async fn a_key_has_the_groups_of_its_owner_now_unless_the_tenant_freezes_them() {
    let node = Node::start().await;
    let (_, key) = node.key("ann", "dev").await;
    let groups = || node.caller(&key).groups().to_vec();
    node.apply(Kind::Group, "", "tutors", json!({"users": ["ann"]})).await;
    assert_eq!(groups(), ["team", "tutors", "system:authenticated"]);
    node.delete(Kind::Group, "", "team").await;
    assert_eq!(groups(), ["tutors", "system:authenticated"]);

    // What a token of the owner brings lasts as long as the token, and makes nobody an administrator by a key.
    node.token("secret", "ann", &["system:masters", "tutors"], Some(START.plus(Duration::from_secs(60)))).await;
    assert_eq!(groups(), ["system:masters", "tutors", "system:authenticated"]);
    assert!(!node.caller(&key).is_admin());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(groups(), ["tutors", "system:authenticated"]);

    let frozen = json!({"spec": {"apiKeys": {"groups": "frozen"}}});
    node.apply(Kind::Tenant, "models-as-a-service", "default-tenant", frozen).await;
    assert_eq!(groups(), ["team"]);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_is_asked_for_again_is_who_they_are_by_now() {
    let node = Node::start().await;
    let (id, key) = node.key("ann", "dev").await;
    node.token("secret", "ann", &["system:masters"], None).await;
    let (by_key, by_token) = (node.caller(&key), node.caller("secret"));
    let again = |caller| node.actors.auth.again(caller);
    node.delete(Kind::Group, "", "team").await;
    assert!(!again(&by_key).unwrap().groups().contains(&"team".to_owned()));
    assert!(again(&by_token).unwrap().is_admin());

    node.propose(Command::RevokeKey { id, owner: None }).await;
    node.propose(Command::RevokeToken { hash: by_token.token_hash().unwrap() }).await;
    assert_eq!(again(&by_key).unwrap_err(), Unauthenticated::RevokedKey);
    assert_eq!(again(&by_token).unwrap_err(), Unauthenticated::UnknownToken);
}

#[tokio::test(start_paused = true)]
async fn the_last_use_of_a_token_is_told() {
    let node = Node::start().await;
    node.token("secret", "ann", &[], None).await;
    node.caller("secret");
    tokio::time::sleep(Duration::from_secs(6)).await;
    let view = node.cluster.view();
    assert!(view.tokens_of("ann").next().unwrap().last_used.is_some());
}

#[tokio::test(start_paused = true)]
async fn the_last_use_of_a_key_is_told_once_a_minute() {
    let node = Node::start().await;
    let (id, key) = node.key("ann", "dev").await;
    let last_used = || node.cluster.view().keys[&id].last_used;
    assert_eq!(last_used(), None);
    node.caller(&key);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let first = last_used().unwrap();
    let applied = node.cluster.standing().applied;
    for _ in 0..20 {
        node.caller(&key);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert!(node.cluster.standing().applied <= applied + 1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    node.caller(&key);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(last_used().unwrap() > first);
}

#[tokio::test(start_paused = true)]
async fn what_an_administrator_was_told_is_true_for_the_next_call() {
    let node = Node::start().await;
    let (_, key) = node.key("ann", "dev").await;
    let routing = &node.actors.routing;
    assert!(routing.by_path("llm", "qwen").is_none());

    node.publish("qwen", "").await;
    let model = routing.by_path("llm", "qwen").unwrap();
    let denied = || routing.authorize(node.caller(&key), &model, None).unwrap_err();
    assert_eq!(denied(), Denied::SubscriptionNotFound("dev".to_owned()));
    node.subscribe("dev", "qwen", &[(10, "1h")]).await;
    assert_eq!(denied(), Denied::NoPolicy { user: "ann".to_owned(), model: "llm/qwen".to_owned() });
    node.open("dev", "qwen").await;
    let permit = routing.authorize(node.caller(&key), &model, Some("ignored for keys")).unwrap();
    assert_eq!(permit.subscription().id.to_string(), "models-as-a-service/dev");
    assert_eq!(permit.subscription().limits[0].limit, 10);

    node.delete(Kind::AuthPolicy, "models-as-a-service", "dev").await;
    assert_eq!(denied().reason(), "unauthorized");
    node.delete(Kind::ModelRef, "llm", "qwen").await;
    assert!(matches!(routing.by_name("qwen", &node.caller(&key)), Lookup::Unknown));
}
