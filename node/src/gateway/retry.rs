//! What a replica says about another attempt: `Retry-After`, and the two headers that the SDKs of OpenAI and Anthropic prefer to it.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use raft::Timestamp;

/// A replica that wants to be left alone for longer is not taken at its word.
const AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// Advice of a replica. The default is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct RetryAdvice {
    /// When to try again: the latest of what it says, at most a day.
    pub(super) after: Option<Duration>,
    /// Whether to try again at all.
    pub(super) should: Option<bool>,
}

impl RetryAdvice {
    /// Reads `retry-after` (seconds or a date, RFC 9110, section 10.2.3), `retry-after-ms` and `x-should-retry`. What cannot be read says nothing.
    pub(super) fn read(headers: &HeaderMap, now: Timestamp) -> RetryAdvice {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let seconds = text("retry-after").and_then(|value| seconds(value).or_else(|| until(value, now)));
        let millis = text("retry-after-ms").and_then(seconds_of_millis);
        let should = match text("x-should-retry") {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => None,
        };
        RetryAdvice { after: seconds.max(millis).map(|after| after.min(AFTER_MAX)), should }
    }

    /// Adds it to the head of an answer, the time in both headers and rounded up.
    pub(super) fn add_to(self, headers: &mut HeaderMap) {
        if let Some(after) = self.after {
            let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(millis.div_ceil(1000).max(1)));
            headers.insert("retry-after-ms", HeaderValue::from(millis.max(1)));
        }
        if let Some(should) = self.should {
            headers.insert("x-should-retry", HeaderValue::from_static(if should { "true" } else { "false" }));
        }
    }
}

fn seconds(value: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(value.parse().ok()?).ok()
}

fn seconds_of_millis(value: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(value.parse::<f64>().ok()? / 1000.0).ok()
}

fn until(date: &str, now: Timestamp) -> Option<Duration> {
    let date = httpdate::parse_http_date(date).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(date.saturating_sub(Duration::from_millis(now.millis())))
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn advice_is_read_in_every_form_and_bounded() {
        let now = Timestamp(784_111_777_000);
        let table = [
            ("", None, None),
            ("retry-after: 7", Some(7000), None),
            ("retry-after:  1.5 ", Some(1500), None),
            ("retry-after-ms: 250", Some(250), None),
            ("retry-after: 7 | retry-after-ms: 250", Some(7000), None),
            ("retry-after: Sun, 06 Nov 1994 08:50:37 GMT", Some(60_000), None),
            ("retry-after: Sun, 06 Nov 1994 08:00:00 GMT", Some(0), None),
            ("retry-after: 99999999999", Some(86_400_000), None),
            ("retry-after: -1 | retry-after-ms: NaN", None, None),
            ("retry-after: soon | x-should-retry: false", None, Some(false)),
            ("x-should-retry: true", None, Some(true)),
        ];
        for (lines, after, should) in table {
            let lines = lines.split(" | ").filter_map(|line| line.split_once(": "));
            let lines = lines.map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()));
            let headers = HeaderMap::from_iter(lines);
            let expected = RetryAdvice { after: after.map(Duration::from_millis), should };
            assert_eq!(RetryAdvice::read(&headers, now), expected, "{headers:?}");
        }
    }
}
