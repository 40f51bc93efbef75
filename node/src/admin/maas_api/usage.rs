//! Usage: what the caller's calls used, or for an administrator anybody's. As JSON, or as CSV with columns that stay as they are.
//!
//! `GET /v1/usage?from=2026-11-01&to=2026-12-01&username=ann&by=user,model&format=csv`; everything may be left out. Hours are shown for
//! eight days, after that days; a hundred days are kept. Calls in progress are not in it; one that has ended is, a moment later.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::Query;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use raft::state::{USAGE_DAYS_KEPT, UsageLabels, UsageSum};
use raft::{Timestamp, View};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::error::{Family, Refused};
use super::{Ask, reply};

/// So many rows are answered at most.
const ROWS_MAX: usize = 100_000;
/// What rows can be told apart by. `time` is when it began and for how long.
const DIMENSIONS: [&str; 7] = ["time", "user", "key", "subscription", "model", "organization", "cost_center"];
/// Tokens but where it says calls. Only ever added to, at the end.
const COLUMNS: [&str; 20] = [
    "begins",
    "seconds",
    "user",
    "key",
    "subscription",
    "model",
    "organization",
    "cost_center",
    "calls",
    "limited_calls",
    "input",
    "cached_input",
    "output",
    "reasoning_output",
    "total",
    "counted_calls",
    "counted_total",
    "estimated_calls",
    "estimated_total",
    "absurd_calls",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    from: Option<String>,
    to: Option<String>,
    username: Option<String>,
    by: Option<String>,
    format: Option<String>,
}

/// What a row is of; nothing where rows are not told apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    time: Option<(Timestamp, Duration)>,
    /// As `DIMENSIONS` after the first.
    names: [Option<String>; 6],
}

pub(super) async fn answer(ask: &Ask<'_>) -> Result<Response, Refused> {
    let Query(wanted) = Query::<Wanted>::try_from_uri(&ask.uri).map_err(|_| {
        Refused::bad_request(
            "ask with from, to, username, by and format, or some of them, each once: see the documentation",
        )
    })?;
    let username = wanted.username.as_deref().filter(|name| !name.is_empty());
    let user = match username {
        Some(name) if name != ask.caller.user() && !ask.caller.is_admin() => {
            return Err(Refused::forbidden("non-admin users can only see their own usage"));
        }
        Some(name) => Some(name),
        None if ask.caller.is_admin() => None,
        None => Some(ask.caller.user()),
    };
    let by = dimensions(wanted.by.as_deref())?;
    let is_csv = match wanted.format.as_deref() {
        None | Some("json") => false,
        Some("csv") => true,
        Some(_) => return Err(Refused::bad_request("`format` is json or csv")),
    };
    let from = wanted.from.as_deref().map(|text| moment("from", text)).transpose()?;
    let to = wanted.to.as_deref().map(|text| moment("to", text)).transpose()?;

    // What any node has acknowledged is in it.
    let barrier = ask.context.cluster.read_barrier().await;
    let view = barrier.map_err(|error| Refused::not_answered(&error, Family::Keys))?;
    let now = view.time.max(ask.context.doors.clock.wall());
    let to = to.unwrap_or(now.plus(Duration::from_millis(1)));
    let from = from.unwrap_or(Timestamp(to.0.saturating_sub(USAGE_DAYS_KEPT.as_millis() as u64)));
    let rows = rows(&view, (from, to), user, by).await?;
    if is_csv { csv(&rows) } else { Ok(reply(StatusCode::OK, &list(&rows, (from, to)))) }
}

/// Which of `DIMENSIONS` rows are told apart by: all of them if nothing is said.
fn dimensions(by: Option<&str>) -> Result<[bool; 7], Refused> {
    let Some(by) = by else { return Ok([true; 7]) };
    let mut wanted = [false; 7];
    for name in by.split(',').filter(|name| !name.is_empty()) {
        let Some(at) = DIMENSIONS.iter().position(|known| *known == name) else {
            return Err(Refused::bad_request(format!("`by` is a list of {}", DIMENSIONS.join(","))));
        };
        wanted[at] = true;
    }
    Ok(wanted)
}

/// A time, or the beginning of a day in UTC.
fn moment(field: &str, text: &str) -> Result<Timestamp, Refused> {
    let day = || text.parse::<jiff::civil::Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    let time = text.parse::<jiff::Timestamp>().ok().or_else(|| Some(day()?.timestamp()));
    let millis = time.and_then(|time| u64::try_from(time.as_millisecond()).ok());
    let wrong = || Refused::bad_request(format!("`{field}` is no time: write 2026-11-01 or 2026-11-01T08:00:00Z"));
    millis.map(Timestamp).ok_or_else(wrong)
}

/// So many rows are looked at before others have a turn.
const TURN: usize = 4096;

async fn rows(
    view: &View,
    (from, to): (Timestamp, Timestamp),
    user: Option<&str>,
    by: [bool; 7],
) -> Result<BTreeMap<Group, UsageSum>, Refused> {
    let mut rows: BTreeMap<Group, UsageSum> = BTreeMap::new();
    for (number, (begins, length, labels, sum)) in view.usage.between(from, to).enumerate() {
        if number % TURN == TURN - 1 {
            tokio::task::yield_now().await;
        }
        if user.is_some_and(|user| user != labels.user) {
            continue;
        }
        rows.entry(Group::of((begins, length), labels, by)).or_default().add(sum);
        if rows.len() > ROWS_MAX {
            let message = format!("more than {ROWS_MAX} rows: ask for less time, or for fewer dimensions with `by`");
            return Err(Refused::bad_request(message));
        }
    }
    Ok(rows)
}

impl Group {
    fn of(time: (Timestamp, Duration), labels: &UsageLabels, by: [bool; 7]) -> Group {
        let model = format!("{}/{}", labels.model.0, labels.model.1);
        let key = labels.key.map(|key| key.to_string()).unwrap_or_default();
        let UsageLabels { user, subscription, organization, cost_center, .. } = labels;
        let names = [user.clone(), key, subscription.1.clone(), model, organization.clone(), cost_center.clone()];
        let [by_time, by_names @ ..] = by;
        let mut shown = by_names.into_iter();
        let names = names.map(|name| shown.next().unwrap_or(false).then_some(name));
        Group { time: by_time.then_some(time), names }
    }
}

/// As `COLUMNS` after those that say whose it is.
fn numbers(sum: &UsageSum) -> [u64; 12] {
    [
        sum.calls,
        sum.limited,
        sum.input,
        sum.cached,
        sum.output,
        sum.reasoning,
        sum.total(),
        sum.counted_calls,
        sum.counted,
        sum.estimated_calls,
        sum.estimated,
        sum.absurd_calls,
    ]
}

fn list(rows: &BTreeMap<Group, UsageSum>, (from, to): (Timestamp, Timestamp)) -> Value {
    let with_numbers = |mut object: Map<String, Value>, sum: &UsageSum| {
        for (column, number) in COLUMNS[8..].iter().zip(numbers(sum)) {
            object.insert((*column).to_owned(), number.into());
        }
        Value::Object(object)
    };
    let mut total = UsageSum::default();
    let item = |(group, sum): (&Group, &UsageSum)| {
        total.add(sum);
        let mut object = Map::new();
        if let Some((begins, length)) = group.time {
            object.insert("begins".to_owned(), begins.to_string().into());
            object.insert("seconds".to_owned(), length.as_secs().into());
        }
        for (column, name) in COLUMNS[2..8].iter().zip(&group.names) {
            if let Some(name) = name {
                object.insert((*column).to_owned(), name.as_str().into());
            }
        }
        with_numbers(object, sum)
    };
    let data: Vec<Value> = rows.iter().map(item).collect();
    json!({
        "object": "list",
        "from": from.to_string(),
        "to": to.to_string(),
        "data": data,
        "total": with_numbers(Map::new(), &total),
    })
}

fn csv(rows: &BTreeMap<Group, UsageSum>) -> Result<Response, Refused> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut write = || {
        writer.write_record(COLUMNS)?;
        for (group, sum) in rows {
            let (begins, seconds) = group
                .time
                .map_or_else(Default::default, |(begins, length)| (begins.to_string(), length.as_secs().to_string()));
            let names = group.names.iter().map(|name| name.clone().unwrap_or_default());
            let numbers = numbers(sum).map(|number| number.to_string());
            writer.write_record([begins, seconds].into_iter().chain(names).chain(numbers))?;
        }
        writer.flush()?;
        Ok::<_, csv::Error>(())
    };
    let failed = |error: String| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, Family::Keys, error);
    write().map_err(|error| failed(error.to_string()))?;
    let bytes = writer.into_inner().map_err(|error| failed(error.to_string()))?;
    let headers =
        [(CONTENT_TYPE, "text/csv; charset=utf-8"), (CONTENT_DISPOSITION, "attachment; filename=\"usage.csv\"")];
    Ok((StatusCode::OK, headers, bytes).into_response())
}
