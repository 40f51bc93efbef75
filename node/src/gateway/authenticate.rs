//! Who calls: the first stage. Credentials come in two headers, and nowhere else ([`crate::credentials`]).

use actors::auth::KEY_PREFIX;
use actors::{Caller, Unauthenticated};
use http::HeaderMap;

use super::refusal::Refusal;
use crate::Context;
use crate::accept::Peer;
use crate::credentials::Shown;

/// Headers by which an internal identity travels elsewhere. Here nobody needs them, so whoever sends one is trying something.
const IDENTITY_HEADERS: [&str; 2] = ["x-maas-username", "x-maas-group"];

/// Finds the caller. Counts the decision. Errors: also when too many invalid credentials came from the peer's address; a valid one
/// passes all the same.
pub(super) fn authenticate(context: &Context, peer: &Peer, headers: &HeaderMap) -> Result<Caller, Refusal> {
    if let Some(forged) = IDENTITY_HEADERS.into_iter().find(|name| headers.contains_key(*name)) {
        return Err(Refusal::ForgedIdentity(forged));
    }
    let shown = Shown::of(headers);
    let method = match shown.telling() {
        None => "none",
        Some(key) if key.starts_with(KEY_PREFIX) => "key",
        Some(_) => "token",
    };
    let judged = shown.judge(&context.actors.auth, peer, headers)?;
    context.metrics.judged(method, judged.is_ok(), judged.as_ref().err().map_or("", reason));
    Ok(judged?)
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
