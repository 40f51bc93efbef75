//! What a real vLLM does not have: the admin calls under `/sim/`.
//!
//! | call | does |
//! |---|---|
//! | `GET /sim/stats` | [`Stats`](crate::Stats) as JSON |
//! | `GET /sim/fault` | the replica's fault |
//! | `POST /sim/fault` | sets it: `{"fault": "die-mid-stream;after=5"}`, or `{"fault": null}` |
//! | `POST /sim/kill`, `/sim/hang`, `/sim/resume`, `/sim/terminate` | as the methods of [`Replica`](crate::Replica) |

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{errors::detail, respond::Answer};
use crate::{
    fault::{Fault, UnknownFault},
    replica::Shared,
};

/// Answers an admin call; `path` is what follows `/sim/`.
pub(crate) fn answer(shared: &Arc<Shared>, method: &Method, path: &str, body: Bytes) -> Answer {
    let done = |value: &Value| Answer::json(StatusCode::OK, value);
    match (method, path) {
        (&Method::GET, "stats") => done(&json!(shared.engine.stats())),
        (&Method::GET, "fault") => done(&current(shared)),
        (&Method::POST, "fault") => match read_fault(&body) {
            Ok(fault) => {
                shared.set_fault(fault);
                done(&current(shared))
            }
            Err(message) => Answer::json(StatusCode::BAD_REQUEST, &detail(&message)),
        },
        (&Method::POST, "kill" | "hang" | "resume" | "terminate") => {
            match path {
                "kill" => shared.kill(),
                "terminate" => shared.terminate(Duration::ZERO),
                _ => shared.engine.set_hung(path == "hang"),
            }
            done(&json!({"done": path}))
        }
        _ => Answer::json(StatusCode::NOT_FOUND, &detail("Not Found")),
    }
}

fn current(shared: &Shared) -> Value {
    json!({"fault": shared.fault().map(|fault| fault.to_string())})
}

fn read_fault(body: &[u8]) -> Result<Option<Fault>, String> {
    let value: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    match &value["fault"] {
        Value::Null => Ok(None),
        Value::String(text) => text.parse().map(Some).map_err(|error: UnknownFault| error.to_string()),
        other => Err(format!("fault must be a string or null, not {other}")),
    }
}
