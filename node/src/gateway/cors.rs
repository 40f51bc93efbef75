//! Calls from web pages (CORS, as the Fetch standard has it). The Tenant says whose pages may call.
//!
//! A browser asks first (a preflight), without credentials, and is answered from the list alone. Then it lets the page see an answer
//! only if that names the page's origin, so every answer does, errors too, and says which of its headers the page may read.
//! Credentials are headers that the page itself sends: no cookie is one here, and `Access-Control-Allow-Credentials` is never sent.
//! What a page of another origin sends is answered as ever, and its browser keeps the answer from it. Nothing of this comes from a replica.

use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use raft::View;

use super::refusal::Refusal;
use super::request::{self, Target};
use super::stream::Body;

/// Seconds for which a browser may remember what a preflight said.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
/// Headers that a page may announce, and bytes of their names.
const NAMES_MAX: usize = 64;
const NAMES_BYTES_MAX: usize = 4096;

/// What the Tenant says of the page that sends a request.
pub(super) struct Cors {
    /// What `Access-Control-Allow-Origin` says, if the page may call.
    allowed: Option<HeaderValue>,
    /// Other pages get other answers.
    varies: bool,
}

/// Whether a browser asks what a page may do.
pub(super) fn is_preflight(head: &Parts) -> bool {
    head.method == Method::OPTIONS
        && head.headers.contains_key(header::ORIGIN)
        && head.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

impl Cors {
    pub(super) fn of(view: &View, headers: &HeaderMap) -> Cors {
        let Some(origins) = view.allowed_origins() else { return Cors { allowed: None, varies: false } };
        if origins.is_any() {
            let allowed = headers.contains_key(header::ORIGIN).then(|| HeaderValue::from_static("*"));
            return Cors { allowed, varies: false };
        }
        let mut sent = headers.get_all(header::ORIGIN).into_iter();
        let allowed = match (sent.next(), sent.next()) {
            (Some(origin), None) if origin.to_str().is_ok_and(|origin| origins.allows(origin)) => Some(origin.clone()),
            _ => None,
        };
        Cors { allowed, varies: true }
    }

    /// The answer to a preflight: what the path takes, and the headers that were asked for. Errors: there is no such path, or the page may not call.
    pub(super) fn preflight(&self, head: &Parts) -> Result<Response<Body>, Refusal> {
        let methods = methods(head)?;
        if self.allowed.is_none() {
            let origin = head.headers.get(header::ORIGIN).map_or(&b""[..], HeaderValue::as_bytes);
            let origin = origin[..origin.len().min(300)].escape_ascii().to_string();
            return Err(Refusal::OriginNotAllowed(origin));
        }
        let mut response = Response::new(Body::Whole(bytes::Bytes::new()));
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
        if let Some(names) = asked_headers(&head.headers)? {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
        }
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        for name in [header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_REQUEST_HEADERS] {
            headers.append(header::VARY, HeaderValue::from(name));
        }
        Ok(response)
    }

    /// Says in the head of an answer whose page may see it, and what of its head.
    pub(super) fn add_to(&self, headers: &mut HeaderMap) {
        if self.varies {
            headers.append(header::VARY, HeaderValue::from(header::ORIGIN));
        }
        let Some(allowed) = &self.allowed else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed.clone());
        let shown: Vec<&str> = headers.keys().filter(|name| is_shown(name)).map(HeaderName::as_str).collect();
        if let Some(shown) = Some(shown.join(", ")).filter(|shown| !shown.is_empty())
            && let Ok(shown) = HeaderValue::try_from(shown)
        {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, shown);
        }
    }
}

/// Headers of an answer that help a page, beside those that every page may read.
fn is_shown(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-ratelimit-")
        || name.starts_with("anthropic-ratelimit-")
        || matches!(
            name,
            "x-request-id"
                | "request-id"
                | "retry-after"
                | "retry-after-ms"
                | "x-should-retry"
                | "ratelimit"
                | "ratelimit-policy"
                | "x-ext-auth-reason"
                | "x-llm-d-request-dropped-reason"
                | "content-disposition"
                | "metadata"
        )
}

/// What the path of a preflight takes. Errors: as for a request with the method that is asked for.
fn methods(head: &Parts) -> Result<&'static str, Refusal> {
    let asked = head.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD).map(HeaderValue::as_bytes);
    let method = asked.and_then(|asked| Method::from_bytes(asked).ok());
    let wrong = || Refusal::BadPreflight("Access-Control-Request-Method is no method");
    let mut meant = head.clone();
    meant.method = method.ok_or_else(wrong)?;
    match request::target(&meant) {
        Ok(Target::Call { .. }) => Ok("POST"),
        Ok(Target::Models { .. } | Target::Root) => Ok("GET, HEAD"),
        Ok(Target::Public) if head.uri.path().starts_with("/maas-api") => Ok("GET, HEAD, POST, DELETE"),
        Ok(Target::Public) => Ok("GET, HEAD"),
        // The browser tells the page.
        Err(Refusal::MethodNotAllowed { allowed, .. }) => Ok(allowed),
        Err(refusal) => Err(refusal),
    }
}

/// The names in `Access-Control-Request-Headers`. Errors: they are no names, or too many.
fn asked_headers(headers: &HeaderMap) -> Result<Option<HeaderValue>, Refusal> {
    let mut names: Vec<HeaderName> = Vec::new();
    let mut bytes = 0;
    for value in headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        for name in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            bytes += name.len();
            if names.len() >= NAMES_MAX || bytes > NAMES_BYTES_MAX {
                return Err(Refusal::BadPreflight("Access-Control-Request-Headers names too many headers"));
            }
            if !name.is_empty() {
                let name = HeaderName::from_bytes(name);
                let wrong = |_| Refusal::BadPreflight("Access-Control-Request-Headers is no list of header names");
                names.push(name.map_err(wrong)?);
            }
        }
    }
    let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
    Ok(Some(names.join(", ")).filter(|names| !names.is_empty()).and_then(|names| HeaderValue::try_from(names).ok()))
}
