//! A prompt as a chain of hashes: equal prefixes have equal hashes, so a replica that served one holds the other's blocks.

/// Hashes of a prompt's growing prefixes, one per block of 256 bytes (about 64 tokens).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixHashes(pub(crate) Vec<u64>);

impl PrefixHashes {
    /// Hashes `prompt` as sent to `model`, kept apart by `salt` (`cache_salt`).
    pub fn of(model: &str, salt: &str, prompt: &[u8]) -> PrefixHashes {
        todo!("{model} {salt} {}", prompt.len())
    }
}
