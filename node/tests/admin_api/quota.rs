//! Where limits stand: for administrators, by key and model.

use std::time::Duration;

use actors::quota::{Amount, Charge};
use serde_json::json;

use crate::world::{ADMIN, ALICE, SUBSCRIPTIONS, World, subscription};

const QUOTA: &str = "/tollgate/v1/quota";

#[tokio::test]
async fn every_limit_of_a_key_is_shown_where_it_stands() {
    let world = World::start().await;
    world.furnish().await;
    let mut many = subscription("many", 99, 1000);
    many["spec"]["modelRefs"][0]["tokenRateLimits"] = json!([
        {"limit": 1000, "window": "1h"},
        {"limit": 5000, "window": "60m"},
        {"limit": 7, "window": "60s", "unit": "requests", "scope": "key"},
        {"limit": 9000, "window": "24h", "unit": "output", "scope": "subscription"},
    ]);
    world.done("POST", SUBSCRIPTIONS, &many).await;
    let made = world.ask("POST", "/maas-api/v1/api-keys", ALICE, r#"{"name":"k","subscription":"many"}"#).await.json();
    let (id, secret) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    let of = |key: &str, model: &str| format!("{QUOTA}?key={key}&model={model}");

    // Whoever has the subscription sees what its limits count; usual ones look as they do upstream.
    let listed = world.ask("GET", "/maas-api/v1/subscriptions", ALICE, "").await.json();
    let many = listed.as_array().unwrap().iter().find(|item| item["subscription_id_header"] == "many").unwrap();
    let expected = json!([
        {"limit": 1000, "window": "1h"},
        {"limit": 5000, "window": "60m"},
        {"limit": 7, "window": "60s", "unit": "requests", "scope": "key"},
        {"limit": 9000, "window": "24h", "unit": "output", "scope": "subscription"},
    ]);
    assert_eq!(many["model_refs"][0]["token_rate_limits"], expected);

    let fresh = world.ask("GET", &of(id, "llm/gpt"), ADMIN, "").await;
    assert_eq!(fresh.status, 200, "{}", fresh.text);
    assert_eq!(fresh.json(), world.ask("GET", &of(id, "gpt"), ADMIN, "").await.json(), "one model has that name");
    let untouched = |limit: u64, unit: &str, scope: &str, subject: &str, window: &str| {
        json!({"limit": limit, "unit": unit, "scope": scope, "enforcement": "reserve", "subject": subject, "window": window,
            "used": 0, "held": 0, "free": limit, "debt": 0, "resets": null, "nodes": []})
    };
    let expected = json!([
        untouched(7, "requests", "key", &format!("key {id}"), "60s"),
        untouched(1000, "total", "user", "alice", "1h"),
        untouched(9000, "output", "subscription", "everybody", "24h"),
    ]);
    assert_eq!(fresh.json()["limits"], expected, "of two limits of one kind the smaller");
    assert_eq!(fresh.json()["key"], json!({"id": id, "user": "alice", "subscription": "many", "status": "active"}));

    // A call in progress, and one that has ended.
    let actors = &world.context.actors;
    let model = actors.routing.by_path("llm", "gpt").unwrap();
    let permit = actors.routing.authorize(actors.auth.authenticate(Some(secret)).unwrap(), &model, None).unwrap();
    let ended = actors.quota.reserve(&permit, Amount::of_call(100, 50)).await.unwrap();
    let _in_progress = actors.quota.reserve(&permit, Amount::of_call(10, 5)).await.unwrap();
    ended.settle(Charge { amount: Amount::of_call(90, 40), ..Charge::default() }, None);
    let mut limits = json!(null);
    for _ in 0..100 {
        limits = world.ask("GET", &of(id, "gpt"), ADMIN, "").await.json()["limits"].clone();
        if limits[1]["used"] == 130 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let used: Vec<_> = limits.as_array().unwrap().iter().map(|limit| limit["used"].as_u64().unwrap()).collect();
    assert_eq!(used, [1, 130, 40], "{limits}");
    for limit in limits.as_array().unwrap() {
        let count = |field: &str| limit[field].as_u64().unwrap();
        assert_eq!(count("used") + count("held") + count("free"), count("limit"), "{limit}");
        assert_eq!(limit["nodes"], json!([{"node": 1, "granted": count("held"), "stranded": 0}]), "{limit}");
        assert!(limit["resets"].as_str().unwrap().ends_with('Z'), "{limit}");
    }
}

#[tokio::test]
async fn every_refusal_says_what_to_do() {
    let world = World::start().await;
    world.furnish().await;
    let made = world.ask("POST", "/maas-api/v1/api-keys", ALICE, r#"{"name":"k"}"#).await.json();
    let (id, secret) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    let with = |query: &str| format!("{QUOTA}?{query}");
    let whole = with(&format!("key={id}&model=gpt"));
    let cases = [
        (whole.clone(), "", 401, "send an administrator's bearer token"),
        (whole.clone(), ALICE, 403, "send a token of system:masters"),
        (whole, secret, 403, "send a token of system:masters"),
        (QUOTA.to_owned(), ADMIN, 400, "ask with ?key=ID&model=NAMESPACE/NAME"),
        (with(&format!("key={id}&model=gpt&user=bob")), ADMIN, 400, "ask with ?key=ID&model=NAMESPACE/NAME"),
        (with(&format!("key={secret}&model=gpt")), ADMIN, 400, "`key` is not the id of a key"),
        (with("key=6f9619ff-8b86-d011-b42d-00cf4fc964ff&model=gpt"), ADMIN, 404, "there is no key 6f9619ff"),
        (with(&format!("key={id}&model=llm/other")), ADMIN, 404, "does not include model llm/other"),
        (with(&format!("key={id}&model=other/gpt")), ADMIN, 404, "does not include model other/gpt"),
    ];
    for (path, token, status, part) in cases {
        let answer = world.ask("GET", &path, token, "").await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        assert!(answer.text.starts_with(r#"{"error":""#) && answer.text.contains(part), "{path}: {}", answer.text);
        assert!(!answer.text.contains(secret), "{path}: {}", answer.text);
    }
}
