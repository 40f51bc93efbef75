//! Who calls: the first stage. Credentials come in two headers, and nowhere else.

use actors::auth::KEY_PREFIX;
use actors::{Caller, Unauthenticated};
use http::{HeaderMap, header};

use super::refusal::Refusal;
use crate::Context;

/// Headers by which an internal identity travels elsewhere. Here nobody needs them, so whoever sends one is trying something.
const IDENTITY_HEADERS: [&str; 2] = ["x-maas-username", "x-maas-group"];

/// Finds the caller. Counts the decision.
pub(super) fn authenticate(context: &Context, headers: &HeaderMap) -> Result<Caller, Refusal> {
    if let Some(forged) = IDENTITY_HEADERS.into_iter().find(|name| headers.contains_key(*name)) {
        return Err(Refusal::ForgedIdentity(forged));
    }
    let credential = credential(headers);
    let method = match credential {
        None => "none",
        Some(key) if key.starts_with(KEY_PREFIX) => "key",
        Some(_) => "token",
    };
    let judged = context.actors.auth.authenticate(credential);
    context.metrics.judged(method, judged.is_ok(), judged.as_ref().err().map_or("", reason));
    Ok(judged?)
}

/// The bearer token; or the key in `x-api-key`, where Anthropic's SDK puts it, unless the Authorization header has a key.
fn credential(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text(&header::AUTHORIZATION).and_then(|value| {
        let (scheme, credential) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(credential.trim())
    });
    match bearer {
        Some(key) if key.starts_with(KEY_PREFIX) => Some(key),
        other => text(&header::HeaderName::from_static("x-api-key")).map(str::trim).or(other),
    }
    .filter(|credential| !credential.is_empty())
}

fn reason(refused: &Unauthenticated) -> &'static str {
    match refused {
        Unauthenticated::Missing => "missing",
        Unauthenticated::UnknownToken => "unknown_token",
        Unauthenticated::MalformedKey => "malformed_key",
        Unauthenticated::UnknownKey => "unknown_key",
        Unauthenticated::RevokedKey => "revoked_key",
        Unauthenticated::ExpiredKey => "expired_key",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_where_sdks_put_them() {
        let table = [
            ("", None),
            ("authorization: Bearer sk-oai-a_b", Some("sk-oai-a_b")),
            ("authorization: bearer  token ", Some("token")),
            ("authorization: Basic abc", None),
            ("authorization: Bearer ", None),
            ("x-api-key: sk-oai-a_b", Some("sk-oai-a_b")),
            ("authorization: Bearer other | x-api-key: sk-oai-a_b", Some("sk-oai-a_b")),
            ("authorization: Bearer sk-oai-c_d | x-api-key: sk-oai-a_b", Some("sk-oai-c_d")),
        ];
        for (headers, expected) in table {
            let mut map = HeaderMap::new();
            for (name, value) in headers.split(" | ").filter_map(|line| line.split_once(": ")) {
                map.insert(header::HeaderName::from_static(name), value.parse().unwrap());
            }
            assert_eq!(credential(&map), expected, "{headers:?}");
        }
    }
}
