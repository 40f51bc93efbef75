//! The head of a request: which path it means, and whether it is sound enough to be looked at further.
//!
//! Slashes that say nothing are left out first. Paths are decoded once, segment by segment, after splitting: an encoded slash stays part of
//! its segment and is refused there, but for the id behind `/v1/models/`. Nothing of the head is ever copied upstream as it is;
//! [`super::proxy`] builds a new one.

use std::borrow::Cow;

use http::request::Parts;
use http::{HeaderMap, Method, Uri, header};
use percent_encoding::percent_decode_str;

use super::endpoint::Endpoint;
use super::refusal::Refusal;
use crate::accept;
use crate::model_id;

/// What a request is about.
#[derive(PartialEq, Debug)]
pub(super) enum Target<'a> {
    /// A call to a model.
    Call {
        /// The path behind the model's prefix.
        endpoint: &'static Endpoint,
        /// The model the path names; without one the body names it.
        model: Option<ModelPath<'a>>,
    },
    /// The list of one model at its own prefix, or of that list the model `id`.
    Models {
        /// Of which model.
        model: ModelPath<'a>,
        /// Decoded.
        id: Option<String>,
    },
    /// What is this?
    Root,
    /// Something the node's public API answers: `/v1/models`, `/maas-api/…`, health.
    Public,
}

/// `/<namespace>/<name>` at the start of a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ModelPath<'a> {
    pub(super) namespace: Cow<'a, str>,
    pub(super) name: Cow<'a, str>,
}

/// Leaves out of a path what says nothing: a slash at its end, and slashes behind a slash. Base URLs end in a slash as often as not.
pub(super) fn tidy(uri: &mut Uri) {
    let path = uri.path();
    if !path.starts_with('/') || !(path.contains("//") || path.len() > 1 && path.ends_with('/')) {
        return;
    }
    let mut tidied = String::with_capacity(path.len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        tidied.push('/');
        tidied.push_str(segment);
    }
    if tidied.is_empty() {
        tidied.push('/');
    }
    if let Some(query) = uri.query() {
        tidied.push('?');
        tidied.push_str(query);
    }
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = tidied.parse().ok();
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

/// Finds what `head` asks for, or why it is not listened to. Its path is [tidy].
pub(super) fn target(head: &Parts) -> Result<Target<'_>, Refusal> {
    accept::check_head(head).map_err(|bad| Refusal::BadRequest(bad.to_string()))?;
    let whole = head.uri.path();
    if let "/" | "/v1" = whole {
        check_method(&head.method, &READ, "/", "GET, HEAD")?;
        return Ok(Target::Root);
    }
    let (path, id) = model_id::split(whole).map_err(|bad| Refusal::BadRequest(bad.to_string()))?;
    if is_public(path) {
        check_segments(path)?;
        return Ok(Target::Public);
    }
    let (model, rest) = split_model(path)?;
    if rest == "/v1/models"
        && let Some(model) = model
    {
        check_method(&head.method, &READ, "/v1/models", "GET, HEAD")?;
        return Ok(Target::Models { model, id });
    }
    if let Some(endpoint) = Endpoint::at(&rest) {
        if wants_web_socket(head) {
            return Err(Refusal::NoWebSocket { path: endpoint.path });
        }
        check_method(&head.method, &[Method::POST], endpoint.path, "POST")?;
        return Ok(Target::Call { endpoint, model });
    }
    if is_stored(&rest) {
        return Err(Refusal::NotStored);
    }
    // What looks like a model's prefix may be another server's.
    let hint = hint(whole.find("/v1/").map_or(&*rest, |at| &whole[at..]));
    Err(Refusal::NoSuchPath { path: whole.to_owned(), hint })
}

/// OpenAI's SDKs want a base URL with `/v1` at its end, Anthropic's and Claude Code one without.
fn hint(path: &str) -> &'static str {
    let is_served = |path: &str| path == "/v1/models" || Endpoint::at(path).is_some();
    if path == "/v1/realtime" || path.starts_with("/v1/realtime/") {
        "; there are no realtime sessions here: send a POST to /v1/responses, with `stream: true` for a stream of events"
    } else if is_served(&format!("/v1{path}")) {
        "; is `/v1` missing at the end of the base URL?"
    } else if path.strip_prefix("/v1").is_some_and(is_served) {
        "; the base URL of this client must not end in `/v1`"
    } else if is_served(path) {
        "; in the base URL nothing goes before `/v1` but the namespace and the name of a model"
    } else {
        ""
    }
}

const READ: [Method; 2] = [Method::GET, Method::HEAD];

/// Whether a path below a model's prefix names something that an earlier call would have left behind.
fn is_stored(path: &str) -> bool {
    let below = |list: &str| path.strip_prefix(list).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match path.strip_prefix("/v1/responses/") {
        // These work on what the request itself brings.
        Some("compact" | "input_tokens" | "render" | "derender") => false,
        Some(_) => true,
        None => below("/v1/conversations"),
    }
}

/// Whether a request wants to go on as a WebSocket (RFC 6455, section 4.2.1). Other upgrades, of which `h2c` is the most common, may be
/// passed over (RFC 9110, section 7.8), and are: then the request is answered as it is.
fn wants_web_socket(head: &Parts) -> bool {
    let values = head.headers.get_all(header::UPGRADE).into_iter().filter_map(|value| value.to_str().ok());
    head.method == Method::GET
        && values.flat_map(|value| value.split(',')).any(|protocol| protocol.trim().eq_ignore_ascii_case("websocket"))
}

fn is_public(path: &str) -> bool {
    let below = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    below("/v1/models") || below("/maas-api") || accept::is_health_check(path)
}

/// Splits a path into the model it names, if it does, and the rest. `v1` and `maas-api` are never namespaces, nor are the first
/// segments of unversioned inference paths, because those have fewer than three segments.
fn split_model(path: &str) -> Result<(Option<ModelPath<'_>>, Cow<'_, str>), Refusal> {
    let mut segments = check_segments(path)?.into_iter();
    let (first, second) = (segments.next(), segments.next());
    let rest: Vec<_> = segments.collect();
    match (first, second) {
        (Some(namespace), Some(name)) if !rest.is_empty() && !is_reserved(&namespace) => {
            let rest = rest.iter().fold(String::new(), |path, segment| path + "/" + segment);
            Ok((Some(ModelPath { namespace, name }), Cow::Owned(rest)))
        }
        _ => Ok((None, Cow::Borrowed(path))),
    }
}

fn is_reserved(segment: &str) -> bool {
    matches!(segment, "v1" | "v2" | "maas-api")
}

/// The segments of a path, each decoded once. Only characters that names and our own paths need are let through.
fn check_segments(path: &str) -> Result<Vec<Cow<'_, str>>, Refusal> {
    let Some(relative) = path.strip_prefix('/') else {
        return Err(Refusal::BadRequest("the path must begin with `/`".to_owned()));
    };
    relative.split('/').map(check_segment).collect()
}

fn check_segment(raw: &str) -> Result<Cow<'_, str>, Refusal> {
    let bad = |what: &str| Refusal::BadRequest(format!("path segment `{}` {what}", raw.escape_default()));
    let segment = percent_decode_str(raw).decode_utf8().map_err(|_| bad("is not UTF-8"))?;
    if segment.is_empty() {
        return Err(bad("is empty"));
    }
    if segment == "." || segment == ".." {
        return Err(bad("would leave its place"));
    }
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'@' | b'+');
    if !segment.bytes().all(plain) {
        return Err(bad("has a character that no path here has"));
    }
    Ok(segment)
}

fn check_method(
    method: &Method,
    accepted: &[Method],
    path: &'static str,
    allowed: &'static str,
) -> Result<(), Refusal> {
    if accepted.contains(method) { Ok(()) } else { Err(Refusal::MethodNotAllowed { path, allowed }) }
}

/// The request's id: the client's own if it is harmless in logs and at replicas.
pub(super) fn client_request_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get("x-request-id")?.to_str().ok()?;
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    ((1..=128).contains(&id.len()) && id.bytes().all(harmless)).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(request: &str) -> String {
        let mut lines = request.split(" | ");
        let (method, uri) = lines.next().and_then(|line| line.split_once(' ')).unwrap();
        let mut builder = http::Request::builder().method(method).uri(uri);
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            builder = builder.header(name, value);
        }
        let (mut head, ()) = builder.body(()).unwrap().into_parts();
        tidy(&mut head.uri);
        match target(&head) {
            Ok(Target::Public) => "public".to_owned(),
            Ok(Target::Root) => "root".to_owned(),
            Ok(Target::Models { model, id: None }) => format!("models of {}/{}", model.namespace, model.name),
            Ok(Target::Models { model, id: Some(id) }) => format!("{id} of {}/{}", model.namespace, model.name),
            Ok(Target::Call { endpoint, model }) => match model {
                Some(model) => format!("{} of {}/{}", endpoint.path, model.namespace, model.name),
                None => endpoint.path.to_owned(),
            },
            Err(refusal) => refusal.status().as_str().to_owned(),
        }
    }

    #[test]
    fn paths() {
        let table = "
            POST /ns/m/v1/chat/completions   -> /v1/chat/completions of ns/m
            POST /ns/%6d/v1/chat/completions -> /v1/chat/completions of ns/m
            POST /v1/chat/completions        -> /v1/chat/completions
            POST /v1/messages/count_tokens   -> /v1/messages/count_tokens
            POST /ns/m/v1/messages           -> /v1/messages of ns/m
            POST /ns/m/score                 -> /score of ns/m
            POST /score                      -> /score
            POST /v2/rerank                  -> /v2/rerank
            GET /ns/m/v1/models              -> models of ns/m
            GET /v1/models                   -> public
            GET /maas-api/v1/api-keys        -> public
            GET /healthz                     -> public
            GET /ns/m/v1/models/org/model    -> org/model of ns/m
            GET /ns/m/v1/models/org%2fmodel  -> org/model of ns/m
            POST /ns/m/v1/models/v1/messages -> 405
            GET /v1/models/org/model         -> public
            GET /v1/models/org%2Fmodel       -> public
            GET /                            -> root
            HEAD //                          -> root
            GET /v1/                         -> root
            POST /                           -> 405
            GET /ns/m/v1/responses/resp_1    -> 404
            POST /v1/responses/resp_1/cancel -> 404
            POST /v1/conversations           -> 404
            POST /v1/responses/compact       -> 404
            GET /ns/m/v1/chat/completions    -> 405
            POST /ns/m/invocations           -> 404
            POST /invocations                -> 404
            GET /ns/m/metrics                -> 404
            POST /ns/m/v1/load_lora_adapter  -> 404
            POST /ns/m/inference/v1/generate -> 404
            GET /ns/m                        -> 404
            POST /maas-api/m/v1/messages     -> public
            POST /v1/m/v1/messages           -> 404
            POST /ns/m%2fv1/v1/messages      -> 400
            POST /ns/../v1/messages          -> 400
            POST /ns/%2e%2e/v1/messages      -> 400
            POST /ns/%252e/v1/messages       -> 400
            POST /ns/m%00/v1/messages        -> 400
            POST /ns/m%ff/v1/messages        -> 400
            POST /ns/m%5c/v1/messages        -> 400
            POST //m/v1/messages             -> 404
            POST /ns/m/v1/messages/          -> /v1/messages of ns/m
            POST //ns//m/v1///messages//?a=/ -> /v1/messages of ns/m
            POST //v1/messages               -> /v1/messages
            POST /ns//../v1/messages         -> 400
            GET //maas-api//v1/models/       -> public
            GET /v1/models/..%2fx            -> 400
            GET /v1/models/a/../../messages  -> 400
            GET /ns/m/v1/models/%2e%2e/x     -> 400
        ";
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (request, expected) = line.split_once(" -> ").unwrap();
            assert_eq!(ask(&format!("{} | host: gateway", request.trim())), expected, "{line}");
        }
    }

    #[test]
    fn a_base_url_with_or_without_v1_is_told_from_an_unknown_path() {
        let table = [
            ("/chat/completions", "is `/v1` missing"),
            ("/ns/m/responses", "is `/v1` missing"),
            ("/models", "is `/v1` missing"),
            ("/v1/v1/messages", "must not end in `/v1`"),
            ("/ns/m/v1/v1/messages", "must not end in `/v1`"),
            ("/ns/m/v1/nothing", "no such path: /ns/m/v1/nothing"),
            ("/v1/nothing", "no such path: /v1/nothing"),
            ("/api/v1/chat/completions", "nothing goes before `/v1`"),
            ("/v1/realtime", "no realtime sessions here"),
            ("/ns/m/v1/realtime/sessions", "no realtime sessions here"),
        ];
        for (path, said) in table {
            let request = http::Request::post(path).header("host", "a").body(()).unwrap();
            let message = target(&request.into_parts().0).unwrap_err().to_string();
            assert!(message.contains(said) && message.contains(path), "{message}");
            assert_eq!(message.contains("base URL"), said.contains("`/v1`"), "{message}");
        }
    }

    #[test]
    fn a_web_socket_is_not_to_be_had_and_other_upgrades_are_passed_over() {
        let table = [
            ("GET /v1/responses | host: a | connection: Upgrade | upgrade: websocket", "426"),
            ("GET /ns/m/v1/responses | host: a | upgrade: h2c, WebSocket", "426"),
            ("GET /v1/chat/completions/ | host: a | upgrade: websocket", "426"),
            ("GET /v1/responses | host: a | upgrade: h2c", "405"),
            ("POST /v1/responses | host: a | upgrade: h2c", "/v1/responses"),
            ("GET /v1/realtime | host: a | upgrade: websocket", "404"),
        ];
        for (request, expected) in table {
            assert_eq!(ask(request), expected, "{request}");
        }
    }

    #[test]
    fn a_tidied_path_keeps_everything_else() {
        let table = [
            ("/v1/messages?beta=true", "/v1/messages?beta=true"),
            ("//v1//messages/?a=//b/", "/v1/messages?a=//b/"),
            ("http://host//v1/messages/", "http://host/v1/messages"),
            ("//", "/"),
            ("/v1/models/a%2F%2Fb/", "/v1/models/a%2F%2Fb"),
            ("*", "*"),
        ];
        for (path, expected) in table {
            let mut uri: Uri = path.parse().unwrap();
            tidy(&mut uri);
            assert_eq!(uri.to_string(), expected, "{path}");
        }
    }

    #[test]
    fn a_clients_request_id_is_kept_if_it_is_harmless() {
        let cases = [("a-B_9.x", true), ("", false), ("a b", false), ("a\tb", false), ("chat/1", false)];
        for (id, kept) in cases {
            let headers = HeaderMap::from_iter([(http::HeaderName::from_static("x-request-id"), id.parse().unwrap())]);
            assert_eq!(client_request_id(&headers).is_some(), kept, "{id:?}");
        }
    }
}
