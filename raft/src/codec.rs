//! The one door to bincode: what goes to disk or to a peer is a record with a format version and a checksum.
//!
//! ```text
//! magic u16 | format u8 | type u16 | version u16 | length u32 | crc32 u32 | payload (length bytes)
//! ```
//!
//! Numbers are big-endian; the checksum covers everything before it and the payload. The payload is
//! bincode 2 in its standard configuration. bincode writes positions, not names: any change to a record's
//! fields is a new version of that record. Another encoding would be another format byte.

use std::ops::Range;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The bytes `TG`: a record of ours begins here.
const MAGIC: u16 = 0x5447;
/// bincode 2, standard configuration.
const FORMAT: u8 = 1;
/// How many bytes come before the payload.
pub(crate) const HEADER: usize = 15;
/// Where the checksum is.
const CHECKSUM: Range<usize> = 11..15;
/// What one decode may read: above the largest snapshot. A length that lies costs less: serde reserves at most a MiB
/// before it has seen the elements.
const DECODE_MAX: usize = 4 << 30;

/// A type with its number and version on disk and on the wire.
pub(crate) trait Record {
    /// Its number: never reused.
    const TYPE: u16;
    /// Counts changes of its fields.
    const VERSION: u16;
}

/// Why bytes are not the record that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends too early.
    #[error("record of {have} bytes is cut off: {want} bytes expected")]
    Short {
        /// What there is.
        have: usize,
        /// What there should be.
        want: usize,
    },
    /// It does not begin as a record.
    #[error("not a record: it begins with {0:#06x}")]
    Magic(u16),
    /// It was written by another version of this program.
    #[error("record format {0} is unknown to this version")]
    Format(u8),
    /// It is a record of something else.
    #[error("record of type {have} where type {want} was expected")]
    Type {
        /// What there is.
        have: u16,
        /// What there should be.
        want: u16,
    },
    /// It was written by another version of this program.
    #[error("record type {kind} version {version} is unknown to this version")]
    Version {
        /// Its type.
        kind: u16,
        /// Its version.
        version: u16,
    },
    /// More bytes than the record says.
    #[error("record says {want} bytes of payload but has {have}")]
    Length {
        /// What there is.
        have: usize,
        /// What it says.
        want: usize,
    },
    /// Its bytes changed since they were written.
    #[error("checksum mismatch: {have:#010x} computed, {want:#010x} recorded")]
    Checksum {
        /// As computed.
        have: u32,
        /// As recorded.
        want: u32,
    },
    /// Its payload is not what its type says.
    #[error("malformed payload: {0}")]
    Malformed(String),
}

/// What a record says of itself before its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Its type.
    pub(crate) kind: u16,
    /// Its version.
    pub(crate) version: u16,
    /// How many bytes of payload follow.
    pub(crate) length: usize,
    checksum: u32,
}

/// `record` as bytes.
pub(crate) fn encode<R: Record + Serialize>(record: &R) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(record, &mut bytes);
    bytes
}

/// Puts `record` at the end of `bytes`.
pub(crate) fn append<R: Record + Serialize>(record: &R, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    bytes.resize(start + HEADER, 0);
    append_payload(record, bytes);
    seal(&mut bytes[start..], R::TYPE, R::VERSION);
}

/// Raw `payload`, which somebody else encoded, as a record of type `R`.
pub(crate) fn encode_raw<R: Record>(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.resize(HEADER, 0);
    bytes.extend_from_slice(payload);
    seal(&mut bytes, R::TYPE, R::VERSION);
    bytes
}

/// The record that `bytes` are, all of them.
pub(crate) fn decode<R: Record + DeserializeOwned>(bytes: &[u8]) -> Result<R, DecodeError> {
    from_payload(decode_raw::<R>(bytes)?)
}

/// The payload of the record of type `R` that `bytes` are, all of them, checked but not decoded.
pub(crate) fn decode_raw<R: Record>(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let header = header(bytes)?;
    if header.kind != R::TYPE {
        return Err(DecodeError::Type { have: header.kind, want: R::TYPE });
    }
    if header.version != R::VERSION {
        return Err(DecodeError::Version { kind: header.kind, version: header.version });
    }
    let payload = &bytes[HEADER..];
    if payload.len() != header.length {
        return Err(DecodeError::Length { have: payload.len(), want: header.length });
    }
    let computed = checksum(&bytes[..CHECKSUM.start], payload);
    if computed != header.checksum {
        return Err(DecodeError::Checksum { have: computed, want: header.checksum });
    }
    Ok(payload)
}

/// What the record that `bytes` begin with says of itself; its payload may not be there yet.
pub(crate) fn header(bytes: &[u8]) -> Result<Header, DecodeError> {
    let Some(&[m0, m1, format, k0, k1, v0, v1, l0, l1, l2, l3, c0, c1, c2, c3]) = bytes.first_chunk::<HEADER>() else {
        return Err(DecodeError::Short { have: bytes.len(), want: HEADER });
    };
    let magic = u16::from_be_bytes([m0, m1]);
    if magic != MAGIC {
        return Err(DecodeError::Magic(magic));
    }
    if format != FORMAT {
        return Err(DecodeError::Format(format));
    }
    Ok(Header {
        kind: u16::from_be_bytes([k0, k1]),
        version: u16::from_be_bytes([v0, v1]),
        length: u32::from_be_bytes([l0, l1, l2, l3]) as usize,
        checksum: u32::from_be_bytes([c0, c1, c2, c3]),
    })
}

/// `value` as a bare payload, for what is wrapped by a record of something larger.
pub(crate) fn to_payload<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    append_payload(value, &mut bytes);
    bytes
}

/// The value that `payload` is, all of it.
pub(crate) fn from_payload<T: DeserializeOwned>(payload: &[u8]) -> Result<T, DecodeError> {
    decode_with(payload, bincode::config::standard().with_limit::<DECODE_MAX>())
}

/// As [`from_payload`], whatever the size: for snapshots, which the cluster wrote and a checksum guards.
pub(crate) fn from_large_payload<T: DeserializeOwned>(payload: &[u8]) -> Result<T, DecodeError> {
    decode_with(payload, bincode::config::standard())
}

fn decode_with<T: DeserializeOwned>(payload: &[u8], config: impl bincode::config::Config) -> Result<T, DecodeError> {
    let (value, used) = bincode::serde::decode_from_slice(payload, config)
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    if used != payload.len() {
        return Err(DecodeError::Malformed(format!("{} bytes left over", payload.len() - used)));
    }
    Ok(value)
}

fn append_payload<T: Serialize>(value: &T, bytes: &mut Vec<u8>) {
    bincode::serde::encode_into_std_write(value, bytes, bincode::config::standard())
        .expect("writing to memory does not fail and our types have no lengths unknown to serde");
}

fn seal(bytes: &mut [u8], kind: u16, version: u16) {
    let length = u32::try_from(bytes.len() - HEADER).expect("records are bounded far below 4 GiB by their makers");
    bytes[0..2].copy_from_slice(&MAGIC.to_be_bytes());
    bytes[2] = FORMAT;
    bytes[3..5].copy_from_slice(&kind.to_be_bytes());
    bytes[5..7].copy_from_slice(&version.to_be_bytes());
    bytes[7..11].copy_from_slice(&length.to_be_bytes());
    let checksum = checksum(&bytes[..CHECKSUM.start], &bytes[HEADER..]);
    bytes[CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}

/// `#[serde(with = "codec::blob")]`: [`bytes::Bytes`] as one run of bytes instead of a sequence of numbers.
pub(crate) mod blob {
    use std::fmt;

    use bytes::Bytes;
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        deserializer.deserialize_byte_buf(Blob)
    }

    struct Blob;

    impl Visitor<'_> for Blob {
        type Value = Bytes;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
            Ok(Bytes::copy_from_slice(bytes))
        }

        fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
            Ok(Bytes::from(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Sample(String, u64);

    impl Record for Sample {
        const TYPE: u16 = 900;
        const VERSION: u16 = 1;
    }

    #[derive(Serialize, Deserialize, Debug)]
    struct OtherNote(String);

    impl Record for OtherNote {
        const TYPE: u16 = 900;
        const VERSION: u16 = 2;
    }

    #[test]
    fn every_single_bit_that_flips_is_noticed() {
        let sample = Sample("a change to the state".into(), 7);
        let bytes = encode(&sample);
        assert_eq!(decode::<Sample>(&bytes), Ok(sample));
        for at in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert!(decode::<Sample>(&bad).is_err(), "bit {at} flipped unnoticed");
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let bytes = encode(&Sample("x".into(), 1));
        for length in 0..bytes.len() {
            assert!(decode::<Sample>(&bytes[..length]).is_err(), "cut to {length} bytes unnoticed");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let bytes = encode(&Sample("x".into(), 1));
        let with = |at: usize, value: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            decode::<Sample>(&bytes).unwrap_err().to_string()
        };
        assert_eq!(with(0, 0), "not a record: it begins with 0x0047");
        assert_eq!(with(2, 9), "record format 9 is unknown to this version");
        assert_eq!(with(4, 1), format!("record of type {} where type 900 was expected", 0x0301));
        assert!(with(HEADER, 0).starts_with("checksum mismatch"));
        assert_eq!(
            decode::<OtherNote>(&bytes).unwrap_err(),
            DecodeError::Version { kind: 900, version: 1 },
            "a record of an older version is not misread as the newer one"
        );
    }

    #[test]
    fn a_length_that_lies_allocates_nothing() {
        let huge = to_payload(&(u64::MAX, 0u8));
        assert!(matches!(from_payload::<Vec<u64>>(&huge), Err(DecodeError::Malformed(_))));
    }
}
