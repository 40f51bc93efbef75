//! Watch: changes as they happen, one JSON event a line.
//!
//! A watch compares what its client has seen with what this node sees now, whenever objects change, and once a second for
//! statuses, which change without the log (replicas come and go). So several changes within a moment may arrive as one, and
//! an event whose only news is the status repeats its object's `resourceVersion`.
//!
//! A watch ends with what let its client in: it asks again before each event, and at least once a second.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use actors::Caller;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use raft::View;
use raft::resources::{Kind, Object, ObjectKey, Status};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::access::{Wish, authorize};
use super::error::Failure;
use super::options::{IncludeObject, Options};
use super::{Call, Kube, read, table, wire};
use crate::admin::shares::Share;

/// How often statuses are compared.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// When a watch ends, unless asked for earlier. Clients begin a new one.
const DURATION_MAX: Duration = Duration::from_secs(30 * 60);

pub(super) async fn answer(
    kube: &Kube,
    call: &Call,
    kind: Kind,
    namespace: Option<String>,
) -> Result<Response, Failure> {
    if call.options.send_initial_events {
        let message = "sendInitialEvents is not supported: list first, then watch from the list's resourceVersion";
        return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message));
    }
    let share = kube.watches.take(call.caller.user())?;
    let changes = kube.context.cluster.watch();
    let start = call.options.resource_version.filter(|version| *version > 0);
    read::at_least(kube, start).await?;
    let asked = call.options.timeout_seconds.map_or(DURATION_MAX, Duration::from_secs);
    let mut watch = Watch {
        kube: kube.clone(),
        caller: call.caller.clone(),
        wish: Wish::to("watch", kind, namespace.as_deref().unwrap_or_default(), ""),
        kind,
        namespace,
        options: Options::parse(&call.head.uri)?,
        as_table: table::is_wanted(&call.head.headers),
        changes,
        seen: BTreeMap::new(),
        seen_version: 0,
        events: VecDeque::new(),
        ends: Instant::now() + asked.min(DURATION_MAX),
        is_over: false,
        _share: share,
    };
    // Without a version, what is there is news; with one, only what has changed since.
    if let Some(version) = start {
        let then = kube.history.at(version).ok_or_else(read::expired)?;
        watch.seen = watch.look(&then);
    }
    watch.compare();
    let events = stream::unfold(watch, |mut watch| async move {
        let event = watch.next().await?;
        Some((Ok::<Bytes, Infallible>(event), watch))
    });
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], Body::from_stream(events)).into_response())
}

struct Watch {
    kube: Kube,
    caller: Caller,
    /// What the caller must be allowed to.
    wish: Wish,
    kind: Kind,
    namespace: Option<String>,
    options: Options,
    as_table: bool,
    changes: watch::Receiver<Arc<View>>,
    /// What the client knows.
    seen: BTreeMap<ObjectKey, Sight>,
    seen_version: u64,
    /// What it is told next.
    events: VecDeque<Bytes>,
    ends: Instant,
    /// Its client has been told why it ends early.
    is_over: bool,
    /// Counts this watch until its client is gone.
    _share: Share,
}

struct Sight {
    object: Arc<Object>,
    status: Status,
}

impl Watch {
    /// The next event; `None` when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.is_over {
                return None;
            }
            if let Err(failure) = self.check_caller().await {
                self.is_over = true;
                return Some(Bytes::from(json!({"type": "ERROR", "object": failure.status()}).to_string() + "\n"));
            }
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let tick = Instant::now() + STATUS_INTERVAL;
            loop {
                tokio::select! {
                    biased;
                    _ = self.kube.draining.wait_for(|draining| *draining) => return None,
                    () = tokio::time::sleep_until(self.ends) => return None,
                    changed = self.changes.changed() => {
                        changed.ok()?;
                        // Most views bring quota only: nothing a watcher could see.
                        if self.changes.borrow_and_update().access_version != self.seen_version {
                            break;
                        }
                    }
                    () = tokio::time::sleep_until(tick) => break,
                }
            }
            self.compare();
        }
    }

    /// Errors: the caller's token has ended, or no longer allows this; or this node cannot find that out.
    async fn check_caller(&mut self) -> Result<(), Failure> {
        let cluster = &self.kube.context.cluster;
        if !cluster.may_serve() {
            tokio::select! {
                biased;
                _ = self.kube.draining.wait_for(|draining| *draining) => {}
                heard = cluster.read_barrier() => drop(heard?),
            }
        }
        authorize(&self.kube.again(&self.caller)?, &self.wish)
    }

    /// What the client would get from a list of `view`.
    fn look(&self, view: &View) -> BTreeMap<ObjectKey, Sight> {
        read::select(view, self.kind, self.namespace.as_deref(), &self.options)
            .map(|object| {
                (object.key.clone(), Sight { object: Arc::clone(object), status: self.kube.status(object, view) })
            })
            .collect()
    }

    /// Queues an event for each difference between what the client knows and what is, in the order of the log.
    fn compare(&mut self) {
        let view = self.kube.view();
        let now = self.look(&view);
        let then = std::mem::take(&mut self.seen);
        let mut events: Vec<(u64, Bytes)> = Vec::new();
        for (key, old) in &then {
            let version = match now.get(key) {
                Some(new) if new.object.uid == old.object.uid => continue,
                // It was deleted and created again: the deletion came first.
                Some(new) => new.object.resource_version - 1,
                None => read::list_version(&view),
            };
            let gone = Object { resource_version: version, ..(*old.object).clone() };
            events.push((version, self.event("DELETED", &gone, &old.status)));
        }
        for (key, new) in &now {
            let kind = match then.get(key).filter(|old| old.object.uid == new.object.uid) {
                None => "ADDED",
                Some(old)
                    if old.object.resource_version != new.object.resource_version
                        || old.status.json != new.status.json =>
                {
                    "MODIFIED"
                }
                Some(_) => continue,
            };
            events.push((new.object.resource_version, self.event(kind, &new.object, &new.status)));
        }
        events.sort_by_key(|(version, _)| *version);
        self.events.extend(events.into_iter().map(|(_, event)| event));
        self.seen = now;
        self.seen_version = view.access_version;
    }

    fn event(&self, kind: &str, object: &Object, status: &Status) -> Bytes {
        let shown: Value = if self.as_table {
            let include = match self.options.include_object {
                // An event without metadata could not be told from another.
                IncludeObject::None => IncludeObject::Metadata,
                other => other,
            };
            let row = table::line(object, status, self.kube.now(), include);
            table::write(self.kind.columns(), object.resource_version, vec![row])
        } else {
            wire::write(object, status)
        };
        Bytes::from(json!({"type": kind, "object": shown}).to_string() + "\n")
    }
}
