//! The credentials of a request: the bearer in `Authorization`, and the key in `x-api-key`, where Anthropic's SDK puts it.
//!
//! A client may send both, and often one of them is a placeholder: an SDK that wants a key is given any, and the real one is in the
//! other header. So each is tried, and one that is good is enough. If both are good, `Authorization` counts: every dialect has it.

use actors::auth::KEY_PREFIX;
use actors::{Auth, Caller, NotFound, Unauthenticated};
use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, HeaderValue};

use crate::accept::{Peer, TooManyAttempts};

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What follows `Bearer ` in the Authorization header. `None` if there is no such header, several of them, or another scheme:
/// a request that does not say clearly who it is from is from nobody.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, credential) = only(headers, AUTHORIZATION)?.split_once(' ')?;
    let credential = credential.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !credential.is_empty()).then_some(credential)
}

/// All that a request shows, in the order in which it counts; at most two, each once. It is never printed.
#[derive(Clone, Copy)]
pub(crate) struct Shown<'a> {
    first: Option<&'a str>,
    second: Option<&'a str>,
}

impl<'a> Shown<'a> {
    /// What these headers show.
    pub(crate) fn of(headers: &'a HeaderMap) -> Shown<'a> {
        let bearer = bearer(headers);
        let key = only(headers, API_KEY).map(str::trim).filter(|key| !key.is_empty());
        match (bearer, key) {
            (Some(bearer), key) => Shown { first: Some(bearer), second: key.filter(|key| *key != bearer) },
            (None, key) => Shown { first: key, second: None },
        }
    }

    /// The credential that an error is about if none is good: one that looks like an API key, since that is no placeholder.
    pub(crate) fn telling(&self) -> Option<&'a str> {
        let both = [self.first, self.second];
        both.into_iter().flatten().find(|credential| credential.starts_with(KEY_PREFIX)).or(self.first)
    }

    /// The caller, by the first credential that is good. Errors: about the [telling](Shown::telling) one.
    pub(crate) fn authenticate(&self, auth: &Auth) -> Result<Caller, Unauthenticated> {
        let refused = match auth.authenticate(self.first) {
            Ok(caller) => return Ok(caller),
            Err(refused) => refused,
        };
        let Some(second) = self.second else { return Err(refused) };
        let other = auth.authenticate(Some(second));
        other.map_err(|other| if self.telling() == self.second { other } else { refused })
    }

    /// As [`Shown::authenticate`], and the peer that sent it is told: it has shown a good one, or one more that is not. Errors: too many that are not came
    /// from its address. None at all is no guess.
    pub(crate) fn judge(
        &self,
        auth: &Auth,
        peer: &Peer,
        headers: &HeaderMap,
    ) -> Result<Result<Caller, Unauthenticated>, TooManyAttempts> {
        let judged = self.authenticate(auth);
        match &judged {
            Ok(_) => peer.authenticated(),
            Err(Unauthenticated::Missing) => {}
            Err(_) => peer.failed(headers)?,
        }
        Ok(judged)
    }

    /// As [`Shown::authenticate`] for administration: a credential that this node does not know is looked for again when it has heard what the leader knows.
    pub(crate) async fn find(&self, auth: &Auth) -> Result<Caller, NotFound> {
        if let Ok(caller) = self.authenticate(auth) {
            return Ok(caller);
        }
        match auth.find(self.telling()).await {
            // This node now knows what the leader knows, of the other one, too.
            Err(NotFound::Unauthenticated(refused)) => self.authenticate(auth).map_err(|_| refused.into()),
            found => found,
        }
    }
}

/// The value of a header that is there exactly once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    HeaderValue::to_str(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines.iter().filter_map(|line| line.split_once(": ")) {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_one_clear_bearer_counts() {
        let cases: [(&[&str], Option<&str>); 7] = [
            (&[], None),
            (&["authorization: Bearer abc"], Some("abc")),
            (&["authorization: bearer  abc "], Some("abc")),
            (&["authorization: Bearer "], None),
            (&["authorization: Basic abc"], None),
            (&["authorization: abc"], None),
            (&["authorization: Bearer abc", "authorization: Bearer def"], None),
        ];
        for (lines, expected) in cases {
            assert_eq!(bearer(&headers(lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn credentials_are_found_where_sdks_put_them() {
        let (key, dummy) = (Some("sk-oai-a_b"), Some("dummy"));
        let table = [
            (&[][..], None, None, None),
            (&["x-api-key: sk-oai-a_b"], key, None, key),
            (&["authorization: Bearer sk-oai-a_b"], key, None, key),
            (&["authorization: Bearer sk-oai-a_b", "x-api-key: dummy"], key, dummy, key),
            (&["authorization: Bearer dummy", "x-api-key: sk-oai-a_b"], dummy, key, key),
            (&["authorization: Bearer token", "x-api-key: dummy"], Some("token"), dummy, Some("token")),
            (&["authorization: Bearer dummy", "x-api-key: dummy"], dummy, None, dummy),
            (&["authorization: Basic abc", "x-api-key: a", "x-api-key: b"], None, None, None),
        ];
        for (lines, first, second, telling) in table {
            let headers = headers(lines);
            let shown = Shown::of(&headers);
            assert_eq!((shown.first, shown.second, shown.telling()), (first, second, telling), "{lines:?}");
        }
    }
}
