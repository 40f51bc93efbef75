//! How the benchmark steers the replicas, and what they tell it.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::answer::{self, Body};
use super::replica::{Replica, Settings};

/// `POST /control` at any replica: new settings for all, and their counts start again. What is left out takes its default.
pub(super) fn set(replicas: &[Replica], body: &[u8]) -> Response<Body> {
    match serde_json::from_slice::<Settings>(body) {
        Ok(settings) => {
            for replica in replicas {
                replica.pace().set(settings);
                replica.start_again();
            }
            answer::json(StatusCode::OK, "{}")
        }
        Err(error) => answer::json(StatusCode::BAD_REQUEST, json!({"error": error.to_string()}).to_string()),
    }
}

/// `GET /stats` at any replica: what each has counted, as a list.
pub(super) fn stats(replicas: &[Replica]) -> String {
    let stats = replicas.iter().map(|replica| {
        let counts = replica.counts();
        json!({
            "port": replica.port,
            "calls": counts.calls.get(),
            "running": counts.running.get(),
            "finished": counts.finished.get(),
            "aborted": counts.aborted.get(),
        })
    });
    Value::from_iter(stats).to_string()
}
