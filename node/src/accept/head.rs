//! Whether a request's head is sound enough to be looked at: the same for every port.

use http::request::Parts;
use http::{HeaderMap, Uri, Version, header};

/// What is wrong with a head. The connection closes after the answer, which is 400.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadHead(&'static str);

/// Checks how the body is framed and which host is meant. Errors: either can be understood in two ways.
pub fn check_head(head: &Parts) -> Result<(), BadHead> {
    check_framing(&head.headers)?;
    check_authority(&head.uri, &head.headers, head.version)
}

/// Whether `path` is a health check: answered without a credential, and when there is no place for anything else.
pub fn is_health_check(path: &str) -> bool {
    matches!(path, "/healthz" | "/livez" | "/readyz")
}

/// A request with `Transfer-Encoding` must have exactly `chunked`. The HTTP library lets it win over a `Content-Length` and removes
/// the latter, so the pair is not seen here; the answer to any chunked request closes its connection instead (RFC 9112, 6.1).
fn check_framing(headers: &HeaderMap) -> Result<(), BadHead> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let (first, second) = (codings.next(), codings.next());
    let sound = match first {
        None => true,
        Some(coding) => {
            second.is_none()
                && coding.as_bytes().eq_ignore_ascii_case(b"chunked")
                && !headers.contains_key(header::CONTENT_LENGTH)
        }
    };
    if sound { Ok(()) } else { Err(BadHead("the request's body has an ambiguous length")) }
}

/// Exactly one host is named, once.
fn check_authority(uri: &Uri, headers: &HeaderMap, version: Version) -> Result<(), BadHead> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(BadHead("the request has more than one Host"));
    }
    match (host, uri.authority()) {
        (None, None) if version >= Version::HTTP_11 => Err(BadHead("the request has no Host")),
        (Some(host), Some(authority)) if !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => {
            Err(BadHead("the request's target and its Host name different hosts"))
        }
        (None, Some(_)) if version <= Version::HTTP_11 => Err(BadHead("the request has no Host")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_framing() {
        let table = [
            ("/a", "", false),
            ("/a", "host: a", true),
            ("/a", "host: a | host: a", false),
            ("http://a/a", "host: A", true),
            ("http://a/a", "host: b", false),
            ("http://a/a", "", false),
            ("/a", "host: a | transfer-encoding: chunked", true),
            ("/a", "host: a | transfer-encoding: chunked, chunked", false),
            ("/a", "host: a | transfer-encoding: chunked | transfer-encoding: chunked", false),
            ("/a", "host: a | transfer-encoding: gzip, chunked", false),
            ("/a", "host: a | transfer-encoding: chunked | content-length: 3", false),
        ];
        for (uri, headers, sound) in table {
            let mut request = http::Request::post(uri);
            for (name, value) in headers.split(" | ").filter_map(|line| line.split_once(": ")) {
                request = request.header(name, value);
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(check_head(&head).is_ok(), sound, "{uri} {headers}");
        }
    }
}
