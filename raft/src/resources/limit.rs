//! Limits of a subscription on a model: of tokens and calls in a window, of calls in progress, of money in a month.
//!
//! They differ in what they count and when that ends; the ledger treats them alike.

use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::fields::Fields;
use super::money::{self, Price};
use crate::ids::Timestamp;

/// The longest window that can be written: 366 days.
const WINDOW_SECONDS_MAX: u32 = 366 * 24 * 3600;
/// The longest month.
const MONTH: Duration = Duration::from_secs(31 * 24 * 3600);
/// Longer than anybody will run this.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);
/// At which parts of a budget, in percent, its subscription says so, unless it says otherwise.
const ALERTS: [u8; 2] = [80, 100];

/// So much of something in so long a window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limit {
    /// Of its unit, at least 1.
    pub limit: u64,
    /// The window as written: `60s`, `1h`; `month` for a budget; nothing for calls in progress.
    pub window: String,
    /// The window in seconds, at least 1; 0 for what has no windows of one length.
    pub window_seconds: u32,
    /// What is counted.
    pub unit: Unit,
    /// Who is counted together.
    pub scope: LimitScope,
    /// What becomes of an answer that would pass it.
    pub enforcement: Enforcement,
    /// What tokens cost, if it counts money.
    pub price: Price,
    /// The parts of a budget, in percent, at which the subscription's status says so.
    pub alerts: Vec<u8>,
}

impl Limit {
    /// `300 tokens per 1h for each user`.
    pub(super) fn written(&self) -> String {
        let whose = match self.scope {
            LimitScope::User => "for each user",
            LimitScope::Key => "for each key",
            LimitScope::Subscription => "for all users together",
        };
        let per = if self.window.is_empty() { String::new() } else { format!(" per {}", self.window) };
        let hard = if self.enforcement == Enforcement::Hard { ", hard" } else { "" };
        format!("{}{per} {whose}{hard}", self.unit.written(self.limit))
    }

    /// Whether a call that nobody competes with may be admitted on less than it needs: what it uses beyond what it holds is debt, which
    /// a hard limit does not allow, and a call or a place cannot be had in part.
    pub fn gives_rest(&self) -> bool {
        self.enforcement == Enforcement::Reserve && !matches!(self.unit, Unit::Requests | Unit::InProgress)
    }

    /// Which of the limits on a model it is. Two of one kind are one: the smaller.
    pub fn kind(&self) -> LimitKind {
        LimitKind { window_seconds: self.window_seconds, unit: self.unit, scope: self.scope }
    }
}

/// What tells the limits on a model apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct LimitKind {
    /// The length of its windows; 0 if they have no one length.
    pub window_seconds: u32,
    /// What is counted.
    pub unit: Unit,
    /// Who is counted together.
    pub scope: LimitScope,
}

impl LimitKind {
    /// The length of its windows, of the longest if they differ; at least a second.
    pub fn window(self) -> Duration {
        match self.unit {
            Unit::InProgress => FOR_EVER,
            Unit::Cost => MONTH,
            Unit::Total | Unit::Input | Unit::Output | Unit::Requests => {
                Duration::from_secs(u64::from(self.window_seconds.max(1)))
            }
        }
    }

    /// When a window ends that begins at `time`. Budgets are of calendar months, in UTC.
    pub fn window_end(self, time: Timestamp) -> Timestamp {
        let month_end = if self.unit == Unit::Cost { month_end(time) } else { None };
        month_end.unwrap_or_else(|| time.plus(self.window()))
    }
}

/// The end of the month that `time` is in; `None` beyond the year 9999.
fn month_end(time: Timestamp) -> Option<Timestamp> {
    let now = jiff::Timestamp::from_millisecond(i64::try_from(time.millis()).ok()?).ok()?;
    let date: Date = now.to_zoned(TimeZone::UTC).date();
    let end = date.last_of_month().tomorrow().ok()?.to_zoned(TimeZone::UTC).ok()?;
    u64::try_from(end.timestamp().as_millisecond()).ok().map(Timestamp)
}

/// What a limit counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Unit {
    /// Tokens of prompts and of answers.
    #[default]
    Total,
    /// Tokens of prompts.
    Input,
    /// Tokens of answers.
    Output,
    /// Calls that reached a replica.
    Requests,
    /// Calls in progress: what one takes comes back when it ends.
    InProgress,
    /// What tokens cost, in [`money`].
    Cost,
}

impl Unit {
    /// As quotas say it.
    pub const NAMES: [(&str, Unit); 6] = [
        ("total", Unit::Total),
        ("input", Unit::Input),
        ("output", Unit::Output),
        ("requests", Unit::Requests),
        ("in_progress", Unit::InProgress),
        ("cost", Unit::Cost),
    ];

    /// As quotas say it.
    pub fn name(self) -> &'static str {
        name_of(&Unit::NAMES, self)
    }

    /// Whether it counts the tokens of prompts, alone or among others.
    pub fn counts_input(self) -> bool {
        matches!(self, Unit::Total | Unit::Input | Unit::Cost)
    }

    /// Whether it counts the tokens of answers, alone or among others.
    pub fn counts_output(self) -> bool {
        matches!(self, Unit::Total | Unit::Output | Unit::Cost)
    }

    /// As texts say so much of it: `300 tokens`, `12.50`.
    pub fn written(self, amount: u64) -> String {
        match self {
            Unit::Total => format!("{amount} tokens"),
            Unit::Input => format!("{amount} input tokens"),
            Unit::Output => format!("{amount} output tokens"),
            Unit::Requests => format!("{amount} requests"),
            Unit::InProgress => format!("{amount} calls in progress"),
            Unit::Cost => money::written(amount),
        }
    }

    /// As JSON says so much of it: a number, money in the currency's unit.
    pub fn number(self, amount: u64) -> Value {
        if self == Unit::Cost { json!(money::units(amount)) } else { json!(amount) }
    }
}

/// Who shares a limit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub enum LimitScope {
    /// Nobody: every user has it.
    #[default]
    User,
    /// Every key has it. What is not called with a key is counted by user.
    Key,
    /// All users of the subscription share it.
    Subscription,
}

impl LimitScope {
    /// As a limit's `scope` says it.
    pub const NAMES: [(&str, LimitScope); 3] =
        [("user", LimitScope::User), ("key", LimitScope::Key), ("subscription", LimitScope::Subscription)];

    /// As a limit's `scope` says it.
    pub fn name(self) -> &'static str {
        name_of(&LimitScope::NAMES, self)
    }
}

/// What becomes of an answer that would pass a limit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Enforcement {
    /// It is finished. What it used beyond its reservation and nothing free covers is debt: the next window has so much less.
    #[default]
    Reserve,
    /// It ends there, as one ends that reaches its `max_tokens`.
    Hard,
}

impl Enforcement {
    /// As a limit's `enforcement` says it.
    pub const NAMES: [(&str, Enforcement); 2] = [("reserve", Enforcement::Reserve), ("hard", Enforcement::Hard)];

    /// As a limit's `enforcement` says it.
    pub fn name(self) -> &'static str {
        name_of(&Enforcement::NAMES, self)
    }
}

fn name_of<T: PartialEq>(names: &[(&'static str, T)], wanted: T) -> &'static str {
    names.iter().find(|(_, meaning)| *meaning == wanted).map_or("", |(name, _)| name)
}

// === Reading ===

/// The fields of one of a model's `tokenRateLimits`.
pub(super) const WINDOW_FIELDS: [&str; 5] = ["limit", "window", "unit", "scope", "enforcement"];
/// The fields of a model's `concurrency`.
pub(super) const CONCURRENCY_FIELDS: [&str; 3] = ["user", "key", "subscription"];
/// The fields of a model's `budget`.
pub(super) const BUDGET_FIELDS: [&str; 4] = ["limit", "scope", "enforcement", "alerts"];

/// One of `tokenRateLimits`.
pub(super) fn parse_window(fields: &Fields<'_>) -> Option<Limit> {
    if !fields.has("limit") {
        fields.error("limit", "is required");
    }
    let limit = fields.integer("limit", 1..=1_000_000_000);
    // What has no window is written elsewhere.
    let unit = fields.one_of("unit", &Unit::NAMES[..4]).unwrap_or_default();
    let scope = fields.one_of("scope", &LimitScope::NAMES).unwrap_or_default();
    let enforcement = fields.one_of("enforcement", &Enforcement::NAMES).unwrap_or_default();
    let window = fields.required_text("window", 0..=64)?;
    let window_seconds = seconds_within_bounds(fields, "window", "a window", window)?;
    Some(Limit {
        limit: u64::try_from(limit?).ok()?,
        window: window.to_owned(),
        window_seconds,
        unit,
        scope,
        enforcement,
        price: Price::default(),
        alerts: Vec::new(),
    })
}

/// A duration, written as windows are.
pub(super) fn parse_duration(fields: &Fields<'_>, name: &str) -> Option<Duration> {
    let seconds = seconds_within_bounds(fields, name, "a duration", fields.text(name)?)?;
    Some(Duration::from_secs(u64::from(seconds)))
}

/// Notes in field `name` what is wrong with `text`, which is to be `what`.
fn seconds_within_bounds(fields: &Fields<'_>, name: &str, what: &str, text: &str) -> Option<u32> {
    let seconds = window_seconds(text);
    if seconds.is_none() {
        fields.error(name, format!("\"{text}\" is not {what}: use 1 to 9999 followed by s, m or h"));
    }
    let seconds = seconds?;
    if seconds > WINDOW_SECONDS_MAX {
        fields.error(name, format!("\"{text}\" is too long: use at most 8784h (366 days)"));
        return None;
    }
    Some(seconds)
}

/// `90s`, `5m`, `1h` in seconds: 1 to 9999 of a unit.
fn window_seconds(text: &str) -> Option<u32> {
    let unit = text.chars().next_back()?;
    let digits = text.strip_suffix(unit)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return None,
    };
    let written =
        (1..=4).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    written.then(|| digits.parse::<u32>().ok()).flatten().map(|count| count * seconds)
}

/// `concurrency`: how many calls of a user, of a key, of all may be in progress.
pub(super) fn parse_concurrency(fields: &Fields<'_>) -> Vec<Limit> {
    let of_scope = |(name, scope): (&str, LimitScope)| {
        let limit = u64::try_from(fields.integer(name, 1..=1_000_000)?).ok()?;
        Some(Limit {
            limit,
            window: String::new(),
            window_seconds: 0,
            unit: Unit::InProgress,
            scope,
            // None can be passed: a call is admitted or it is not.
            enforcement: Enforcement::Hard,
            price: Price::default(),
            alerts: Vec::new(),
        })
    };
    LimitScope::NAMES.into_iter().filter_map(of_scope).collect()
}

/// `budget`, at the `price` of the model's tokens.
pub(super) fn parse_budget(fields: &Fields<'_>, price: Price) -> Option<Limit> {
    if !fields.has("limit") {
        fields.error("limit", "is required");
    }
    let limit = fields.money("limit", money::BUDGET_MAX);
    let scope = fields.one_of("scope", &LimitScope::NAMES).unwrap_or(LimitScope::Subscription);
    let enforcement = fields.one_of("enforcement", &Enforcement::NAMES).unwrap_or_default();
    let alerts = if fields.has("alerts") { fields.percents("alerts") } else { ALERTS.to_vec() };
    Some(Limit {
        limit: limit?,
        window: "month".to_owned(),
        window_seconds: 0,
        unit: Unit::Cost,
        scope,
        enforcement,
        price,
        alerts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_end_after_their_length_and_budgets_with_the_month() {
        let at = |text: &str| {
            let time: jiff::Timestamp = text.parse().unwrap();
            Timestamp(u64::try_from(time.as_millisecond()).unwrap())
        };
        let table = [
            (60, Unit::Total, "2026-11-23T08:00:00Z", "2026-11-23T08:01:00Z"),
            (0, Unit::Cost, "2026-11-23T08:00:00.001Z", "2026-12-01T00:00:00Z"),
            (0, Unit::Cost, "2026-12-31T23:59:59.999Z", "2027-01-01T00:00:00Z"),
            (0, Unit::Cost, "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
        ];
        for (window_seconds, unit, opened, end) in table {
            let kind = LimitKind { window_seconds, unit, scope: LimitScope::User };
            assert_eq!(kind.window_end(at(opened)), at(end), "{unit:?} {opened}");
        }
        let for_ever = LimitKind { window_seconds: 0, unit: Unit::InProgress, scope: LimitScope::User };
        assert!(for_ever.window_end(at("2026-11-23T08:00:00Z")) > at("2150-01-01T00:00:00Z"));
        let beyond = Timestamp(u64::MAX / 2);
        let budget = LimitKind { window_seconds: 0, unit: Unit::Cost, scope: LimitScope::User };
        assert!(budget.window_end(beyond) > beyond);
    }
}
