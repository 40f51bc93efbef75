//! What one user may have in progress: watches, and queries that look through much. The others have theirs all the same.

use http::Response;
use node::admin::Bounds;
use serde_json::json;
use tower::ServiceExt;

use crate::world::{ADMIN, ALICE, Answer, BOB, MAAS, World, ask, request};

const SEARCH: &str = "/maas-api/v1/api-keys/search";
const USAGE: &str = "/maas-api/v1/usage";

async fn watch(world: &World, token: &str) -> Response<axum::body::Body> {
    let path = format!("{MAAS}/maasmodelrefs?watch=true");
    world.admin.clone().oneshot(request("GET", &path, token, "", &[])).await.unwrap()
}

#[tokio::test]
async fn one_user_has_a_part_of_all_watches_and_is_told_so() {
    let bounds = Bounds { watches_max: 3, watches_per_user_max: 2, ..Bounds::default() };
    let world = World::start_bounded(&bounds).await;
    let (first, second) = (watch(&world, ALICE).await, watch(&world, ALICE).await);
    assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 200));
    let path = format!("{MAAS}/maasmodelrefs?watch=true");
    let refused = |answer: &Answer, message: &str| {
        let status = answer.json();
        let seen = (answer.status, status["kind"].as_str(), status["reason"].as_str(), answer.header("retry-after"));
        assert_eq!(seen, (429, Some("Status"), Some("TooManyRequests"), "1"), "{status}");
        assert_eq!(status["details"]["retryAfterSeconds"], 1, "{status}");
        assert!(status["message"].as_str().unwrap().contains(message), "{status}");
    };
    refused(&world.ask("GET", &path, ALICE, "").await, "you have 2 watches at this node, which is the most for one");
    // Another user still gets one, and then there is none left.
    let third = watch(&world, ADMIN).await;
    assert_eq!(third.status(), 200);
    refused(&world.ask("GET", &path, BOB, "").await, "this node has 3 watches, which is the most for all users");
    drop((first, third));
    let fourth = watch(&world, ALICE).await;
    assert_eq!(fourth.status(), 200, "what has ended makes room");
    assert_eq!(watch(&world, BOB).await.status(), 200);
}

#[tokio::test]
async fn one_user_has_a_part_of_all_queries_on_both_ports_together() {
    let bounds = Bounds { queries_max: 2, queries_per_user_max: 1, ..Bounds::default() };
    let world = World::start_bounded(&bounds).await;
    let models = format!("{MAAS}/maasmodelrefs");
    // Each waits for the cluster while the next one comes.
    let (search, usage, list, other) = tokio::join!(
        ask(&world.public, "POST", SEARCH, ALICE, "{}", &[]),
        ask(&world.admin, "GET", USAGE, ALICE, "", &[]),
        ask(&world.admin, "GET", &models, ALICE, "", &[]),
        ask(&world.admin, "POST", SEARCH, BOB, "{}", &[]),
    );
    assert_eq!([search.status, usage.status, list.status, other.status], [200, 429, 429, 200], "{}", usage.text);
    let message = usage.json()["error"].as_str().unwrap().to_owned();
    assert!(message.contains("you have 1 queries in progress at this node"), "{message}");
    assert_eq!((usage.json()["code"].clone(), usage.header("retry-after")), (json!("too_many_queries"), "1"));
    assert_eq!((list.json()["reason"].clone(), list.header("retry-after")), (json!("TooManyRequests"), "1"));
    let (one, two, third) = tokio::join!(
        ask(&world.admin, "GET", &models, ALICE, "", &[]),
        ask(&world.public, "GET", USAGE, BOB, "", &[]),
        ask(&world.admin, "GET", "/api/v1/namespaces", ADMIN, "", &[]),
    );
    assert_eq!([one.status, two.status, third.status], [200, 200, 429], "{}", third.text);
    assert!(third.text.contains("this node has 2 queries in progress"), "{}", third.text);
    // What does not look through much is not counted.
    let (one, two) = tokio::join!(
        ask(&world.public, "POST", SEARCH, ALICE, "{}", &[]),
        ask(&world.public, "GET", "/v1/models", ALICE, "", &[]),
    );
    assert_eq!((one.status, two.status), (200, 200));
}

#[tokio::test]
async fn filters_and_selectors_have_a_size() {
    let world = World::start().await;
    let statuses = json!({"filters": {"status": vec!["active"; 17]}}).to_string();
    let labels: serde_json::Map<String, serde_json::Value> =
        (0..51).map(|number| (format!("l{number}"), json!("x"))).collect();
    let labels = json!({"filters": {"labelsContain": labels}}).to_string();
    for (body, message) in [(statuses, "filters.status has 17 entries"), (labels, "labelsContain has 51 labels")] {
        let answer = world.ask("POST", SEARCH, ALICE, &body).await;
        assert!(answer.status == 400 && answer.text.contains(message), "{}", answer.text);
    }
    let many = vec!["a"; 65].join(",");
    for selector in ["labelSelector", "fieldSelector"] {
        let path = format!("{MAAS}/maasmodelrefs?{selector}={many}");
        let answer = world.ask("GET", &path, ALICE, "").await;
        assert!(answer.status == 400 && answer.text.contains("at most 64"), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_compressed_body_is_refused_with_the_reason_where_none_is_decoded() {
    let world = World::start().await;
    let namespace = r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"n"}}"#;
    let cases = [
        ("/maas-api/v1/api-keys/search", "{}", 200),
        ("/api/v1/namespaces", namespace, 201),
        ("/tollgate/v1/members", r#"{"id":1,"address":"a:1"}"#, 409),
    ];
    for (path, body, as_it_is) in cases {
        for (coding, status) in [("gzip", 415), ("identity, zstd", 415), ("Identity", as_it_is)] {
            let answer = world.ask_with("POST", path, ADMIN, body, &[("content-encoding", coding)]).await;
            assert_eq!(answer.status, status, "{path} {coding}: {}", answer.text);
            assert_eq!(answer.text.contains("Content-Encoding"), status == 415, "{}", answer.text);
        }
    }
}

#[tokio::test]
async fn a_refusal_says_in_its_head_what_would_be_right() {
    let world = World::start().await;
    let keys = "/maas-api/v1/api-keys";
    let cases = [
        ("PUT", keys, "POST"),
        ("PUT", SEARCH, "POST"),
        ("POST", "/maas-api/v1/api-keys/config", "GET, HEAD"),
        ("POST", "/maas-api/v1/api-keys/00000000-0000-4000-8000-000000000000", "GET, HEAD, DELETE"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("DELETE", USAGE, "GET, HEAD"),
    ];
    for (method, path, allowed) in cases {
        for headers in [&[][..], &[("anthropic-version", "2023-06-01")]] {
            let answer = ask(&world.public, method, path, ALICE, "{}", headers).await;
            assert_eq!((answer.status, answer.header("allow")), (405, allowed), "{method} {path}");
        }
        let answer = ask(&world.public, method, path, "", "{}", &[]).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer"), "{method} {path}");
    }
}
