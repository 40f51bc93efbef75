//! Watches: from a list, without a list, through a change of status, and too late.

use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::world::{ADMIN, MAAS, SUBSCRIPTIONS, World, request, subscription};

/// Events as they come.
struct Events {
    body: Body,
    buffer: Vec<u8>,
}

impl Events {
    async fn open(world: &World, path: &str) -> Events {
        let response = world.admin.clone().oneshot(request("GET", path, ADMIN, "", &[])).await.unwrap();
        assert_eq!(response.status(), 200);
        Events { body: response.into_body(), buffer: Vec::new() }
    }

    /// The next event's type and object; `None` when the watch is over.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap();
                return Some((event["type"].as_str().unwrap().to_owned(), event["object"].clone()));
            }
            let frame =
                tokio::time::timeout(Duration::from_secs(10), self.body.frame()).await.expect("an event in time")?;
            self.buffer.extend_from_slice(frame.unwrap().data_ref().unwrap());
        }
    }

    async fn expect(&mut self, kind: &str, name: &str) -> Value {
        let (found, object) = self.next().await.expect("an event");
        assert_eq!((found.as_str(), object["metadata"]["name"].as_str().unwrap()), (kind, name), "{object}");
        object
    }
}

#[tokio::test]
async fn a_watch_goes_on_where_a_list_ended() {
    let world = World::start().await;
    world.furnish().await;
    world.done("POST", SUBSCRIPTIONS, &subscription("doomed", 1, 10)).await;
    let list = world.done("GET", SUBSCRIPTIONS, &json!(null)).await;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();

    // What happens between the list and the watch is not lost, deletions included.
    world.done("DELETE", &format!("{SUBSCRIPTIONS}/doomed"), &json!({})).await;
    world.done("POST", SUBSCRIPTIONS, &subscription("fresh", 2, 10)).await;
    let mut events = Events::open(&world, &format!("{SUBSCRIPTIONS}?watch=true&resourceVersion={version}")).await;
    let mut first = [events.next().await.unwrap().0, events.next().await.unwrap().0];
    first.sort();
    assert_eq!(first, ["ADDED", "DELETED"]);

    // Then changes as they come.
    world.done("PATCH", &format!("{SUBSCRIPTIONS}/fresh"), &json!({"spec": {"priority": 4}})).await;
    let changed = events.expect("MODIFIED", "fresh").await;
    assert_eq!(changed["spec"]["priority"], 4);
    world.done("DELETE", &format!("{SUBSCRIPTIONS}/fresh"), &json!({})).await;
    let gone = events.expect("DELETED", "fresh").await;
    let number = |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(number(&gone) > number(&changed));
}

#[tokio::test]
async fn a_watch_without_a_version_begins_with_what_is_there_and_ends_when_asked() {
    let world = World::start().await;
    world.furnish().await;
    let path = format!(
        "{MAAS}/maassubscriptions?watch=true&resourceVersion=0&fieldSelector=metadata.name%3Dcalculus-dev&timeoutSeconds=1"
    );
    let mut events = Events::open(&world, &path).await;
    events.expect("ADDED", "calculus-dev").await;
    world.done("POST", SUBSCRIPTIONS, &subscription("not-selected", 1, 10)).await;
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_watch_sees_the_status_change_when_replicas_fall_ill() {
    let world = World::start().await;
    world.furnish().await;
    let mut events = Events::open(&world, &format!("{MAAS}/maasmodelrefs?watch=true")).await;
    let mut model = events.expect("ADDED", "gpt").await;
    while model["status"]["phase"] != "Ready" {
        model = events.expect("MODIFIED", "gpt").await;
    }
    world.replicas.fall_ill();
    let ill = events.expect("MODIFIED", "gpt").await;
    assert_eq!(ill["status"]["phase"], "Unhealthy", "{ill}");
}

#[tokio::test]
async fn a_watch_from_an_unknown_version_is_told_to_list_again() {
    let world = World::start().await;
    world.furnish().await;
    let answer = world.ask("GET", &format!("{SUBSCRIPTIONS}?watch=true&resourceVersion=2"), ADMIN, "").await;
    assert_eq!((answer.status, answer.json()["reason"].clone()), (410, json!("Expired")));
    let answer = world.ask("GET", &format!("{SUBSCRIPTIONS}?watch=true&sendInitialEvents=true"), ADMIN, "").await;
    assert_eq!((answer.status, answer.json()["reason"].clone()), (422, json!("Invalid")));
}

#[tokio::test]
async fn a_watch_ends_when_the_node_drains() {
    let world = World::start().await;
    let mut events = Events::open(&world, "/api/v1/namespaces?watch=true&fieldSelector=metadata.name%3Ddefault").await;
    events.expect("ADDED", "default").await;
    world.drain.send_replace(true);
    assert_eq!(events.next().await, None);
}
