//! How long a key lives: `expiresIn` and its bounds.

use std::time::Duration;

use serde_json::Value;

/// Ephemeral keys live an hour, and no longer.
pub(super) const EPHEMERAL_MAX: Duration = Duration::from_secs(3600);

/// The lifetime that `expires_in` asks for: a string like `30d`, `1.5d`, `2h30m`, or a number of seconds; `max` if absent.
/// Errors: what is wrong with it.
pub(super) fn lifetime(expires_in: Option<&Value>, max: Duration) -> Result<Duration, String> {
    let seconds = match expires_in {
        None | Some(Value::Null) => return Ok(max),
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => parse(text),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => None,
    };
    let Some(seconds) = seconds else {
        return Err(
            "invalid expiresIn: use a duration such as \"30d\", \"6h\" or \"2h30m\", or a number of seconds".to_owned()
        );
    };
    if seconds <= 0.0 {
        return Err("invalid expiresIn: expiration must be positive".to_owned());
    }
    match Duration::try_from_secs_f64(seconds) {
        Ok(lifetime) if lifetime <= max => Ok(lifetime),
        _ => Err(format!(
            "invalid expiresIn: more than {} days: expiration exceeds maximum allowed",
            max.as_secs_f64() / 86_400.0
        )),
    }
}

/// A duration in Go's notation, days added, in seconds. `None` if it is none.
fn parse(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) if text.starts_with('-') => (-1.0, rest),
        Some(rest) => (1.0, rest),
        None => (1.0, text),
    };
    if rest == "0" {
        return Some(0.0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, after) = rest.split_at(digits);
        let unit_length = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_length);
        let unit_seconds = match unit {
            "d" => 86_400.0,
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * unit_seconds;
        rest = after;
    }
    Some(sign * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lifetimes() {
        let max = Duration::from_secs(90 * 86_400);
        let cases = [
            (json!(null), Ok(90.0 * 86_400.0)),
            (json!("30d"), Ok(30.0 * 86_400.0)),
            (json!("1.5d"), Ok(1.5 * 86_400.0)),
            (json!("6h"), Ok(6.0 * 3600.0)),
            (json!("2h30m"), Ok(9000.0)),
            (json!("1d12h"), Ok(36.0 * 3600.0)),
            (json!("+90d"), Ok(90.0 * 86_400.0)),
            (json!(3600), Ok(3600.0)),
            (json!(0.5), Ok(0.5)),
            (json!("500ms"), Ok(0.5)),
            (json!(0), Err("expiration must be positive")),
            (json!("0"), Err("expiration must be positive")),
            (json!("-1h"), Err("expiration must be positive")),
            (json!(-5), Err("expiration must be positive")),
            (json!("91d"), Err("expiration exceeds maximum allowed")),
            (json!("90d1s"), Err("expiration exceeds maximum allowed")),
            (json!(1e300), Err("expiration exceeds maximum allowed")),
            (json!("3600"), Err("or a number of seconds")),
            (json!("1w"), Err("or a number of seconds")),
            (json!("d"), Err("or a number of seconds")),
            (json!(""), Err("or a number of seconds")),
            (json!("1.2.3h"), Err("or a number of seconds")),
            (json!(true), Err("or a number of seconds")),
            (json!(["1h"]), Err("or a number of seconds")),
        ];
        for (given, expected) in cases {
            match (lifetime(Some(&given), max), expected) {
                (Ok(lifetime), Ok(seconds)) => {
                    assert!((lifetime.as_secs_f64() - seconds).abs() < 1e-6, "{given}: {lifetime:?}")
                }
                (Err(message), Err(end)) => assert!(message.ends_with(end), "{given}: {message}"),
                (found, _) => panic!("{given}: {found:?}"),
            }
        }
        assert_eq!(lifetime(None, EPHEMERAL_MAX), Ok(EPHEMERAL_MAX));
    }
}
