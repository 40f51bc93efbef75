//! Secrets: drawn here, shown once to who asked, and hashed before anything else sees them.

use actors::auth::{KEY_PREFIX, key_hash, token_hash};
use raft::doors::Chance;

/// The digits of base 62, smallest first.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The prefix of service-account tokens.
const TOKEN_PREFIX: &str = "tgsa-";

/// How much of a key's id people are shown to recognise it by.
const SHOWN_KEY_ID: usize = 12;

/// A fresh credential. It has no `Debug`: the text must reach only the response body.
pub(super) struct Secret {
    /// The credential itself.
    pub(super) text: String,
    /// What the cluster keeps of it.
    pub(super) hash: [u8; 32],
}

/// A fresh API key, `sk-oai-{key_id}_{secret}`: base 62 of 12 and of 32 random bytes.
pub(super) fn api_key(chance: &dyn Chance) -> Secret {
    let text = format!("{KEY_PREFIX}{}_{}", base62(random::<12>(chance)), base62(random::<32>(chance)));
    let hash = key_hash(&text).expect("a fresh key is well-formed: both parts are non-empty base 62");
    Secret { text, hash }
}

/// What people are shown to recognise an API key by: `sk-oai-` and the start of its id.
pub(super) fn shown_prefix(key: &str) -> String {
    let id = key.strip_prefix(KEY_PREFIX).and_then(|rest| rest.split_once('_')).map_or("", |(id, _)| id);
    format!("{KEY_PREFIX}{}...", id.chars().take(SHOWN_KEY_ID).collect::<String>())
}

/// A fresh service-account token: `tgsa-` and base 62 of 32 random bytes.
pub(super) fn service_account_token(chance: &dyn Chance) -> Secret {
    let text = format!("{TOKEN_PREFIX}{}", base62(random::<32>(chance)));
    let hash = token_hash(&text);
    Secret { text, hash }
}

fn random<const N: usize>(chance: &dyn Chance) -> [u8; N] {
    let mut bytes = [0; N];
    chance.fill(&mut bytes);
    bytes
}

/// A big-endian integer in base 62, without padding.
fn base62<const N: usize>(mut bytes: [u8; N]) -> String {
    let mut digits = Vec::new();
    while bytes.iter().any(|byte| *byte != 0) {
        let mut remainder = 0_u32;
        for byte in &mut bytes {
            let value = remainder * 256 + u32::from(*byte);
            *byte = u8::try_from(value / 62).expect("a remainder below 62 times 256, over 62, is below 256");
            remainder = value % 62;
        }
        digits.push(ALPHABET[remainder as usize]);
    }
    if digits.is_empty() {
        digits.push(ALPHABET[0]);
    }
    digits.iter().rev().map(|digit| char::from(*digit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::doors::SeededChance;

    #[test]
    fn base_62_is_big_endian_without_padding() {
        let cases = [
            ([0, 0, 0], "0"),
            ([0, 0, 9], "9"),
            ([0, 0, 10], "A"),
            ([0, 0, 61], "z"),
            ([0, 0, 62], "10"),
            ([0, 1, 0], "48"),
            ([255, 255, 255], "18OWF"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(base62(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_key_has_the_form_clients_expect_and_no_two_are_alike() {
        let chance = SeededChance::new(7);
        let (one, other) = (api_key(&chance), api_key(&chance));
        let (id, secret) = one.text.strip_prefix("sk-oai-").unwrap().split_once('_').unwrap();
        assert!((15..=17).contains(&id.len()) && (41..=43).contains(&secret.len()), "{id} {secret}");
        assert_ne!(one.text, other.text);
        assert_ne!(one.hash, other.hash);
        assert_eq!(shown_prefix(&one.text), format!("sk-oai-{}...", &id[..12]));
    }
}
