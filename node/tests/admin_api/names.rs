//! One rule for names in every kind: what can be created can be read, listed, watched and deleted; the rest is refused with a reason.

use std::time::Duration;

use http_body_util::BodyExt;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use raft::Reply;
use raft::command::Command;
use raft::resources::{Kind, NewObject, ObjectKey, Scope};
use serde_json::{Value, json};
use tower::ServiceExt;
use uuid::Uuid;

use crate::world::{ADMIN, World, request};

/// Names that are tried for each kind.
const CASES: u32 = 48;

/// Names from anything, and from pieces that mean something somewhere on the way.
fn names() -> impl Strategy<Value = String> {
    let pieces = vec![
        "a",
        "b",
        "A",
        "0",
        "-",
        ".",
        "..",
        "/",
        "%",
        "%2f",
        "%00",
        "\\",
        "\0",
        "\t",
        "\n",
        "\r",
        ":",
        " ",
        ",",
        "=",
        "!",
        "&",
        "?",
        "#",
        "+",
        ";",
        "\"",
        "'",
        "é",
        "e\u{301}",
        "\u{202e}",
        "\u{200b}",
        "\u{feff}",
        "\u{a0}",
        "\u{7f}",
        "🦀",
        "system:masters",
        "metadata.name",
        "default-tenant",
    ];
    prop_oneof![
        4 => proptest::collection::vec(proptest::sample::select(pieces), 0..5).prop_map(|pieces| pieces.concat()),
        1 => any::<String>(),
        1 => "[a-z][a-z0-9.-]{0,12}[a-z0-9]",
        1 => (250..257_usize).prop_map(|length| "n".repeat(length)),
        1 => (62..65_usize).prop_map(|length| "n".repeat(length)),
    ]
}

fn body(kind: Kind) -> Value {
    let models = json!([{"name": "gpt", "namespace": "llm"}]);
    match kind {
        Kind::Namespace | Kind::ServiceAccount => json!({}),
        Kind::Group => json!({"users": ["ann"]}),
        Kind::Tenant => json!({"spec": {}}),
        Kind::InferenceService => json!({"spec": {"model": {"name": "acme/gpt"}}}),
        Kind::ModelRef => json!({"spec": {"modelRef": {"kind": "LLMInferenceService", "name": "gpt"}}}),
        Kind::AuthPolicy => json!({"spec": {"subjects": {"users": ["ann"]}, "modelRefs": models}}),
        Kind::Subscription => {
            let limits = json!([{"limit": 10, "window": "1h"}]);
            let models = json!([{"name": "gpt", "namespace": "llm", "tokenRateLimits": limits}]);
            json!({"spec": {"owner": {"users": ["ann"]}, "modelRefs": models}})
        }
    }
}

/// The collection of a kind: the namespaced ones in `default`.
fn collection(kind: Kind) -> String {
    let root = if kind.group().is_empty() { "/api" } else { "/apis" };
    let namespace = if kind.scope() == Scope::Namespaced { "/namespaces/default" } else { "" };
    format!("{root}/{}{namespace}/{}", kind.api_version(), kind.plural())
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The query that selects one name, as Kubernetes' clients write it.
fn selector(name: &str) -> String {
    let escaped = name.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
    format!("fieldSelector={}", encoded(&format!("metadata.name={escaped}")))
}

async fn first_event(world: &World, path: &str) -> Value {
    let response = world.admin.clone().oneshot(request("GET", path, ADMIN, "", &[])).await.unwrap();
    let mut body = response.into_body();
    let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.expect("an event in time");
    let bytes = frame.expect("an event").unwrap().into_data().unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

async fn try_name(world: &World, kind: Kind, name: &str) {
    let path = collection(kind);
    let mut object = body(kind);
    object["apiVersion"] = json!(kind.api_version());
    object["kind"] = json!(kind.name());
    object["metadata"] = json!({"name": name});
    let created = world.ask("POST", &path, ADMIN, &object.to_string()).await;
    if created.status != 201 {
        // Some are there from the beginning; every other refusal says that the name is at fault.
        let says_why = created.status == 409 || (created.status == 422 && created.text.contains("metadata.name"));
        assert!(says_why, "{} {name:?}: {} {}", kind.name(), created.status, created.text);
        return;
    }
    assert_eq!(created.json()["metadata"]["name"], name);
    let one = format!("{path}/{}", encoded(name));
    let read = world.ask("GET", &one, ADMIN, "").await;
    assert_eq!((read.status, &read.json()["metadata"]["name"]), (200, &json!(name)), "{} {name:?}", kind.name());
    let listed = world.done("GET", &path, &Value::Null).await;
    let is_it = |item: &Value| item["metadata"]["name"] == name;
    assert!(listed["items"].as_array().unwrap().iter().any(is_it), "{} {name:?}", kind.name());
    let selected = world.done("GET", &format!("{path}?{}", selector(name)), &Value::Null).await;
    assert_eq!(selected["items"].as_array().unwrap().len(), 1, "{} {name:?}: {selected}", kind.name());
    let event = first_event(world, &format!("{path}?watch=true&{}", selector(name))).await;
    assert!(event["type"] == "ADDED" && is_it(&event["object"]), "{} {name:?}: {event}", kind.name());
    world.done("DELETE", &one, &Value::Null).await;
    assert_eq!(world.ask("GET", &one, ADMIN, "").await.status, 404, "{} {name:?}", kind.name());
}

#[test]
fn whatever_name_can_be_created_can_be_read_listed_watched_and_deleted() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let world = runtime.block_on(World::start());
    for kind in Kind::ALL {
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        let tried = TestRunner::new(config).run(&names(), |name| {
            runtime.block_on(try_name(&world, kind, &name));
            Ok(())
        });
        tried.unwrap_or_else(|error| panic!("{}: {error}", kind.name()));
    }
}

#[tokio::test]
async fn what_exists_with_a_name_that_is_refused_today_can_be_deleted() {
    let world = World::start().await;
    let (long, groups) = ("n".repeat(2000), collection(Kind::Group));
    for name in ["nul\0", "tab\there", "CORP\\dev", "a\u{202e}b", " blank ", "a,b=c", &long] {
        let object = NewObject {
            key: ObjectKey::new(Kind::Group, "", name),
            labels: Default::default(),
            annotations: Default::default(),
            body: r#"{"users":["ann"]}"#.to_owned(),
        };
        let command = Command::CreateObject { object, uid: Uuid::nil() };
        let made = world.context.cluster.propose(command).await.unwrap();
        assert!(matches!(made.reply, Reply::Object(_)), "{name:?}");
        let path = format!("{groups}/{}", encoded(name));
        assert_eq!(world.done("GET", &path, &Value::Null).await["metadata"]["name"], *name);
        world.done("DELETE", &path, &Value::Null).await;
        assert_eq!(world.ask("GET", &path, ADMIN, "").await.status, 404, "{name:?}");
    }
}
