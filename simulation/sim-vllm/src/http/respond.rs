//! Answers and their headers: what uvicorn and FastAPI put around what a handler says.

use std::{collections::VecDeque, task::Context, task::Poll};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CONTENT_LENGTH, CONTENT_TYPE, DATE, LOCATION, SERVER},
    request::Parts,
};
use serde_json::Value;

use super::{
    body::{Body, EventSource, Faulty},
    errors::{ApiError, detail},
    route::Route,
};
use crate::{
    config::Config,
    fault::{Fault, FaultKind},
    replica::Shared,
};

/// An answer without the headers that every answer has.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    content_type: Option<&'static str>,
    body: Body,
    /// Never carries `x-request-id`.
    anonymous: bool,
}

impl Answer {
    pub(crate) fn json(status: StatusCode, value: &Value) -> Self {
        Self::text(status, "application/json", value.to_string())
    }

    pub(crate) fn text(status: StatusCode, content_type: &'static str, text: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            content_type: Some(content_type),
            body: Body::Whole(text.into()),
            anonymous: false,
        }
    }

    pub(crate) fn empty(status: StatusCode) -> Self {
        Self { content_type: None, ..Self::text(status, "", Bytes::new()) }
    }

    pub(crate) fn events(events: Box<dyn EventSource>) -> Self {
        let body = Body::Events(events);
        Self { body, ..Self::text(StatusCode::OK, "text/event-stream; charset=utf-8", Bytes::new()) }
    }

    /// Bytes in pieces; `metadata` is told in a header.
    pub(crate) fn bytes(metadata: Option<&Value>, pieces: Vec<Bytes>) -> Self {
        let body = Body::Events(Box::new(Pieces(pieces.into())));
        let answer = Self { body, ..Self::text(StatusCode::OK, "application/octet-stream", Bytes::new()) };
        match metadata {
            Some(metadata) => answer.with(HeaderName::from_static("metadata"), &metadata.to_string()),
            None => answer,
        }
    }

    pub(crate) fn allow(self, methods: &[Method]) -> Self {
        let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
        self.with(ALLOW, &names.join(", "))
    }

    /// The answer to a crash, which bypasses what adds the id of a request.
    pub(crate) fn anonymous(self) -> Self {
        Self { anonymous: true, ..self }
    }

    fn with(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
        self
    }

    /// Adds the headers of every answer; `request_id` is the caller's.
    pub(crate) fn into_response(self, shared: &Shared, request_id: Option<String>) -> Response<Body> {
        let length = http_body::Body::size_hint(&self.body).exact();
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.reserve(8);
        headers.extend(HeaderValue::from_str(&http_date(shared.unix_seconds())).ok().map(|date| (DATE, date)));
        headers.insert(SERVER, HeaderValue::from_static("uvicorn"));
        headers.extend(self.headers);
        if let Some(length) = length {
            headers.insert(CONTENT_LENGTH, length.into());
        }
        if let Some(content_type) = self.content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        if shared.config.enable_request_id_headers && !self.anonymous {
            let id = request_id.unwrap_or_else(|| shared.hex() + &shared.hex());
            headers.extend(HeaderValue::from_str(&id).ok().map(|id| (HeaderName::from_static("x-request-id"), id)));
        }
        response
    }
}

struct Pieces(VecDeque<Bytes>);

impl EventSource for Pieces {
    fn poll_event(&mut self, _: &mut Context<'_>) -> Poll<Option<Bytes>> {
        Poll::Ready(self.0.pop_front())
    }
}

/// The answer to a browser's preflight, if this is one.
pub(crate) fn preflight(head: &Parts) -> Option<Answer> {
    let asked = head.headers.contains_key("origin") && head.headers.contains_key("access-control-request-method");
    (head.method == Method::OPTIONS && asked).then(|| {
        Answer::text(StatusCode::OK, "text/plain; charset=utf-8", "OK")
            .with(ACCESS_CONTROL_ALLOW_ORIGIN, "*")
            .with(http::header::ACCESS_CONTROL_ALLOW_METHODS, "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT")
            .with(http::header::ACCESS_CONTROL_MAX_AGE, "600")
    })
}

/// A path that is not there; one that differs by a slash is redirected.
pub(crate) fn unknown_path(head: &Parts, config: &Config) -> Answer {
    let path = head.uri.path();
    let bare = path.trim_end_matches('/');
    if bare != path && Route::of(bare, config).is_some() {
        let host = head.headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
        return Answer::empty(StatusCode::TEMPORARY_REDIRECT).with(LOCATION, &format!("http://{host}{bare}"));
    }
    Answer::json(StatusCode::NOT_FOUND, &detail("Not Found"))
}

/// Applies the faults that spoil an answer.
pub(crate) async fn strike(answer: Answer, fault: Option<&Fault>) -> Answer {
    let Some(fault) = fault else { return answer };
    let spoils = matches!(
        fault.kind,
        FaultKind::StallMidStream | FaultKind::DieMidStream | FaultKind::EngineErrorMidStream | FaultKind::GarbageJson
    );
    if !spoils {
        return answer;
    }
    match answer.body {
        Body::Events(events) => Answer { body: Body::Faulty(Faulty::new(events, fault.kind, fault.after)), ..answer },
        Body::Whole(bytes) => match fault.kind {
            FaultKind::StallMidStream => std::future::pending().await,
            FaultKind::EngineErrorMidStream => {
                let error = ApiError::engine_died();
                Answer::json(error.status, &error.openai())
            }
            FaultKind::GarbageJson => Answer { body: Body::Whole(bytes.slice(..bytes.len() / 2)), ..answer },
            _ => {
                let half = bytes.slice(..bytes.len() / 2);
                let body = Body::Half { bytes: half, claimed: bytes.len() as u64, flushed: false };
                Answer { body, ..answer }
            }
        },
        body => Answer { body, ..answer },
    }
}

/// An HTTP date, e.g. `Sun, 22 Nov 2026 12:40:04 GMT`.
fn http_date(unix: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let days = unix / 86_400;
    let second = unix % 86_400;
    // Days since 1 March of year 0, in eras of 400 years.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = (march + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    format!(
        "{}, {day:02} {} {year} {:02}:{:02}:{:02} GMT",
        DAYS[(days % 7) as usize],
        MONTHS[month as usize],
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::http_date;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (unix, date) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_827_696, "Tue, 29 Feb 2000 12:34:56 GMT"),
            (1_795_351_204, "Sun, 22 Nov 2026 12:40:04 GMT"),
        ] {
            assert_eq!(http_date(unix), date);
        }
    }
}
