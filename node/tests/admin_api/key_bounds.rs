//! What one user can make the cluster keep: keys, their texts, how fast they come, and for how long they stay.

use std::time::Duration;

use raft::command::{Command, NewToken, Reply};
use raft::resources::{Kind, ObjectKey};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::world::{ADMIN, ALICE, Answer, BOB, World};

const KEYS: &str = "/maas-api/v1/api-keys";
const TENANT: &str = "/apis/maas.opendatahub.io/v1alpha1/namespaces/models-as-a-service/tenants/default-tenant";
const MIB: usize = 1024 * 1024;

/// A world whose Tenant has these `spec.apiKeys`.
async fn world(api_keys: Value) -> World {
    let world = World::start().await;
    world.furnish().await;
    world.done("PATCH", TENANT, &json!({"spec": {"apiKeys": api_keys}})).await;
    world
}

async fn make(world: &World, token: &str, body: &Value) -> Answer {
    world.ask("POST", KEYS, token, &body.to_string()).await
}

/// A key's id and secret.
async fn made(world: &World, token: &str) -> (String, String) {
    let answer = make(world, token, &json!({"name": "k", "subscription": "calculus-dev"})).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let text = |field: &str| answer.json()[field].as_str().unwrap().to_owned();
    (text("id"), text("key"))
}

async fn found(world: &World, token: &str, body: &Value) -> usize {
    let answer = world.ask("POST", &format!("{KEYS}/search"), token, &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["data"].as_array().unwrap().len()
}

/// Memory of this process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn labels(count: usize) -> Value {
    (0..count).map(|at| (format!("label-{at}"), json!("v".repeat(1015)))).collect::<serde_json::Map<_, _>>().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_large_keys_are_refused_and_cost_no_memory() {
    let world = world(json!({})).await;
    let huge = json!({"name": "n".repeat(128), "description": "d".repeat(4096), "labels": labels(50)});
    let largest = json!({"name": "n".repeat(128), "description": "d".repeat(4096), "labels": labels(7)});
    assert!(huge.to_string().len() > 55_000);
    let before = resident();
    for _ in 0..3_200 {
        let answer = make(&world, ALICE, &huge).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert!(answer.text.contains("labels") && answer.text.contains("8192"), "{}", answer.text);
    }
    assert_eq!(world.context.cluster.view().keys.len(), 0);
    let mut created = 0;
    for _ in 0..3_200 {
        let answer = make(&world, ALICE, &largest).await;
        match answer.status {
            201 => created += 1,
            403 => assert_eq!(answer.json()["code"], "api_key_limit_reached", "{}", answer.text),
            429 => assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1, "{}", answer.text),
            _ => panic!("{} {}", answer.status, answer.text),
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 50 * MIB, "{} MiB more after {created} keys", grown / MIB);
    assert_eq!(world.context.cluster.view().keys.len(), created);
    assert!((100..400).contains(&created), "{created}");
    // What is there is found.
    assert_eq!(
        found(&world, ALICE, &json!({"pagination": {"limit": 100, "offset": 100}})).await,
        100.min(created - 100)
    );
}

#[tokio::test]
async fn the_tenant_says_how_many_keys_a_user_may_have() {
    let world = world(json!({"maxPerUser": 2})).await;
    let (first, _) = made(&world, ALICE).await;
    made(&world, ALICE).await;
    let body = json!({"name": "k"});
    let answer = make(&world, ALICE, &body).await;
    assert_eq!((answer.status, &answer.json()["code"]), (403, &json!("api_key_limit_reached")), "{}", answer.text);
    assert!(answer.text.contains("2 API keys"), "{}", answer.text);
    let many: Vec<_> = (0..10).map(|_| make(&world, ALICE, &body)).collect();
    let many = futures_util::future::join_all(many).await;
    assert!(many.iter().all(|answer| answer.status == 403));

    assert_eq!(world.ask("DELETE", &format!("{KEYS}/{first}"), ALICE, "").await.status, 200);
    let many: Vec<_> = (0..10).map(|_| make(&world, ALICE, &body)).collect();
    let many = futures_util::future::join_all(many).await;
    assert_eq!(many.iter().filter(|answer| answer.status == 201).count(), 1, "one place, one key");
    assert_eq!(found(&world, ALICE, &json!({"filters": {"status": ["active"]}})).await, 2);
    assert_eq!(found(&world, ALICE, &json!({})).await, 3);
    assert_eq!(found(&world, ADMIN, &json!({"filters": {"username": "alice", "status": ["revoked"]}})).await, 1);
}

#[tokio::test]
async fn new_keys_come_no_faster_than_the_tenant_says_but_for_administrators() {
    let world = world(json!({"maxCreationsPerMinute": 3})).await;
    // What is wrong with a wish does not count.
    for _ in 0..5 {
        assert_eq!(make(&world, ALICE, &json!({"name": " "})).await.status, 400);
    }
    for _ in 0..3 {
        made(&world, ALICE).await;
    }
    let answer = make(&world, ALICE, &json!({"name": "k"})).await;
    assert_eq!((answer.status, &answer.json()["code"]), (429, &json!("rate_limit_exceeded")), "{}", answer.text);
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    assert!((15..=20).contains(&seconds), "{seconds}");

    let group = json!({
        "apiVersion": "user.openshift.io/v1", "kind": "Group", "metadata": {"name": "system:masters"}, "users": ["alice"],
    });
    world.done("POST", "/apis/user.openshift.io/v1/groups", &group).await;
    for _ in 0..10 {
        made(&world, ALICE).await;
    }
}

#[tokio::test]
async fn a_revoked_key_vanishes_after_the_retention_and_stays_dead() {
    let world = world(json!({"retention": "2s"})).await;
    let (id, secret) = made(&world, ALICE).await;
    let by_id = format!("{KEYS}/{id}");
    assert_eq!(world.ask("DELETE", &by_id, ALICE, "").await.status, 200);
    let revoked = Instant::now();
    assert_eq!(world.ask("GET", &by_id, ALICE, "").await.json()["status"], "revoked");
    while world.ask("GET", &by_id, ALICE, "").await.status == 200 {
        assert!(revoked.elapsed() < Duration::from_secs(20), "it is there for ever");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(revoked.elapsed() >= Duration::from_millis(1900));
    assert_eq!(found(&world, ADMIN, &json!({"filters": {"username": "alice"}})).await, 0);
    assert_eq!(world.ask("DELETE", &by_id, ALICE, "").await.status, 404);
    // The next log entry forgets it altogether.
    made(&world, ALICE).await;
    let view = world.context.cluster.view();
    assert!(view.keys.len() == 1 && !view.keys.values().any(|key| key.id.to_string() == id));
    assert_eq!(world.ask("GET", "/maas-api/v1/models", &secret, "").await.status, 403);
}

#[tokio::test]
async fn a_revocation_of_nothing_writes_nothing() {
    let world = world(json!({})).await;
    let (id, _) = made(&world, ALICE).await;
    let theirs = format!("{KEYS}/{id}");
    assert_eq!(world.ask("DELETE", &theirs, ALICE, "").await.status, 200);
    let in_vain = |view: &raft::View| {
        let replies = view.recent.values();
        replies.filter(|(_, reply)| matches!(reply, Reply::Refused(_) | Reply::Revoked(0))).count()
    };
    let before = in_vain(&world.context.cluster.view());
    let absent = format!("{KEYS}/00000000-0000-4000-8000-000000000000");
    for (method, path, token, body, status) in [
        ("DELETE", &theirs, ALICE, "", 404),
        ("DELETE", &theirs, BOB, "", 404),
        ("DELETE", &absent, ALICE, "", 404),
        ("POST", &format!("{KEYS}/bulk-revoke"), ALICE, r#"{"username":"alice"}"#, 200),
    ] {
        for _ in 0..5 {
            let answer = world.ask(method, path, token, body).await;
            assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
        }
    }
    assert_eq!(in_vain(&world.context.cluster.view()), before);
}

#[tokio::test]
async fn an_account_has_a_thousand_tokens_at_most() {
    let world = World::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "bot"}});
    world.done("POST", accounts, &account).await;
    let expires = Some(world.context.doors.clock.wall().plus(Duration::from_secs(3600)));
    for number in 0..1000_u64 {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        let token = NewToken {
            hash,
            username: "system:serviceaccount:default:bot".to_owned(),
            groups: Vec::new(),
            expires,
            service_account: Some(ObjectKey::new(Kind::ServiceAccount, "default", "bot")),
        };
        let seen = world.context.cluster.view().applied;
        let applied = world.context.cluster.propose(Command::MakeToken { token, seen }).await.unwrap();
        assert_eq!(applied.reply, Reply::Done);
    }
    let answer = world.ask("POST", &format!("{accounts}/bot/token"), ADMIN, "{}").await;
    assert_eq!((answer.status, &answer.json()["reason"]), (403, &json!("Forbidden")), "{}", answer.text);
    assert!(answer.text.contains("1000 valid tokens"), "{}", answer.text);
}
