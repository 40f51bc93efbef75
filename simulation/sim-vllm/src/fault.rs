//! Faults on demand: for one request (header `x-sim-fault`) or for the replica (`POST /sim/fault`, or
//! [`Replica::set_fault`](crate::Replica::set_fault)).
//!
//! Written `name`, `name=value` or `name;parameter=value;...`:
//!
//! | fault | parameters | what the caller sees |
//! |---|---|---|
//! | `refuse` | | the connection closes without an answer |
//! | `status=503` | | that status with an OpenAI error body |
//! | `delay` | `for=2s` | the answer starts that much later |
//! | `hang-before-headers` | | nothing, until the caller leaves |
//! | `stall-mid-stream` | `after=5` | silence after that many events; a plain call hangs |
//! | `die-mid-stream` | `after=5` | the connection is cut, the body incomplete |
//! | `engine-error-mid-stream` | `after=5` | an error event, then `[DONE]`, as vLLM does when its engine dies; a plain call gets 500 |
//! | `garbage` | | bytes that are not HTTP |
//! | `garbage-json` | `after=5` | an event (or a plain answer) that is not JSON |
//! | `usage=wrong`, `usage=negative`, `usage=huge` | | usage that is not true |
//! | `missing-usage` | | no usage anywhere |
//! | `dead-core` | | the engine's core has died and the front end has not noticed: every call gets 500 `EngineCore encountered an issue` |
//! | `hung-core` | | replica only: the engine's core is stopped: calls hang, metrics stand still, `/health` is 200, until the fault is taken back |
//! | `slow-start` | `for=10s` | replica only: connections are closed unanswered for that long from now |
//! | `oscillating-health` | `period=2s` | replica only: `/health` is 200 for half of the period and 503 for the other half |
//!
//! With `rate=0.25` a fault strikes that share of the requests, drawn from the seed. A fault strikes the API paths;
//! with `on=all` also the probes (`/health`, `/metrics`, ...). `/sim/...` is never struck.

use std::{fmt, str::FromStr, time::Duration};

/// A fault and when it strikes.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// Events that a stream still delivers before a fault in mid-stream.
    pub after: usize,
    /// How long (`delay`, `slow-start`), or the full period (`oscillating-health`).
    pub time: Duration,
    /// The share of requests that it strikes, 0.0 to 1.0.
    pub rate: f64,
    /// Strikes probes too.
    pub everywhere: bool,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The connection closes without an answer.
    Refuse,
    /// An HTTP status.
    Status(u16),
    /// The answer starts late.
    Delay,
    /// No answer.
    HangBeforeHeaders,
    /// A stream falls silent.
    StallMidStream,
    /// The connection is cut.
    DieMidStream,
    /// The engine dies, the front end says so.
    EngineErrorMidStream,
    /// Not HTTP.
    Garbage,
    /// Not JSON.
    GarbageJson,
    /// Usage that is not true.
    Usage(Lie),
    /// No usage.
    MissingUsage,
    /// The engine's core has died, and the front end lives on.
    DeadCore,
    /// The engine's core is stopped (SIGSTOP).
    HungCore,
    /// Not there yet.
    SlowStart,
    /// Health that comes and goes.
    OscillatingHealth,
}

/// How usage is not true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Plausible and wrong.
    Wrong,
    /// Below zero.
    Negative,
    /// A thousand billion.
    Huge,
}

/// A fault that could not be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown fault, parameter or value `{0}`; the faults are listed in sim_vllm::fault")]
pub struct UnknownFault(String);

impl Fault {
    /// A fault with its default parameters.
    pub fn new(kind: FaultKind) -> Self {
        Self { kind, after: 5, time: Duration::from_secs(2), rate: 1.0, everywhere: false }
    }

    /// The same, striking a stream after so many events.
    pub fn after(self, events: usize) -> Self {
        Self { after: events, ..self }
    }
}

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        let mut parts = text.split(';').map(str::trim);
        let unknown = |part: &str| UnknownFault(part.to_owned());
        let name = parts.next().unwrap_or_default();
        let mut fault = Self::new(kind(name).ok_or_else(|| unknown(name))?);
        for part in parts.filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| unknown(part))?;
            let understood = match key {
                "after" => value.parse().map(|after| fault.after = after).is_ok(),
                "rate" => value.parse().map(|rate| fault.rate = rate).is_ok(),
                "for" | "period" => duration(value).map(|time| fault.time = time).is_some(),
                "on" => {
                    fault.everywhere = value == "all";
                    matches!(value, "all" | "api")
                }
                _ => false,
            };
            if !understood {
                return Err(unknown(part));
            }
        }
        Ok(fault)
    }
}

fn kind(name: &str) -> Option<FaultKind> {
    Some(match name {
        "refuse" => FaultKind::Refuse,
        "delay" => FaultKind::Delay,
        "hang-before-headers" => FaultKind::HangBeforeHeaders,
        "stall-mid-stream" => FaultKind::StallMidStream,
        "die-mid-stream" => FaultKind::DieMidStream,
        "engine-error-mid-stream" => FaultKind::EngineErrorMidStream,
        "garbage" => FaultKind::Garbage,
        "garbage-json" => FaultKind::GarbageJson,
        "usage=wrong" => FaultKind::Usage(Lie::Wrong),
        "usage=negative" => FaultKind::Usage(Lie::Negative),
        "usage=huge" => FaultKind::Usage(Lie::Huge),
        "missing-usage" => FaultKind::MissingUsage,
        "dead-core" => FaultKind::DeadCore,
        "hung-core" => FaultKind::HungCore,
        "slow-start" => FaultKind::SlowStart,
        "oscillating-health" => FaultKind::OscillatingHealth,
        other => {
            FaultKind::Status(other.strip_prefix("status=")?.parse().ok().filter(|code| (200..600).contains(code))?)
        }
    })
}

fn duration(text: &str) -> Option<Duration> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let value: f64 = number.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0)?;
    match &text[number.len()..] {
        "ms" => Some(Duration::from_secs_f64(value / 1e3)),
        "s" => Some(Duration::from_secs_f64(value)),
        _ => None,
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            FaultKind::Refuse => f.write_str("refuse")?,
            FaultKind::Status(code) => write!(f, "status={code}")?,
            FaultKind::Delay => f.write_str("delay")?,
            FaultKind::HangBeforeHeaders => f.write_str("hang-before-headers")?,
            FaultKind::StallMidStream => f.write_str("stall-mid-stream")?,
            FaultKind::DieMidStream => f.write_str("die-mid-stream")?,
            FaultKind::EngineErrorMidStream => f.write_str("engine-error-mid-stream")?,
            FaultKind::Garbage => f.write_str("garbage")?,
            FaultKind::GarbageJson => f.write_str("garbage-json")?,
            FaultKind::Usage(Lie::Wrong) => f.write_str("usage=wrong")?,
            FaultKind::Usage(Lie::Negative) => f.write_str("usage=negative")?,
            FaultKind::Usage(Lie::Huge) => f.write_str("usage=huge")?,
            FaultKind::MissingUsage => f.write_str("missing-usage")?,
            FaultKind::DeadCore => f.write_str("dead-core")?,
            FaultKind::HungCore => f.write_str("hung-core")?,
            FaultKind::SlowStart => f.write_str("slow-start")?,
            FaultKind::OscillatingHealth => f.write_str("oscillating-health")?,
        }
        write!(f, ";after={};for={}ms;rate={}", self.after, self.time.as_millis(), self.rate)?;
        if self.everywhere { f.write_str(";on=all") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_as_they_are_written() {
        for (text, kind, after, rate) in [
            ("refuse", FaultKind::Refuse, 5, 1.0),
            ("status=503;rate=0.5", FaultKind::Status(503), 5, 0.5),
            ("die-mid-stream; after=7", FaultKind::DieMidStream, 7, 1.0),
            ("usage=negative", FaultKind::Usage(Lie::Negative), 5, 1.0),
            ("hung-core", FaultKind::HungCore, 5, 1.0),
            ("dead-core;rate=0.5", FaultKind::DeadCore, 5, 0.5),
            ("slow-start;for=250ms", FaultKind::SlowStart, 5, 1.0),
        ] {
            let fault: Fault = text.parse().unwrap();
            assert_eq!((fault.kind, fault.after, fault.rate), (kind, after, rate), "{text}");
            assert_eq!(fault.to_string().parse::<Fault>().unwrap(), fault);
        }
        for text in ["", "explode", "status=7", "refuse;after=x", "delay;for=3", "refuse;wat=1", "usage=odd"] {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
    }
}
