//! Search among API keys: one's own, or for an administrator anybody's.

use std::cmp::Ordering;
use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use raft::Timestamp;
use raft::state::{ApiKey, KeyStatus};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::error::Refused;
use super::labels::LABELS_MAX;
use super::{Ask, key, reply};

const LIMIT_DEFAULT: i64 = 50;
const LIMIT_MAX: i64 = 100;
/// So many keys are looked at before others have a turn.
const TURN: usize = 1024;
/// Statuses in a filter, of which there are three.
const STATUSES_MAX: usize = 16;

#[derive(Deserialize)]
struct Wanted {
    filters: Option<Filters>,
    sort: Option<Sort>,
    pagination: Option<Pagination>,
}

/// Other filters that upstream declares have no effect there, and none here.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Filters {
    username: Option<String>,
    status: Option<Vec<String>>,
    include_ephemeral: Option<bool>,
    subscription: Option<String>,
    labels_contain: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct Sort {
    by: Option<String>,
    order: Option<String>,
}

#[derive(Deserialize)]
struct Pagination {
    #[serde(default)]
    limit: i64,
    #[serde(default)]
    offset: i64,
}

pub(super) async fn answer(ask: &Ask<'_>) -> Result<Response, Refused> {
    let (context, caller) = (ask.context, &ask.caller);
    let wanted: Wanted = ask.json()?;
    let filters = wanted.filters.unwrap_or_default();
    let username = filters.username.as_deref().filter(|name| !name.is_empty());
    let owner = match username {
        Some(name) if name != caller.user() && !caller.is_admin() => {
            return Err(Refused::forbidden("non-admin users can only search their own API keys"));
        }
        Some(name) => Some(name),
        None if caller.is_admin() => None,
        None => Some(caller.user()),
    };
    let (limit, offset) = page(wanted.pagination.as_ref())?;
    let order = Order::parse(wanted.sort.as_ref())?;
    let statuses = statuses(filters.status.as_deref().unwrap_or_default())?;
    if let Some(labels) = filters.labels_contain.as_ref().filter(|labels| labels.len() > LABELS_MAX) {
        let message = format!("filters.labelsContain has {} labels: a key has at most {LABELS_MAX}", labels.len());
        return Err(Refused::bad_request(message));
    }

    let now = context.doors.clock.wall();
    let view = context.cluster.view();
    let has_status = |key: &ApiKey| statuses.is_empty() || statuses.contains(&view.status_of(key, now));
    let retention = view.key_bounds().retention;
    let all: Vec<&Arc<ApiKey>> = match owner {
        Some(owner) => view.keys_of(owner).collect(),
        None => view.keys.values().collect(),
    };
    let mut keys: Vec<&Arc<ApiKey>> = Vec::new();
    for some in all.chunks(TURN) {
        keys.extend(some.iter().filter(|key| filters.fit(key) && has_status(key) && key.is_kept(retention, now)));
        tokio::task::yield_now().await;
    }
    keys.sort_by(|one, other| order.compare(one, other));
    let shown = |key: &&Arc<ApiKey>| key::write(key, view.status_of(key, now));
    let data: Vec<Value> = keys.iter().skip(offset).take(limit).map(shown).collect();
    let has_more = keys.len() > offset.saturating_add(limit);
    Ok(reply(StatusCode::OK, &json!({"object": "list", "data": data, "has_more": has_more})))
}

impl Filters {
    fn fit(&self, key: &ApiKey) -> bool {
        let subscription = self.subscription.as_deref().filter(|name| !name.is_empty());
        let has_label = |(name, value): (&String, &Value)| {
            key.labels.iter().any(|(known, text)| known == name && value.as_str() == Some(text))
        };
        (!key.ephemeral || self.include_ephemeral == Some(true))
            && subscription.is_none_or(|name| name == key.subscription)
            && self.labels_contain.as_ref().is_none_or(|labels| labels.iter().all(has_label))
    }
}

fn statuses(words: &[String]) -> Result<Vec<KeyStatus>, Refused> {
    if words.len() > STATUSES_MAX {
        let count = words.len();
        return Err(Refused::bad_request(format!("filters.status has {count} entries: use at most {STATUSES_MAX}")));
    }
    let all = [KeyStatus::Active, KeyStatus::Revoked, KeyStatus::Expired];
    let parse = |word: &String| {
        let found = all.into_iter().find(|status| key::status_word(*status) == word);
        found.ok_or_else(|| Refused::bad_request(format!("invalid status {word:?}: use active, revoked or expired")))
    };
    words.iter().map(parse).collect()
}

/// (limit, offset)
fn page(pagination: Option<&Pagination>) -> Result<(usize, usize), Refused> {
    let (limit, offset) = pagination.map_or((LIMIT_DEFAULT, 0), |page| (page.limit, page.offset));
    if limit < 1 {
        return Err(Refused::bad_request("pagination.limit must be at least 1"));
    }
    let offset = usize::try_from(offset).map_err(|_| Refused::bad_request("pagination.offset must not be negative"))?;
    let limit = usize::try_from(limit.min(LIMIT_MAX)).expect("between 1 and 100");
    Ok((limit, offset))
}

struct Order {
    by: By,
    ascending: bool,
}

#[derive(Clone, Copy)]
enum By {
    Created,
    Expires,
    LastUsed,
    Name,
}

impl Order {
    fn parse(sort: Option<&Sort>) -> Result<Order, Refused> {
        let by = match sort.and_then(|sort| sort.by.as_deref()).unwrap_or("created_at") {
            "created_at" => By::Created,
            "expires_at" => By::Expires,
            "last_used_at" => By::LastUsed,
            "name" => By::Name,
            other => {
                let message = format!("invalid sort.by {other:?}: use created_at, expires_at, last_used_at or name");
                return Err(Refused::bad_request(message));
            }
        };
        let order = sort.and_then(|sort| sort.order.as_deref()).unwrap_or("desc");
        match order.to_ascii_lowercase().as_str() {
            "asc" => Ok(Order { by, ascending: true }),
            "desc" => Ok(Order { by, ascending: false }),
            _ => Err(Refused::bad_request(format!("invalid sort.order {order:?}: use asc or desc"))),
        }
    }

    /// What is missing sorts last in either order; ties are broken by id, so that pages fit together.
    fn compare(&self, one: &ApiKey, other: &ApiKey) -> Ordering {
        let turn = |ordering: Ordering| if self.ascending { ordering } else { ordering.reverse() };
        let ordering = match self.by {
            By::Created => turn(one.created.cmp(&other.created)),
            By::Expires => turn(one.expires.cmp(&other.expires)),
            By::Name => turn(one.name.cmp(&other.name)),
            By::LastUsed => match (one.last_used, other.last_used) {
                (Some(one), Some(other)) => turn(Timestamp::cmp(&one, &other)),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => Ordering::Equal,
            },
        };
        ordering.then_with(|| one.id.cmp(&other.id))
    }
}
